"""What will be bought, and how good such forecasts were."""

from ecom_pipeline.schema.relation import Column, Relation, text

DEMAND_FORECAST = Relation(
    "demand_forecast",
    "item, or category, and week to come",
    ("level", "name", "week"),
    (
        text("level", "what is foretold", choices=("item", "category")),
        text("name", "item_id, or path of the category"),
        Column("week", "DATE", "UTC, the Monday on which it begins"),
        Column("units", "DOUBLE", "expected; those of a category are the sum of its items'", minimum=0),
        Column("low_95", "DOUBLE", "2.5 % stay below", minimum=0),
        Column("low_80", "DOUBLE", "10 % stay below", minimum=0),
        Column("high_80", "DOUBLE", "90 % stay below", minimum=0),
        Column("order_for_95", "DOUBLE", "units that are enough in 95 of 100 weeks", minimum=0),
        Column("high_95", "DOUBLE", "97.5 % stay below", minimum=0),
        text("method", "what the forecast rests on"),
    ),
    may_be_empty=True,
)

DEMAND_EVALUATION = Relation(
    "demand_evaluation",
    "figure of forecasts of past weeks",
    ("method", "slice", "metric"),
    (
        text("method", "whose forecasts; 'a - b' is a paired difference"),
        text("slice", "which items"),
        text("metric", "mean over items and past origins"),
        Column("value", "DOUBLE", "the figure", False),
        Column("ci_low", "DOUBLE", "2.5 % of the bootstrap over items", False),
        Column("ci_high", "DOUBLE", "97.5 %, likewise", False),
        Column("n_items", "BIGINT", "that the figure is over", minimum=1),
    ),
    may_be_empty=True,
)
