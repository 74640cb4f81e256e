"""Whether it helped: figures with their intervals."""

from ecom_pipeline.schema.relation import Column, Relation, text

EVALUATION = Relation(
    "evaluation",
    "figure",
    ("model", "split", "slice", "metric"),
    (
        text("model", "whose figure; 'a - b' is a paired difference"),
        text("split", "validation or test", choices=("validation", "test")),
        text("slice", "which groups or items"),
        text("metric", "with its k"),
        Column("value", "DOUBLE", "mean over groups and seeds"),
        Column("ci_low", "DOUBLE", "lower end of the 95 % interval over groups and seeds"),
        Column("ci_high", "DOUBLE", "upper end of the 95 % interval over groups and seeds"),
        Column(
            "p_value",
            "DOUBLE",
            "of a difference, that it is 0 in truth; null for a model alone",
            False,
            minimum=0,
            maximum=1,
        ),
        Column("n_groups", "BIGINT", "groups that the figure is over", minimum=1),
        Column("n_seeds", "BIGINT", "rankers that the figure is over and that differ from each other", minimum=1),
    ),
    may_be_empty=True,
)

IMPORTANCE_BENCHMARK = Relation(
    "importance_benchmark",
    "figure of one estimator",
    ("estimator", "dataset", "task", "noise_kind", "noise_share", "metric"),
    (
        text("estimator", "how samples were valued; random: values without meaning"),
        text("dataset", "what was valued"),
        text("task", "what the values were used for", choices=("find", "curve", "linear", "network", "cost")),
        text("noise_kind", "how labels were made wrong; natural: as the data has them"),
        Column("noise_share", "DOUBLE", "share of labels made wrong", minimum=0, maximum=1),
        text("metric", "with its k; 'x gain' is a paired difference to the unweighted twin"),
        Column("value", "DOUBLE", "mean over seeds"),
        Column("ci_low", "DOUBLE", "lower end of the 95 % interval over seeds, or over groups and seeds", False),
        Column("ci_high", "DOUBLE", "upper end of it", False),
        Column("p_value", "DOUBLE", "of a gain, that it is 0 in truth; else null", False, minimum=0, maximum=1),
        Column("n_seeds", "INTEGER", "runs that the figure is over", minimum=1),
        Column("seconds", "DOUBLE", "mean time to value all samples, with what is made for it", False, minimum=0),
        Column("peak_mib", "DOUBLE", "largest memory beyond what was there before", False, minimum=0),
    ),
)
