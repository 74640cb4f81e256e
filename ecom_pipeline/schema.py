"""Every relation in the warehouse: its key, its columns, their units and ranges; and one validator.

The lowest floor beside `errors`: everything else reads what a column may hold from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from duckdb import DuckDBPyConnection

ACTIONS = ("impression", "click", "cart", "purchase", "review", "return")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its SQL type, what it means, and what it may hold."""

    name: str
    type: str
    meaning: str
    required: bool = True
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def violation(self) -> str | None:
        """The SQL condition that is true for a row which breaks this column's promise, or None."""
        broken = []
        if self.required:
            broken.append(f"{self.name} is null")
        if self.type == "DOUBLE":
            broken.append(f"not isfinite({self.name})")
        if self.minimum is not None:
            broken.append(f"{self.name} < {self.minimum}")
        if self.maximum is not None:
            broken.append(f"{self.name} > {self.maximum}")
        if self.choices:
            broken.append(f"{self.name} not in ({', '.join(repr(choice) for choice in self.choices)})")
        return " or ".join(f"coalesce({condition}, false)" for condition in broken) or None


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: what a row is, what identifies it, and its columns in order."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    may_be_empty: bool = field(default=False)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    def create(self, db: DuckDBPyConnection) -> None:
        """Make the relation if it is absent."""
        columns = ", ".join(f"{column.name} {column.type}" for column in self.columns)
        db.execute(f"create table if not exists {self.name} ({columns})")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise of a relation that rows break, how many, and the first of them."""

    promise: str
    n_rows: int
    first: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.n_rows} rows; first: {self.first}"


def violations(db: DuckDBPyConnection, relation: Relation) -> list[Violation]:
    """What a relation promises and rows of it break: nulls, ranges, choices, repeated keys.

    Args:
        db: a connection to the warehouse that holds the relation.
        relation: what must hold.

    Returns:
        One entry a promise, whether broken (n_rows > 0) or kept (n_rows = 0).

    Cost: one scan for all columns, one aggregation for the key.
    """
    promises = {f"{column.name} {_promise(column)}": column.violation() for column in relation.columns}
    counted = {promise: condition for promise, condition in promises.items() if condition}
    counts = ", ".join(f"count(*) filter (where {condition})" for condition in counted.values())
    found = list(_row(db, f"select {counts} from {relation.name}")) if counted else []
    result = [
        Violation(promise, n, _first(db, relation, condition) if n else "")
        for (promise, condition), n in zip(counted.items(), found, strict=True)
    ]
    key = ", ".join(relation.key)
    (n_repeated,) = _row(db, f"select count(*) - count(distinct row({key})) from {relation.name}")
    repeated = f"row({key}) in (select row({key}) from {relation.name} group by {key} having count(*) > 1)"
    first = _first(db, relation, repeated) if n_repeated else ""
    return [*result, Violation(f"({key}) is unique", n_repeated, first)]


def _promise(column: Column) -> str:
    words = ["is present"] if column.required else []
    if column.minimum is not None or column.maximum is not None:
        low = "-inf" if column.minimum is None else f"{column.minimum:g}"
        high = "inf" if column.maximum is None else f"{column.maximum:g}"
        words.append(f"lies in [{low}, {high}]")
    if column.choices:
        words.append(f"is one of {', '.join(column.choices)}")
    return " and ".join(words) or "is finite"


def _row(db: DuckDBPyConnection, query: str) -> tuple:
    row = db.execute(query).fetchone()
    assert row is not None, "an aggregate without grouping has one row"
    return row


def _first(db: DuckDBPyConnection, relation: Relation, condition: str) -> str:
    shown = ", ".join(dict.fromkeys([*relation.key, *(c.name for c in relation.columns if c.name in condition)]))
    row = db.execute(f"select {shown} from {relation.name} where {condition} limit 1").fetchone() or ()
    return ", ".join(f"{name} {value!r}" for name, value in zip(shown.split(", "), row, strict=True))


def _text(name: str, meaning: str, required: bool = True, choices: Iterable[str] = ()) -> Column:
    return Column(name, "VARCHAR", meaning, required, choices=tuple(choices))


ITEMS = Relation(
    "items",
    "item of the catalogue that passed the rules",
    ("item_id",),
    (
        _text("item_id", "the shop's id"),
        _text("title", "what the item is called"),
        _text("description", "free text", required=False),
        _text("brand", "who makes it", required=False),
        _text("category", "path, parts joined by ' > '", required=False),
        Column("price", "DOUBLE", "in `currency`", False, minimum=0),
        _text("currency", "ISO 4217", required=False),
        _text("image_uri", "where a picture lies", required=False),
        _text("attributes", "JSON of the columns that we do not know", required=False),
        _text("item_text", "what the language model reads"),
    ),
)

CLEANED_INTERACTIONS = Relation(
    "cleaned_interactions",
    "event that passed the rules",
    ("event_id",),
    (
        _text("event_id", "the source's id, or a hash of the row's content"),
        Column("occurred_at", "TIMESTAMP", "UTC"),
        Column("day", "DATE", "UTC day of occurred_at: the partition"),
        _text("user_id", "keyed hash, never the raw id", required=False),
        _text("session_id", "keyed hash, never the raw id", required=False),
        _text("action", "what the user did", choices=ACTIONS),
        _text("item_id", "in `items`"),
        _text("query", "null for browsing and recommendation", required=False),
        Column("position", "INTEGER", "rank at which the item was shown", False, minimum=1),
        Column("propensity", "DOUBLE", "logged probability of showing the item", False, minimum=0, maximum=1),
        Column("rating", "DOUBLE", "of a review, in stars", False, minimum=1, maximum=5),
        Column("quantity", "DOUBLE", "pieces", False, minimum=0),
        Column("price", "DOUBLE", "for one piece", False, minimum=0),
        _text("return_of", "for a return: event_id of the purchase", required=False),
        _text("attributes", "JSON of the columns that we do not know", required=False),
    ),
    may_be_empty=True,
)

JUDGMENTS = Relation(
    "judgments",
    "judged (query, item) pair that passed the rules",
    ("query_id", "item_id"),
    (
        _text("query_id", "the source's id, or a hash of the query"),
        _text("query", "what was asked"),
        _text("item_id", "in `items`"),
        Column("relevance", "DOUBLE", "judged grade, higher is better", minimum=0),
        Column("rater_std", "DOUBLE", "disagreement of the raters, in grades", False, minimum=0),
        _text("split", "given by the source", required=False, choices=SPLITS),
    ),
    may_be_empty=True,
)

REJECTED_ROWS = Relation(
    "rejected_rows",
    "row that broke a rule",
    ("source", "row_number"),
    (
        _text("source", "which table of the source", choices=("items", "events", "judgments")),
        Column("row_number", "BIGINT", "place in the source's table, from 1", minimum=1),
        _text("rule", "the first rule that the row broke"),
        _text("reason", "what must hold, and what the row had"),
        _text("raw", "JSON of the row as it came; ids of users and sessions hashed"),
        Column("day", "DATE", "UTC day of an event; null where it has none", False),
    ),
    may_be_empty=True,
)

TRAINING_SAMPLES = Relation(
    "training_samples",
    "(context, item) pair to learn from",
    ("sample_id",),
    (
        _text("sample_id", "hash of what identifies the pair"),
        _text("origin", "where the label comes from", choices=("judgment", "search", "browse")),
        _text("group_id", "the query, or the user's day: never in two splits"),
        _text("context_text", "the query, or what the user did before"),
        _text("item_id", "in `items`"),
        _text("title", "of the item"),
        _text("item_text", "of the item"),
        _text("category", "top of the item's category path", required=False),
        Column("label", "DOUBLE", "what the model is taught", minimum=0, maximum=1),
        Column("relevance", "DOUBLE", "judged grade; for behaviour the label", minimum=0),
        Column("rater_std", "DOUBLE", "disagreement of the raters, in grades", False, minimum=0),
        Column("position", "INTEGER", "rank at which the item was shown, the best of a visit", False, minimum=1),
        Column("propensity", "DOUBLE", "logged probability of showing the item", False, minimum=0, maximum=1),
        Column("occurred_at", "TIMESTAMP", "when the visit began, UTC; null for judgments", False),
        Column("context_until", "TIMESTAMP", "last event that the context tells of, UTC", False),
        Column("n_context_rows", "BIGINT", "earlier events of the user, or rows of the query", minimum=0),
        Column("fold", "INTEGER", "hash of group_id modulo the number of folds", minimum=0),
        _text("split", "by group; the last period is test", choices=SPLITS),
    ),
)

EMBEDDINGS = Relation(
    "embeddings",
    "distinct text under one encoder",
    ("text_hash", "encoder_id"),
    (
        _text("text_hash", "md5 of the text"),
        _text("encoder_id", "name and hash of the weights and of how texts are read"),
        Column("embedding", "FLOAT[]", "unit length"),
        Column("embedded_at", "TIMESTAMP", "UTC"),
    ),
)

IMAGE_EMBEDDINGS = Relation(
    "image_embeddings",
    "item that names a picture",
    ("item_id",),
    (
        _text("item_id", "in `items`"),
        _text("image_uri", "where the picture was looked for"),
        _text("image_hash", "md5 of the file", required=False),
        _text("encoder_id", "name and hash of the weights of the vision model"),
        Column("embedding", "FLOAT[]", "unit length; null where the picture cannot be read", False),
        _text("reason", "why the picture cannot be read; null where it can", required=False),
    ),
    may_be_empty=True,
)

SAMPLE_ATTRIBUTES = Relation(
    "sample_attributes",
    "sample, and what was known of its item before its visit; null where nothing was",
    ("sample_id",),
    (
        _text("sample_id", "in `training_samples`"),
        Column("popularity", "DOUBLE", "log share of the item in all that was taken", False),
        Column("taken_before", "DOUBLE", "log of 1 + times that this user took the item", False, minimum=0),
        Column("category_popularity", "DOUBLE", "log share of the category in all that was taken", False),
        Column("category_taken_before", "DOUBLE", "log of 1 + times that this user took of the category", False, 0),
        Column("price_listed", "DOUBLE", "1 where the catalogue has a price", False, minimum=0, maximum=1),
        Column("price", "DOUBLE", "log price less the shop's mean", False),
        Column("price_in_category", "DOUBLE", "log price less the category's mean", False),
        Column("price_from_usual", "DOUBLE", "distance of the log price to what this user pays", False, minimum=0),
        Column("image_similarity", "DOUBLE", "cosine to the mean picture of what this user took", False, -1.001, 1.001),
        Column("image", "FLOAT[]", "principal components of the picture", False),
    ),
)

FOLD_PREDICTIONS = Relation(
    "fold_predictions",
    "training sample, scored in one repeat by a model that saw neither it nor its group",
    ("sample_id", "repeat"),
    (
        _text("sample_id", "in `training_samples`, split train"),
        Column("repeat", "INTEGER", "which division into folds", minimum=0),
        Column("fold", "INTEGER", "the fold that was held out", minimum=0),
        Column("oof_score", "DOUBLE", "probability that the label is 1", minimum=0, maximum=1),
        Column("loss", "DOUBLE", "cross-entropy of the label, in nats", minimum=0),
    ),
)

LABEL_SUSPICIONS = Relation(
    "label_suspicions",
    "training sample, and how probable it is that its label is wrong",
    ("sample_id",),
    (
        _text("sample_id", "in `training_samples`, split train"),
        Column(
            "wrong_probability",
            "DOUBLE",
            "of a judgment: that it is wrong; of behaviour, and where noise cannot be told from taste: of the other label",
            True,
            0,
            1,
        ),
        Column("flagged", "BOOLEAN", "whether to say so, of judgments alone: the cut with the highest expected F1"),
    ),
)

SAMPLE_VALUES = Relation(
    "sample_values",
    "estimator's value of a training sample",
    ("estimator", "sample_id"),
    (
        _text("estimator", "how it was valued"),
        _text("sample_id", "in `training_samples`, split train"),
        Column("sample_value", "DOUBLE", "higher: worth more to learn from; in the estimator's unit"),
        Column("stderr", "DOUBLE", "over repeats, in the estimator's unit", False, minimum=0),
    ),
)

IMPORTANCE_WEIGHTS = Relation(
    "importance_weights",
    "estimator's training weight of a training sample",
    ("estimator", "sample_id"),
    (
        _text("estimator", "how it was valued"),
        _text("sample_id", "in `training_samples`, split train"),
        Column("sample_weight", "DOUBLE", "mean 1 over the training split", minimum=0),
    ),
)

EVALUATION = Relation(
    "evaluation",
    "figure",
    ("model", "split", "slice", "metric"),
    (
        _text("model", "whose figure; 'a - b' is a paired difference"),
        _text("split", "validation or test", choices=("validation", "test")),
        _text("slice", "which groups or items"),
        _text("metric", "with its k"),
        Column("value", "DOUBLE", "mean over groups and seeds"),
        Column("ci_low", "DOUBLE", "2.5 % of the bootstrap over groups and seeds"),
        Column("ci_high", "DOUBLE", "97.5 % of the bootstrap over groups and seeds"),
        Column("n_groups", "BIGINT", "groups that the figure is over", minimum=1),
        Column("n_seeds", "BIGINT", "rankers that the figure is over and that differ from each other", minimum=1),
    ),
)

WEIGHTING_TRIALS = Relation(
    "weighting_trials",
    "weighting that was tried on validation, the first being none",
    ("trial",),
    (
        Column("trial", "INTEGER", "in the order of trying", minimum=0),
        _text("estimator", "whose values; none: all samples weigh the same"),
        _text("kind", "map from value to weight", False, choices=("power", "temperature", "rank", "drop")),
        Column("strength", "DOUBLE", "of the map", minimum=0),
        Column("clip_quantile", "DOUBLE", "weights above this quantile come down to it", minimum=0, maximum=1),
        _text("within", "what weights are scaled within", False, choices=("all", "label", "group")),
        Column("utility", "DOUBLE", "mean nDCG@10 over validation groups, with the best penalty", minimum=0, maximum=1),
        Column("chosen", "BOOLEAN", "whether this one is taken; exactly one is"),
    ),
)

IMPORTANCE_BENCHMARK = Relation(
    "importance_benchmark",
    "figure of one estimator",
    ("estimator", "dataset", "task", "noise_kind", "noise_share", "metric"),
    (
        _text("estimator", "how samples were valued; random: values without meaning"),
        _text("dataset", "what was valued"),
        _text("task", "what the values were used for", choices=("find", "curve", "linear", "network", "cost")),
        _text("noise_kind", "how labels were made wrong; natural: as the data has them"),
        Column("noise_share", "DOUBLE", "share of labels made wrong", minimum=0, maximum=1),
        _text("metric", "with its k; 'x gain' is a paired difference to the unweighted twin"),
        Column("value", "DOUBLE", "mean over seeds"),
        Column("ci_low", "DOUBLE", "2.5 %: of seeds (t), or of the bootstrap over groups", False),
        Column("ci_high", "DOUBLE", "97.5 %, likewise", False),
        Column("n_seeds", "INTEGER", "runs that the figure is over", minimum=1),
        Column("seconds", "DOUBLE", "mean time to value all samples, with what is made for it", False, minimum=0),
        Column("peak_mib", "DOUBLE", "largest memory beyond what was there before", False, minimum=0),
    ),
)

RELATIONS = {
    relation.name: relation
    for relation in (
        ITEMS,
        CLEANED_INTERACTIONS,
        JUDGMENTS,
        REJECTED_ROWS,
        TRAINING_SAMPLES,
        EMBEDDINGS,
        IMAGE_EMBEDDINGS,
        SAMPLE_ATTRIBUTES,
        FOLD_PREDICTIONS,
        LABEL_SUSPICIONS,
        SAMPLE_VALUES,
        WEIGHTING_TRIALS,
        IMPORTANCE_WEIGHTS,
        EVALUATION,
        IMPORTANCE_BENCHMARK,
    )
}
