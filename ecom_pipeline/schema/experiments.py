"""What an experiment showed."""

from ecom_pipeline.schema.relation import Column, Relation, text

EXPERIMENT_READOUT = Relation(
    "experiment_readout",
    "figure of one arm of an experiment beside its control",
    ("experiment", "metric", "segment", "arm"),
    (
        text("experiment", "its name"),
        text("metric", "what is compared; after 'before' the same of the days before the exposure"),
        text("segment", "which units: 'all', or by what they did before"),
        text("arm", "that is compared with the control"),
        Column("n_units", "BIGINT", "of the arm", minimum=0),
        Column("value", "DOUBLE", "of the arm", False),
        Column("control_value", "DOUBLE", "of the control", False),
        Column("effect", "DOUBLE", "the difference", False),
        Column("ci_low", "DOUBLE", "2.5 % of the effect, for one look at the end", False),
        Column("ci_high", "DOUBLE", "97.5 %, likewise", False),
        Column("sequence_low", "DOUBLE", "the same for looks at any time", False),
        Column("sequence_high", "DOUBLE", "likewise", False),
        Column("p_value", "DOUBLE", "of no difference, one look", False, minimum=0, maximum=1),
        Column(
            "p_adjusted",
            "DOUBLE",
            "the same among the other figures of its kind; of the main one as it is",
            False,
            minimum=0,
            maximum=1,
        ),
        Column("variance_taken", "DOUBLE", "share that the units' own past explains", False, maximum=1),
        text("verdict", "in words"),
    ),
    may_be_empty=True,
)
