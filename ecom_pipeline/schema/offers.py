"""What the shop offered to whom: campaigns, promotions, and arms of experiments."""

from ecom_pipeline.schema.relation import Column, Relation, text

CAMPAIGNS = Relation(
    "campaigns",
    "campaign that passed the rules",
    ("campaign_id",),
    (
        text("campaign_id", "the shop's id"),
        text("kind", "the shop's word for campaigns of its sort", required=False),
        Column("first_day", "DATE", "UTC, on which its offer holds"),
        Column("last_day", "DATE", "UTC, on which it still holds"),
    ),
    may_be_empty=True,
)

CAMPAIGN_USERS = Relation(
    "campaign_users",
    "user whom a campaign was given, or held out from on purpose",
    ("campaign_id", "user_id"),
    (
        text("campaign_id", "in `campaigns`"),
        text("user_id", "keyed hash, never the raw id"),
        Column("held_out", "BOOLEAN", "whether the user was drawn not to get it, so as to compare"),
        Column("redeemed_at", "TIMESTAMP", "UTC, when the offer was first used; null: never, or not known", False),
    ),
    may_be_empty=True,
)

CAMPAIGN_ITEMS = Relation(
    "campaign_items",
    "item that a campaign is about",
    ("campaign_id", "item_id"),
    (text("campaign_id", "in `campaigns`"), text("item_id", "in `items`")),
    may_be_empty=True,
)

PROMOTIONS = Relation(
    "promotions",
    "stretch of days in which an item is promoted in some way",
    ("item_id", "kind", "first_day"),
    (
        text("item_id", "in `items`"),
        text("kind", "how: 'display', 'mailer', 'price' or the shop's word"),
        Column("first_day", "DATE", "UTC"),
        Column("last_day", "DATE", "UTC"),
        Column("reach", "DOUBLE", "share of the shop's places where it is so", minimum=0, maximum=1),
    ),
    may_be_empty=True,
)

EXPOSURES = Relation(
    "exposures",
    "unit that an experiment was applied to, at its first time",
    ("experiment", "arm", "unit_id"),
    (
        text("experiment", "its name"),
        text("arm", "that the unit got; a unit that stands under two arms got both"),
        text("unit_id", "keyed hash of the user; after 'session:' that of a session without a user"),
        text("cluster_id", "what was drawn as one, as a shop or a region; null: the unit itself", required=False),
        Column("exposed_at", "TIMESTAMP", "UTC"),
    ),
    may_be_empty=True,
)
