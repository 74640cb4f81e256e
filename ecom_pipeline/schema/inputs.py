"""What a source may bring: the columns of its tables, which of them must be there, and which name people."""

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
OFFERS = {
    "campaigns": ("campaign_id", "kind", "first_day", "last_day"),
    "campaign_users": ("campaign_id", "user_id", "held_out", "redeemed_at"),
    "campaign_items": ("campaign_id", "item_id"),
    "promotions": ("item_id", "kind", "first_day", "last_day", "reach"),
}
EXPOSURES = ("experiment", "arm", "user_id", "session_id", "cluster_id", "exposed_at")
COLUMNS = {"items": ITEMS, "events": EVENTS, "judgments": JUDGMENTS, **OFFERS, "exposures": EXPOSURES}
REQUIRED = {
    "items": (("item_id",), ("title",)),
    "events": (("occurred_at",), ("action",), ("item_id",), ("user_id", "session_id")),
    "judgments": (("query",), ("item_id",), ("relevance",)),
    "campaigns": (("campaign_id",), ("first_day",), ("last_day",)),
    "campaign_users": (("campaign_id",), ("user_id",)),
    "campaign_items": (("campaign_id",), ("item_id",)),
    "promotions": (("item_id",), ("kind",), ("first_day",), ("last_day",)),
    "exposures": (("experiment",), ("arm",), ("exposed_at",), ("user_id", "session_id")),
}
PERSONAL = ("user_id", "session_id")
