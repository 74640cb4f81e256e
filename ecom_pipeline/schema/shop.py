"""What the shop has and what its people did: rows that passed the rules, and those that did not."""

from ecom_pipeline.schema.inputs import COLUMNS
from ecom_pipeline.schema.relation import Column, Relation, text

ACTIONS = ("impression", "click", "cart", "purchase", "review", "return", "dismiss", "restore")
SPLITS = ("train", "validation", "test")  # the further from training the later
JOURNAL = "journal/"  # below it stand, by name, the files of what users did and raters answered at the service


def held_out(split: str) -> str:
    """An SQL aggregate: of several splits the one that is furthest from training; null where none is given.

    >>> held_out("given")
    "max_by(given, list_position(['train', 'validation', 'test'], given))"
    """
    return f"max_by({split}, list_position({list(SPLITS)}, {split}))"


ITEMS = Relation(
    "items",
    "item of the catalogue that passed the rules",
    ("item_id",),
    (
        text("item_id", "the shop's id"),
        text("title", "what the item is called"),
        text("description", "free text", required=False),
        text("brand", "who makes it", required=False),
        text("category", "path, parts joined by ' > '", required=False),
        Column("price", "DOUBLE", "in `currency`", False, minimum=0),
        text("currency", "ISO 4217", required=False),
        text("image_uri", "where a picture lies", required=False),
        text("attributes", "JSON of the columns that we do not know", required=False),
        text("item_text", "what the language model reads: title, brand, category and description, each cut"),
    ),
)

CLEANED_INTERACTIONS = Relation(
    "cleaned_interactions",
    "event that passed the rules",
    ("event_id",),
    (
        text("event_id", "the source's id, or a hash of the row's content"),
        Column("occurred_at", "TIMESTAMP", "UTC"),
        Column("day", "DATE", "UTC day of occurred_at: the partition"),
        text("user_id", "keyed hash, never the raw id", required=False),
        text("session_id", "keyed hash, never the raw id", required=False),
        text("action", "what the user did", choices=ACTIONS),
        text("item_id", "in `items`"),
        text("query", "null for browsing and recommendation", required=False),
        Column("position", "INTEGER", "rank at which the item was shown", False, minimum=1),
        Column("propensity", "DOUBLE", "logged probability of showing the item", False, minimum=0, maximum=1),
        Column("rating", "DOUBLE", "of a review, in stars", False, minimum=1, maximum=5),
        Column("quantity", "DOUBLE", "pieces", False, minimum=0),
        Column("price", "DOUBLE", "for one piece", False, minimum=0),
        text("return_of", "for a return: event_id of the purchase", required=False),
        text("attributes", "JSON of the columns that we do not know", required=False),
    ),
    may_be_empty=True,
)

JUDGMENTS = Relation(
    "judgments",
    "judged (query, item) pair that passed the rules",
    ("query", "item_id"),
    (
        text("query_id", "the source's id of the row's query, or the query's group"),
        text("query", "what was asked, in the row's spelling"),
        text("item_id", "in `items`"),
        Column(
            "relevance",
            "DOUBLE",
            "judged grade, higher is better: of raters, where any answered, else of the source",
            minimum=0,
        ),
        Column("source_relevance", "DOUBLE", "grade of the source; null where it gave none", False, minimum=0),
        Column(
            "n_raters", "BIGINT", "raters whose last answers `relevance` is the median of; 0: none answered", minimum=0
        ),
        Column("rater_std", "DOUBLE", "disagreement of the raters, in grades", False, minimum=0),
        text("split", "given by the source to the query in any spelling", required=False, choices=SPLITS),
    ),
    may_be_empty=True,
)

REJECTED_ROWS = Relation(
    "rejected_rows",
    "row that broke a rule",
    ("source", "file", "row_number"),
    (
        text("source", "which table of the source", choices=tuple(COLUMNS)),
        text("file", "that it came in, below the source's folder"),
        Column("row_number", "BIGINT", "place in the file, from 1", minimum=1),
        text("rule", "the first rule that the row broke"),
        text("reason", "what must hold, and what the row had"),
        text("raw", "JSON of the row as it came; ids of users and sessions hashed"),
        Column("day", "DATE", "UTC day of an event; null where it has none", False),
    ),
    may_be_empty=True,
)
