"""What each training sample is worth, and the weight that follows."""
