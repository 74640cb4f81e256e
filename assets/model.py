"""Stage 5: the language model's top layers learn with the weights, and a twin without."""

from typing import Literal

import dagster as dg
from pydantic import Field

from assets.importance import TRAIN, VALIDATION, fold_predictions, importance_weights
from assets.language import adapted_encoder, embeddings, encoder_folder
from assets.modes import sample_attributes
from assets.prepare import training_samples
from assets.publish import made_from, nothing_to_learn, plain
from ecom_pipeline import ledger
from ecom_pipeline.language.adapted import open_encoder
from ecom_pipeline.ranking.design import Architecture, Choice, Method, Precision
from ecom_pipeline.ranking.settings import FitSettings
from resources.compute import Compute
from resources.home import Home
from resources.tracking import Tracking
from resources.warehouse import Warehouse


class ModelConfig(dg.Config):
    """How both twins learn; the search is the same for both."""

    estimator: str = Field(
        default="automatic",
        description="Whose weights are used; automatic: as `weighting_trials` chose, which may be none. 'literal_prediction_gap' also scales the labels, as first written.",
    )
    architecture: Architecture = Field(
        default="two_tower",
        description="two_tower: query and item are read apart, so items can be read ahead. cross_encoder: as one text, a text for each pair.",
    )
    method: Method = Field(
        default="layers",
        description="What learns: the top layers, all of the model (full), or adapters (lora, adalora, prefix, bottleneck).",
    )
    choice: Choice = Field(
        default="gap",
        description="Which samples the layers learn from where there are more than `n_rows`: those whose out-of-fold score is farthest from the label (gap), any (random), as many of each label (balanced), or all. Heads learn from all.",
    )
    n_rows: int = Field(default=4000, ge=1, description="Samples that the layers learn from, about; see `choice`.")
    n_validation_rows: int = Field(
        default=4000, ge=0, description="Validation samples, in whole groups, that decide when to stop; 0: all."
    )
    n_top: int = Field(default=2, ge=1, description="Layers that learn or carry adapters, from the top.")
    rank: int = Field(
        default=8, ge=1, description="Rank of lora and adalora, width of bottlenecks, number of prefixes."
    )
    frozen_gib: float = Field(
        default=4,
        ge=0,
        description="Of what the frozen layers gave, kept on disk at most; more is computed each epoch.",
    )
    n_components: int = Field(default=100, ge=1, description="Components of the head's projection.")
    penalties: list[float] = Field(default=[0.03, 0.1, 0.3, 1.0, 3.0], description="Tried for the head: L2 a sample.")
    learning_rates: list[float] = Field(
        default=[], description="Tried one by one; none: 3e-5 and 1e-4, for adapters 3e-4 and 1e-3."
    )
    weight_decays: list[float] = Field(default=[0.01, 0.1], description="One for each learning rate.")
    n_seeds: int = Field(default=3, ge=1, le=100, description="Trainings with the best settings.")
    loss: Literal["pointwise", "pairwise", "listwise"] = Field(
        default="pointwise", description="Only after pointwise training are scores probabilities."
    )
    max_epochs: int = Field(default=2, ge=0, description="Passes over the samples, at most.")
    patience: int = Field(default=1, ge=1, description="Epochs without a better validation nDCG@10.")
    batch_pairs: int = Field(default=96, ge=2, description="Pairs of a step, about; groups stay whole.")
    part_pairs: int = Field(default=0, ge=0, description="Pairs whose gradients are computed at once; 0: the step's.")
    warmup_share: float = Field(default=0.1, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    token_budget: int = Field(default=4096, ge=8, description="Tokens of a batch when scoring.")
    precision: Precision = Field(default="auto", description="auto: bf16 on GPUs that have it, fp32 elsewhere.")
    compiled: bool = Field(default=False, description="Whether torch.compile makes one program of the language model.")
    n_processes: int = Field(default=1, ge=1, description="That train together, one a GPU.")
    seed: int = Field(default=0, ge=0, description="First seed: order of the samples, and dropout.")

    def settings(self) -> FitSettings:
        """What the domain calls them; whose weights are taken is not about how a twin learns."""
        return FitSettings(**self.model_dump(exclude={"estimator"}))


@dg.asset(
    deps=[importance_weights, fold_predictions, training_samples, embeddings, sample_attributes, adapted_encoder],
    group_name="model",
    kinds={"pytorch", "safetensors"},
    pool="gpu",
)
def fine_tuned_model(
    context: dg.AssetExecutionContext,
    config: ModelConfig,
    warehouse: Warehouse,
    compute: Compute,
    home: Home,
    tracking: Tracking,
) -> dg.MaterializeResult:
    """One row per trained ranker: the weighted ones and their unweighted twins, as safetensors with a manifest."""
    with warehouse.connect() as db:
        contents = ledger.contents(db)
    made = made_from(context.assets_def, "fine_tuned_model", config, contents)
    if empty := nothing_to_learn(context, warehouse, made):
        return empty
    from ecom_pipeline.ranking import frames

    with warehouse.connect() as db:
        data = frames.read_splits(db, TRAIN, VALIDATION, config.estimator)
        reads_with = encoder_folder(db, home)
    folder = home.models / made
    context.log.info("training on %d samples in %s", len(data.train), folder)
    inputs = {
        key.to_user_string(): contents[key.to_user_string()] for key in context.assets_def.asset_deps[context.asset_key]
    }
    curves = tracking.curves("fine_tuned_model", made)
    with compute.step(context.log) as step:
        encoder = open_encoder(reads_with, step.device)
        manifest = frames.fit(data, encoder, config.settings(), folder, home.frozen, inputs, curves.run)
    n_rankers = sum(len(twin["seeds"]) for twin in manifest["twins"].values())
    with warehouse.transaction() as db:
        ledger.record(db, "fine_tuned_model", ledger.Entry(made, made, n_rankers))
    home.prune(home.models, {made})
    figures = {f"{name}_validation_{key}": figure for name, key, figure in frames.figures(manifest)}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(made),
        metadata={
            "dagster/row_count": n_rankers,
            "n_samples_kept": manifest["n_kept"],
            "folder": dg.MetadataValue.path(folder),
            **plain({**figures, **step.figures}),
            **curves.link(),
        },
    )
