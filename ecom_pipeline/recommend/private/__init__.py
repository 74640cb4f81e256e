"""A ranker that learns little of any one user, and says how little: user-level differential privacy."""
