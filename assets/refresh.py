"""What a refresh has to do: the assets, and the days, that would be made from something else than they were."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import dagster as dg
from duckdb import DuckDBPyConnection
from pydantic import ValidationError

from assets.audiences import audiences
from assets.benchmark import importance_benchmark
from assets.code import function_of
from assets.demand import demand_evaluation, demand_forecast
from assets.evaluate import evaluation, evaluation_report
from assets.experiments import experiment_readout, experiments_file
from assets.importance import (
    fold_predictions,
    importance_weights,
    label_suspicions,
    sample_values,
    weighting_trials,
)
from assets.ingest import TABLES, outside, raw_events, raw_exposures, raw_items, raw_judgments, raw_offers
from assets.language import EncoderConfig, adapted_encoder, embeddings, encoder_files
from assets.model import fine_tuned_model
from assets.modes import PicturesConfig, image_embeddings, picture_files, sample_attributes
from assets.prepare import (
    CleaningConfig,
    cleaned_interactions,
    day_settings,
    expected_days,
    exposures,
    items,
    judgments,
    offers,
    stale_days,
    training_samples,
)
from assets.publish import asset_names, made_from
from assets.recommend import (
    interaction_trials,
    interaction_weights,
    item_index,
    learning_periods,
    ranker,
    rankers_are_whole,
    recommendations,
    similar_items,
)
from assets.serve import published_model
from assets.watch import costs, drift
from ecom_pipeline import days, ledger
from ecom_pipeline.errors import InputError
from ecom_pipeline.language.adapted import is_readable
from ecom_pipeline.ranking.trained import can_be_opened
from ecom_pipeline.service import folders
from resources.home import Home
from resources.warehouse import Warehouse

CATALOGUE = [
    *(raw_items, raw_judgments, raw_offers, raw_exposures, raw_events),
    *(items, judgments, offers, exposures),
]
SAMPLES = [
    *(training_samples, adapted_encoder, embeddings, image_embeddings, sample_attributes),
    *(fold_predictions, label_suspicions),
    *(sample_values, weighting_trials, importance_weights),
]
LISTS = [learning_periods, interaction_trials, interaction_weights, item_index, similar_items, ranker, recommendations]
SALES = [experiment_readout, audiences, demand_forecast, demand_evaluation]
MODELS = [fine_tuned_model, evaluation, *SALES, drift, costs, evaluation_report, published_model]
BELOW = [*SAMPLES, *LISTS, *MODELS]  # what is made of cleaned days
FLOW = [*CATALOGUE, cleaned_interactions, *BELOW]
# made anew on most days, and most often as they were: what lies below waits to see whether they changed
SETTLING = {"training_samples", "embeddings", "learning_periods"}


@dataclass(frozen=True, slots=True)
class Plan:
    """Work for one run: which assets, and of which days where they have days.

    Attributes:
        assets: names in flow order; empty where nothing is stale.
        days: first and last stale day, or None.
    """

    assets: tuple[str, ...]
    days: tuple[date, date] | None = None

    def tags(self) -> dict[str, str]:
        """Tags that make a run cover the days."""
        if self.days is None:
            return {}
        first, last = (day.isoformat() for day in self.days)
        return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}

    def run_config(self, config: Mapping) -> dict:
        """Of a run configuration what is of these assets, as Dagster takes no other."""
        return {**config, "ops": {name: one for name, one in config.get("ops", {}).items() if name in self.assets}}


def next_plan(warehouse: Warehouse, home: Home, run_config: Mapping, made: Sequence[str]) -> Plan:
    """The next run: first the source's tables where they are stale, then what is below, as far as that can be told.

    What lies below a stale asset of `SETTLING` is left to the run after: if its content stays, so does all of that.

    Args:
        warehouse: holds the ledger.
        home: says which source.
        run_config: as the run will have it; a changed setting makes an asset stale.
        made: assets that Dagster has a record of; others are stale whatever the ledger says.

    Cost: one scan of one column of `raw_events`, and one reading of the rankers' trees; where nothing else is stale, one of
    every file that is published. No file of the source is read.
    """
    with warehouse.connect() as db:
        if days.due(db, datetime.now(UTC).replace(tzinfo=None)):
            made = [name for name in made if name != "raw_events"]  # an event that was to come has come
        catalogue = _stale(db, CATALOGUE, run_config, made, home)
        if catalogue:
            return Plan(tuple(catalogue))
        dated = _stale_days(db, run_config, made)
        below = _stale(db, BELOW, run_config, made, home, ["cleaned_interactions"] if dated else [])
    if not (dated or below) and not home.report.is_file():
        below.append("evaluation_report")
    if not (dated or below) and not folders.current_is_whole(home.published):
        below.append("published_model")
    return Plan((*(("cleaned_interactions", "rejected_rows") if dated else ()), *below), dated)


def up_to_embeddings(
    warehouse: Warehouse, home: Home, run_config: Mapping, made: Callable[[], Sequence[str]]
) -> Iterator[Plan]:
    """The runs that a benchmark takes: whatever is stale up to the embeddings, then the benchmark itself."""
    needed = {asset.to_user_string() for one in [*CATALOGUE, cleaned_interactions] for asset in one.keys}
    needed |= {"training_samples", "adapted_encoder", "embeddings", "image_embeddings", "sample_attributes"}
    config_of(importance_benchmark, run_config)  # a wrong setting is told before the work begins
    while True:
        plan = next_plan(warehouse, home, run_config, made())
        wanted = tuple(name for name in plan.assets if name in needed)
        if not wanted:
            break
        yield Plan(wanted, plan.days)
    yield Plan(("importance_benchmark",))


def config_of(asset: dg.AssetsDefinition, run_config: Mapping) -> dg.Config | None:
    """The configuration an asset would run with: what is given, and its defaults.

    Raises:
        InputError: if what is given cannot be taken.
    """
    kind = function_of(asset).__annotations__.get("config")
    given = run_config.get("ops", {}).get(asset.op.name, {}).get("config", {})
    try:
        return kind(**given) if kind else None
    except ValidationError as error:
        wrong = error.errors()
        name, told = ".".join(str(part) for part in wrong[0]["loc"]), wrong[0]["input"]
        raise InputError(
            f"configuration of {asset.op.name!r}: {len(wrong)} settings cannot be taken; first: {name!r} is {told!r}. "
            f"{wrong[0]['msg']}: correct the file that --config or ECOM_CONFIG names."
        ) from error


def _stale(
    db: DuckDBPyConnection,
    assets: Sequence[dg.AssetsDefinition],
    run_config: Mapping,
    made: Sequence[str],
    home: Home,
    stale: Sequence[str] = (),
) -> list[str]:
    contents = ledger.contents(db)
    found: list[str] = []
    waiting: set[str] = set()
    for asset in assets:
        names = asset_names(asset)
        upstream = {key.to_user_string() for one in asset.keys for key in asset.asset_deps[one]}
        if upstream & (waiting | SETTLING.intersection(found)):
            waiting.update(names)
        elif upstream & {*found, *stale} or any(
            _is_stale(db, asset, name, run_config, contents, home) or name not in made for name in names
        ):
            found += names
    return found


def _is_stale(
    db: DuckDBPyConnection,
    asset: dg.AssetsDefinition,
    name: str,
    run_config: Mapping,
    contents: Mapping[str, str],
    home: Home,
) -> bool:
    config = config_of(asset, run_config)
    expected = made_from(asset, name, config, contents, _besides(name, config, home))
    entry = ledger.entries(db, name).get(ledger.WHOLE)
    return entry is None or entry.made_from != expected or not _is_kept(name, entry.content, home)


def _is_kept(name: str, content: str, home: Home) -> bool:
    """Whether what an asset keeps outside of the warehouse is still there; nothing is, where there was nothing to learn."""
    if name == "ranker":
        return rankers_are_whole(home, content)
    if name == "adapted_encoder":
        return is_readable(home.encoders / content)
    if name == "fine_tuned_model":
        return not content or can_be_opened(home.models / content)
    return True


def _besides(name: str, config: dg.Config | None, home: Home) -> dict[str, str]:
    """What an asset depends on that no asset holds: files of the source, or of a model."""
    if name in TABLES:
        return outside(home, name)
    if name == "experiment_readout":
        return experiments_file(home)
    if isinstance(config, EncoderConfig):
        return encoder_files(config)
    return picture_files(config) if isinstance(config, PicturesConfig) else {}


def _stale_days(db: DuckDBPyConnection, run_config: Mapping, made: Sequence[str]) -> tuple[date, date] | None:
    config = config_of(cleaned_interactions, run_config)
    assert isinstance(config, CleaningConfig)
    expected = expected_days(days.FIRST_DAY, date.max, day_settings(cleaned_interactions, config))
    stale, every = stale_days(db, expected)
    if "cleaned_interactions" not in made:
        stale = every
    return (stale[0], stale[-1]) if stale else None
