"""Whether today is like other days, and what it cost."""

from ecom_pipeline.schema.relation import Column, Relation, text

DRIFT = Relation(
    "drift",
    "watched figure of a day, or of the run that saw the day as its last",
    ("day", "family", "figure", "part"),
    (
        Column("day", "DATE", "UTC, a whole one"),
        text(
            "family",
            "what is watched: events by their day, the others as the run found them",
            choices=("events", "catalogue", "labels", "texts", "weights", "lists"),
        ),
        text("figure", "its name"),
        text("part", "of what: an action, a column; '' where there is one"),
        text(
            "kind",
            "how days are compared: shares by log odds, the others by logs",
            choices=("share", "count", "amount"),
        ),
        Column("value", "DOUBLE", "of the day"),
        Column("usual", "DOUBLE", "median of the 56 days before; null: none is known", False),
        Column("spread", "DOUBLE", "how far ordinary days are from usual, in logs or log odds", False, minimum=0),
        Column("distance", "DOUBLE", "of the day from usual, in spreads", False),
        text("verdict", "whether a person is told", choices=("too early", "usual", "unusual")),
    ),
    may_be_empty=True,
)

COSTS = Relation(
    "costs",
    "asset that a run made",
    ("run_id", "asset"),
    (
        text("run_id", "of Dagster"),
        text("asset", "its name; assets that one step makes share its seconds"),
        Column("ended_at", "TIMESTAMP", "UTC"),
        Column("seconds", "DOUBLE", "that the asset's step took, with what it waited for", minimum=0),
        Column("n_rows", "BIGINT", "of what was written; of the days that were, where it has days", minimum=0),
        Column("gpu_seconds", "DOUBLE", "that a GPU was held; 0 without one", minimum=0),
        Column("home_bytes", "BIGINT", "of all files in the home when this was noted", minimum=0),
    ),
    may_be_empty=True,
)
