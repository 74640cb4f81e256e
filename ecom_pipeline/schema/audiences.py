"""Whom to ask, and how good such an order of users was."""

from ecom_pipeline.schema.relation import Column, Relation, text

AUDIENCES = Relation(
    "audiences",
    "user in the order in which a campaign is to be given",
    ("audience", "user_id"),
    (
        text("audience", "campaign_id of the campaign"),
        text("user_id", "keyed hash, never the raw id"),
        Column("rank", "INTEGER", "from 1, the likeliest to respond", minimum=1),
        Column("response_probability", "DOUBLE", "that the user responds if he gets it", minimum=0, maximum=1),
        text("response", "what is foretold", choices=("redeemed", "bought")),
        Column(
            "uplift",
            "DOUBLE",
            "by how much the campaign raises his chance of buying; null: nobody to compare with",
            False,
        ),
        Column("given", "BOOLEAN", "whether the campaign has been given to him already"),
    ),
    may_be_empty=True,
)

AUDIENCE_EVALUATION = Relation(
    "audience_evaluation",
    "figure of orders of users, over campaigns that came later",
    ("response", "model", "metric"),
    (
        text("response", "what was foretold"),
        text("model", "by whom users are ordered; 'a - b' is a paired difference"),
        text("metric", "of the order"),
        Column("value", "DOUBLE", "mean over campaigns", False),
        Column("ci_low", "DOUBLE", "2.5 %, users and campaigns drawn anew", False),
        Column("ci_high", "DOUBLE", "97.5 %, likewise", False),
        Column("n_offers", "BIGINT", "campaigns that were tested on", minimum=1),
        Column("n_users", "BIGINT", "users of them", minimum=1),
    ),
    may_be_empty=True,
)
