"""Recommendations of the whole catalogue: which days are learnt from, what past acts weigh, what is listed and how well."""

from ecom_pipeline.schema.relation import Column, Relation, text

LEARNING_PERIODS = Relation(
    "learning_periods",
    "use of some days by a ranker: to learn from, to choose on, or to test on",
    ("origin", "first_day"),
    (
        Column(
            "origin", "INTEGER", "point in time from which one looks back and ahead; the last one serves", minimum=0
        ),
        text("role", "what the days are for", choices=("train", "validation", "test")),
        Column("first_day", "DATE", "UTC"),
        Column("last_day", "DATE", "UTC"),
        Column("n_visits", "BIGINT", "days of users with a history, on which they took something", minimum=0),
        Column("n_items", "BIGINT", "that are ranked, at most: those taken most", minimum=1),
        text("content", "hash of all that was taken until the last day, of its items' words, and of how they are read"),
    ),
    may_be_empty=True,
)

INTERACTION_TRIALS = Relation(
    "interaction_trials",
    "weighting of past acts that was tried on validation visits, the first being none",
    ("trial",),
    (
        Column("trial", "INTEGER", "in the order of trying", minimum=0),
        text("age_form", "how weight falls with age", choices=("none", "exponential", "hyperbolic", "square_root")),
        Column("half_life", "DOUBLE", "of the fall, in days", minimum=0),
        Column("light_act", "DOUBLE", "of a click, cart or review, where a purchase weighs 1", minimum=0),
        Column("quantity", "DOUBLE", "power of the pieces", minimum=0),
        Column("returned", "DOUBLE", "of what went back", minimum=0),
        text("evidence", "what is asked whether the act fits its user", choices=("none", "behaviour", "text")),
        Column("evidence_strength", "DOUBLE", "power of that answer's rank share", minimum=0),
        Column("ignored", "DOUBLE", "how much an act loses each time that a list shows its item since", minimum=0),
        Column("by_position", "DOUBLE", "power of the rank at which the item was shown"),
        Column("usual_position", "DOUBLE", "rank at which an act weighs 1", minimum=0),
        Column("by_propensity", "DOUBLE", "power of one over the logged chance of showing the item"),
        Column("usual_propensity", "DOUBLE", "chance at which an act weighs 1", minimum=0),
        Column("promoted_act", "DOUBLE", "of an act whose item was promoted everywhere", minimum=0),
        Column("utility", "DOUBLE", "mean nDCG@10 of next visits, with the best share of other users' acts", minimum=0),
        Column("chosen", "BOOLEAN", "whether this one is taken; exactly one is"),
    ),
    may_be_empty=True,
)

INTERACTION_WEIGHTS = Relation(
    "interaction_weights",
    "act by which an item was taken, and what it tells of its user on the day after the last one",
    ("event_id",),
    (
        text("event_id", "in `cleaned_interactions`"),
        Column("age_factor", "DOUBLE", "by days since the act", minimum=0),
        Column("kind_factor", "DOUBLE", "a purchase's is 1", minimum=0),
        Column("quantity_factor", "DOUBLE", "by pieces of the day", minimum=0),
        Column("return_factor", "DOUBLE", "1 where it was kept", minimum=0),
        Column("evidence_factor", "DOUBLE", "by how well the rest of the user's history foretells it", minimum=0),
        Column("feedback_factor", "DOUBLE", "by how often a list has shown the item since; 0: dismissed", minimum=0),
        Column("position_factor", "DOUBLE", "by the rank at which it was shown; null: not known", False, minimum=0),
        Column("propensity_factor", "DOUBLE", "by the chance of showing it; null: not known", False, minimum=0),
        Column("promotion_factor", "DOUBLE", "by how widely it was promoted; null: not known", False, minimum=0),
        Column("interaction_value", "DOUBLE", "the factors' product; 1 for what is not known", minimum=0),
        Column("interaction_weight", "DOUBLE", "the value, scaled to mean 1", minimum=0),
    ),
    may_be_empty=True,
)

ITEM_INDEX = Relation(
    "item_index",
    "item that can be recommended, as it is known now",
    ("item_id",),
    (
        text("item_id", "in `items`"),
        Column("n_users", "BIGINT", "who took it", minimum=0),
        Column("recent_takings", "BIGINT", "users' days on which it was taken, of the last 28 days", minimum=0),
        Column(
            "repeat_share", "DOUBLE", "of its users, who took it again; drawn to the shop's share", minimum=0, maximum=1
        ),
        Column("usual_gap", "DOUBLE", "days between two takings by a user; drawn likewise", minimum=0),
        Column("soonest_return", "DOUBLE", "days after a taking in which it is not shown again", minimum=0),
        Column("has_text", "BOOLEAN", "whether its text has been read"),
        Column("withdrawn", "BOOLEAN", "whether the source says that it cannot be had"),
    ),
    may_be_empty=True,
)

SIMILAR_ITEMS = Relation(
    "similar_items",
    "item beside an item that it is like",
    ("item_id", "rank"),
    (
        text("item_id", "in `items`"),
        Column("rank", "INTEGER", "from 1, the most alike", minimum=1),
        text("similar_item_id", "in `items`"),
        Column("score", "DOUBLE", "cosine, by users or by texts"),
        text("channel", "what it rests on", choices=("together", "text")),
    ),
    may_be_empty=True,
)

SAMPLE_CHOICE = Relation(
    "sample_choice",
    "(visit, candidate) that the ranker in use learnt from, chosen by what it teaches",
    ("user_id", "day", "item_id"),
    (
        text("user_id", "keyed hash, never the raw id; after 'session:' one of a session without a user"),
        Column("day", "DATE", "of the visit"),
        text("item_id", "in `items`"),
        Column("label", "DOUBLE", "1 where it was taken", minimum=0, maximum=1),
        Column("pilot_probability", "DOUBLE", "by a model that did not see the user", minimum=0, maximum=1),
        Column("prediction_gap", "DOUBLE", "distance of label and probability", minimum=0, maximum=1),
        Column("chance", "DOUBLE", "with which the row was kept", minimum=0, maximum=1),
    ),
    may_be_empty=True,
)

NEXT_VISIT_EVALUATION = Relation(
    "next_visit_evaluation",
    "figure of lists of the whole catalogue",
    ("model", "slice", "metric"),
    (
        text("model", "whose lists; 'a - b' is a paired difference"),
        text("slice", "which items, users or test period"),
        text("metric", "with its k"),
        Column("value", "DOUBLE", "mean over next visits"),
        Column("ci_low", "DOUBLE", "2.5 % of the bootstrap over users; null for what is no mean", False),
        Column("ci_high", "DOUBLE", "97.5 %, likewise", False),
        Column("n_users", "BIGINT", "users that the figure is over", minimum=1),
    ),
    may_be_empty=True,
)

RECOMMENDATIONS = Relation(
    "recommendations",
    "item to show to a user on the next visit",
    ("user_id", "rank"),
    (
        text(
            "user_id",
            "keyed hash, never the raw id; after 'session:' one of a session without a user; 'new visitor' for those who have "
            "no history",
        ),
        Column("rank", "INTEGER", "from 1, the first to show", minimum=1),
        text("item_id", "in `items`"),
        Column(
            "score",
            "DOUBLE",
            "chance that it is taken on the visit; of a new visitor, share of visits",
            minimum=0,
            maximum=1,
        ),
        text("channel", "what speaks loudest for it", choices=("own", "together", "popular", "text", "sequence")),
        text("reason", "a sentence for people"),
        Column("made_for", "DATE", "day of the visit"),
    ),
    may_be_empty=True,
)
