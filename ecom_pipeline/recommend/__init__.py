"""From weighted interactions to lists: retrieval, what is known of a candidate, the ranker, and its evaluation."""
