"""Every relation in the warehouse: its key, its columns, their units and ranges; and one validator.

The lowest floor beside `errors`: everything else reads what a column may hold from here.
"""

from ecom_pipeline.schema.audiences import AUDIENCE_EVALUATION, AUDIENCES
from ecom_pipeline.schema.demand import DEMAND_EVALUATION, DEMAND_FORECAST
from ecom_pipeline.schema.experiments import EXPERIMENT_READOUT
from ecom_pipeline.schema.figures import EVALUATION, IMPORTANCE_BENCHMARK
from ecom_pipeline.schema.offers import CAMPAIGN_ITEMS, CAMPAIGN_USERS, CAMPAIGNS, EXPOSURES, PROMOTIONS
from ecom_pipeline.schema.recommendations import (
    INTERACTION_TRIALS,
    INTERACTION_WEIGHTS,
    ITEM_INDEX,
    LEARNING_PERIODS,
    NEXT_VISIT_EVALUATION,
    RECOMMENDATIONS,
    SAMPLE_CHOICE,
    SIMILAR_ITEMS,
)
from ecom_pipeline.schema.relation import Column, Relation, Violation, most_rejected, violations
from ecom_pipeline.schema.samples import (
    EMBEDDINGS,
    FOLD_PREDICTIONS,
    IMAGE_EMBEDDINGS,
    IMPORTANCE_WEIGHTS,
    LABEL_SUSPICIONS,
    SAMPLE_ATTRIBUTES,
    SAMPLE_VALUES,
    TRAINING_SAMPLES,
    WEIGHTING_TRIALS,
)
from ecom_pipeline.schema.shop import (
    ACTIONS,
    CLEANED_INTERACTIONS,
    ITEMS,
    JOURNAL,
    JUDGMENTS,
    REJECTED_ROWS,
    SPLITS,
    held_out,
)
from ecom_pipeline.schema.watching import COSTS, DRIFT

__all__ = ["ACTIONS", "JOURNAL", "SPLITS", "Column", "Relation", "Violation", "held_out", "most_rejected", "violations"]

RELATIONS = {
    relation.name: relation
    for relation in (
        ITEMS,
        CLEANED_INTERACTIONS,
        JUDGMENTS,
        CAMPAIGNS,
        CAMPAIGN_USERS,
        CAMPAIGN_ITEMS,
        PROMOTIONS,
        EXPOSURES,
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
        LEARNING_PERIODS,
        INTERACTION_TRIALS,
        INTERACTION_WEIGHTS,
        ITEM_INDEX,
        SIMILAR_ITEMS,
        SAMPLE_CHOICE,
        NEXT_VISIT_EVALUATION,
        RECOMMENDATIONS,
        EXPERIMENT_READOUT,
        AUDIENCES,
        AUDIENCE_EVALUATION,
        DEMAND_FORECAST,
        DEMAND_EVALUATION,
        DRIFT,
        COSTS,
    )
}
