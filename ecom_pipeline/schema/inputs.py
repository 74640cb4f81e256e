"""What a source may bring: the columns of its three tables, which of them must be there, and which name people."""

ITEMS = ("item_id", "title", "description", "brand", "category", "price", "currency", "image_uri")
EVENTS = (
    "event_id",
    "occurred_at",
    "user_id",
    "session_id",
    "action",
    "item_id",
    "query",
    "position",
    "propensity",
    "rating",
    "quantity",
    "price",
)
JUDGMENTS = ("query_id", "query", "item_id", "relevance", "rater_std", "split")
COLUMNS = {"items": ITEMS, "events": EVENTS, "judgments": JUDGMENTS}
REQUIRED = {
    "items": (("item_id",), ("title",)),
    "events": (("occurred_at",), ("action",), ("item_id",), ("user_id", "session_id")),
    "judgments": (("query",), ("item_id",), ("relevance",)),
}
PERSONAL = ("user_id", "session_id")
