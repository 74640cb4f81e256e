"""Rankers: which layers learn, how they learn with weights, and how good they are."""
