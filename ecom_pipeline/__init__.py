"""What a training sample is worth, and a better ranker for it: the domain, which knows no Dagster."""
