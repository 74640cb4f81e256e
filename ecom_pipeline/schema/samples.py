"""Training samples, and all that is known of each: texts read, scores, values, weights.

All but `embeddings` are empty where nothing was judged and nobody searched.
"""

from typing import Literal

from ecom_pipeline.schema.relation import Column, Relation, text
from ecom_pipeline.schema.shop import SPLITS

SuspectOrder = Literal["probability", "worth"]  # by which column of `label_suspicions` samples are listed

TRAINING_SAMPLES = Relation(
    "training_samples",
    "(query, item) pair to learn from",
    ("sample_id",),
    (
        text("sample_id", "hash of what identifies the pair"),
        text("origin", "where the label comes from", choices=("judgment", "search")),
        text("group_id", "the query: never in two splits"),
        text("context_text", "the query"),
        text("item_id", "in `items`"),
        text("title", "of the item"),
        text("item_text", "of the item"),
        text("category", "top of the item's category path", required=False),
        Column("label", "DOUBLE", "what the model is taught", minimum=0, maximum=1),
        Column(
            "source_label",
            "DOUBLE",
            "label without what raters answered; null where the pair is judged by raters alone",
            False,
            minimum=0,
            maximum=1,
        ),
        Column("relevance", "DOUBLE", "judged grade; for behaviour the label", minimum=0),
        Column("rater_std", "DOUBLE", "disagreement of the raters, in grades", False, minimum=0),
        Column("position", "INTEGER", "rank at which the item was shown, the best of a visit", False, minimum=1),
        Column("propensity", "DOUBLE", "logged probability of showing the item", False, minimum=0, maximum=1),
        Column("occurred_at", "TIMESTAMP", "when the visit began, UTC; null for judgments", False),
        Column("n_context_rows", "BIGINT", "rows of the query", minimum=0),
        Column("fold", "INTEGER", "hash of group_id modulo the number of folds", minimum=0),
        text("split", "by group; the last period is test", choices=SPLITS),
    ),
    may_be_empty=True,
)

EMBEDDINGS = Relation(
    "embeddings",
    "distinct text under one encoder",
    ("text_hash", "encoder_id"),
    (
        text("text_hash", "md5 of the text"),
        text("encoder_id", "name and hash of the weights and of how texts are read"),
        Column("embedding", "FLOAT[]", "unit length"),
        Column("embedded_at", "TIMESTAMP", "UTC"),
    ),
)

IMAGE_EMBEDDINGS = Relation(
    "image_embeddings",
    "item that names a picture",
    ("item_id",),
    (
        text("item_id", "in `items`"),
        text("image_uri", "where the picture was looked for"),
        text("image_hash", "md5 of the file", required=False),
        text("encoder_id", "name and hash of the weights of the vision model"),
        Column("embedding", "FLOAT[]", "unit length; null where the picture cannot be read", False),
        text("reason", "why the picture cannot be read; null where it can", required=False),
    ),
    may_be_empty=True,
)

SAMPLE_ATTRIBUTES = Relation(
    "sample_attributes",
    "sample, and what was known of its item before its visit; null where nothing was",
    ("sample_id",),
    (
        text("sample_id", "in `training_samples`"),
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
    may_be_empty=True,
)

FOLD_PREDICTIONS = Relation(
    "fold_predictions",
    "training sample, scored in one repeat by a model that saw neither it nor its group",
    ("sample_id", "repeat"),
    (
        text("sample_id", "in `training_samples`, split train"),
        Column("repeat", "INTEGER", "which division into folds", minimum=0),
        Column("fold", "INTEGER", "the fold that was held out", minimum=0),
        Column("oof_score", "DOUBLE", "probability that the label is 1", minimum=0, maximum=1),
        Column("loss", "DOUBLE", "cross-entropy of the label, in nats", minimum=0),
    ),
    may_be_empty=True,
)

LABEL_SUSPICIONS = Relation(
    "label_suspicions",
    "training sample, and how probable it is that its label is wrong",
    ("sample_id",),
    (
        text("sample_id", "in `training_samples`, split train"),
        Column(
            "wrong_probability",
            "DOUBLE",
            "of a judgment: that it is wrong; of behaviour, and where noise cannot be told from taste: of the other label",
            True,
            0,
            1,
        ),
        Column("flagged", "BOOLEAN", "whether to say so, of judgments alone: the cut with the highest expected F1"),
        Column(
            "worth_of_asking",
            "DOUBLE",
            "wrong_probability times the chance that the label is wrong beside the others of its query; of behaviour the former",
            minimum=0,
            maximum=1,
        ),
    ),
    may_be_empty=True,
)

SAMPLE_VALUES = Relation(
    "sample_values",
    "estimator's value of a training sample",
    ("estimator", "sample_id"),
    (
        text("estimator", "how it was valued"),
        text("sample_id", "in `training_samples`, split train"),
        Column("sample_value", "DOUBLE", "higher: worth more to learn from; in the estimator's unit"),
        Column("stderr", "DOUBLE", "over repeats, in the estimator's unit", False, minimum=0),
    ),
    may_be_empty=True,
)

WEIGHTING_TRIALS = Relation(
    "weighting_trials",
    "weighting that was tried on validation, the first being none",
    ("trial",),
    (
        Column("trial", "INTEGER", "in the order of trying", minimum=0),
        text("estimator", "whose values; none: all samples weigh the same"),
        text("kind", "map from value to weight", False, choices=("power", "temperature", "rank", "drop")),
        Column("strength", "DOUBLE", "of the map", minimum=0),
        Column("clip_quantile", "DOUBLE", "weights above this quantile come down to it", minimum=0, maximum=1),
        text("within", "what weights are scaled within", False, choices=("all", "label", "group")),
        Column("utility", "DOUBLE", "mean nDCG@10 over validation groups, with the best penalty", minimum=0, maximum=1),
        Column("chosen", "BOOLEAN", "whether this one is taken; exactly one is"),
    ),
    may_be_empty=True,
)

IMPORTANCE_WEIGHTS = Relation(
    "importance_weights",
    "estimator's training weight of a training sample",
    ("estimator", "sample_id"),
    (
        text("estimator", "how it was valued"),
        text("sample_id", "in `training_samples`, split train"),
        Column("sample_weight", "DOUBLE", "mean 1 over the training split", minimum=0),
    ),
    may_be_empty=True,
)
