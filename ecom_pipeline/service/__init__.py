"""What users meet: a model that was published is asked, what they do is kept for certain, and the next answer knows it."""
