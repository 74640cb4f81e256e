"""Every way to value a sample, one family a file."""
