"""The story: each file a stage, each asset a relation, data flows down the page."""
