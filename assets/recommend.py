"""Stage 7: past acts are weighed, rankers of the whole catalogue learn from them, and every user gets a list."""

from collections.abc import Iterator
from typing import Any, Literal

import dagster as dg
import numpy as np
from duckdb import DuckDBPyConnection
from pydantic import Field

from assets.language import embeddings
from assets.prepare import items
from assets.private import WITHOUT, PrivateConfig, folder_of, promise_of, refuse_beside, require_private
from assets.publish import as_made, column_schema, made_from, publish, recipe, remember, settings_of, told
from ecom_pipeline import ledger, schema
from ecom_pipeline.recommend import lists
from ecom_pipeline.recommend.backtest import NO_FIGURES, Settings, backtest, chosen_rows, headline
from ecom_pipeline.recommend.candidates import Retrieval
from ecom_pipeline.recommend.catalogue import (
    Shop,
    read_availability,
    read_shop,
    read_titles,
    read_withdrawn,
    with_graph,
)
from ecom_pipeline.recommend.circumstances import require_kinds
from ecom_pipeline.recommend.interaction_weights import build_interaction_weights, opinions_of
from ecom_pipeline.recommend.interactions import day_number, day_of
from ecom_pipeline.recommend.list_maker import ListRules
from ecom_pipeline.recommend.lists import describe_items
from ecom_pipeline.recommend.periods import Origin, origins_of, plan_periods
from ecom_pipeline.recommend.pilot import RowChoice
from ecom_pipeline.recommend.private.promise import PrivateTraining
from ecom_pipeline.recommend.ranker import TreeSearch
from ecom_pipeline.recommend.retrieval import Index
from ecom_pipeline.recommend.saved import SavedRanker, is_whole
from ecom_pipeline.recommend.trials import choose_weighting, chosen_weighting
from ecom_pipeline.recommend.weighting import UNWEIGHTED
from resources.cluster import Cluster
from resources.compute import Compute
from resources.home import Home
from resources.warehouse import Warehouse

TWIN = "twin"  # folder of the ranker without weights, in that of the one that serves
RANKED = ("ranker", "sample_choice", "next_visit_evaluation")
USUAL = Settings()
AS_MADE = {"learnt": "nothing: the periods are as they were"}  # a schedule asks every day


class PeriodsConfig(dg.Config):
    """What is learnt from, and how large a catalogue is ranked."""

    n_train: int = Field(default=3, ge=1, description="Periods whose visits a ranker learns from.")
    n_test: int = Field(default=3, ge=1, description="Periods that rankers of earlier days are tested on.")
    length: int | None = Field(
        default=None, ge=1, description="Days of a period; none: 28, or less where there are few days."
    )
    n_items: int = Field(default=20_000, ge=1, description="Items that are ranked, at most: those taken most.")


@dg.asset(
    deps=["cleaned_interactions", items, embeddings, "promotions"],
    group_name="recommend",
    kinds={"duckdb"},
    metadata={"dagster/column_schema": column_schema(schema.LEARNING_PERIODS)},
)
def learning_periods(
    context: dg.AssetExecutionContext, config: PeriodsConfig, warehouse: Warehouse
) -> dg.MaterializeResult:
    """One row per use of some days by a ranker; a new day changes none of them until a whole period has passed."""
    made = recipe(context, config, warehouse)
    with warehouse.connect() as db:
        rows = plan_periods(db, **settings_of(config))
    n_origins = rows.origin.nunique()
    context.log.info("%d periods of %d origins", len(rows), n_origins)
    return publish(context, warehouse, schema.LEARNING_PERIODS, rows, made, {"n_origins": n_origins})


class TrialsConfig(dg.Config):
    """How a weighting of past acts is looked for."""

    n_trials: int = Field(default=24, ge=0, description="Weightings beside none; 0: every act counts one.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="How sure a gain must be, all trials together.")
    seed: int = Field(default=0, ge=0, description="Of the lay-out, the visits and the bootstrap.")
    n_processes: int = Field(default=2, ge=1, description="In which periods are looked at.")
    more_kinds: list[str] = Field(
        default=[],
        description="position, propensity, promotion: how acts came about, where known; tried beside the others.",
    )
    n_more: int = Field(default=12, ge=0, description="Trials of these.")

    def model_post_init(self, _: Any) -> None:
        """Refuse kinds that there are not: as `require_kinds`."""
        require_kinds(self.more_kinds)


@dg.asset(
    deps=[learning_periods],
    group_name="recommend",
    kinds={"numpy"},
    metadata={"dagster/column_schema": column_schema(schema.INTERACTION_TRIALS)},
)
def interaction_trials(
    context: dg.AssetExecutionContext, config: TrialsConfig, warehouse: Warehouse, compute: Compute, cluster: Cluster
) -> dg.MaterializeResult:
    """One row per weighting of past acts that was tried, on next visits before the first test period."""
    made = recipe(context, config, warehouse)
    if as_made(warehouse, {"interaction_trials": made}):
        return told(warehouse, "interaction_trials", AS_MADE)
    with warehouse.connect() as db:
        origins, shop = _learnt_from(db, circumstances=bool(config.more_kinds))
    tried_on = [*origins[0].train[-1:], origins[0].validation] if origins else []
    with compute.step(context.log) as step, cluster.joined(context.log) as nodes:
        choice = choose_weighting(
            shop.acts,
            [(period.first, period.end) for period in tried_on],
            text=shop.catalogue.text,
            **settings_of(config),
        )
    figures = {"chosen": ", ".join(choice.weighting.reasons), "gain_low": choice.gain_low, **nodes, **step.figures}
    return publish(context, warehouse, schema.INTERACTION_TRIALS, choice.trials, made, figures)


@dg.asset(
    deps=[interaction_trials, "cleaned_interactions", items, embeddings, "promotions"],
    group_name="recommend",
    kinds={"duckdb"},
    pool="warehouse",
    metadata={"dagster/column_schema": column_schema(schema.INTERACTION_WEIGHTS)},
)
def interaction_weights(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
    """One row per act by which an item was taken: what it tells of its user on the day after the last one."""
    made = recipe(context, None, warehouse)
    with warehouse.connect() as db:
        weighting, day, opinions = chosen_weighting(db), tomorrow(db), None
        if weighting.asks_evidence:
            shop = read_shop(db, n_items_of(db), circumstances=weighting.asks_circumstances)
            index = Index.fit(shop.acts, day, weighting=weighting, text=shop.catalogue.text)
            opinions = opinions_of(shop.acts, index)
    with warehouse.transaction() as db:
        counts = build_interaction_weights(db, weighting, day, opinions)
        remember(db, "interaction_weights", made)
    context.log.info("%d acts are weighed by %s", counts["n_acts"], ", ".join(weighting.reasons))
    return told(warehouse, "interaction_weights", counts | {"weighed_by": ", ".join(weighting.reasons)})


class RankerConfig(dg.Config):
    """How the ranker of the whole catalogue learns; its unweighted twin has the same settings, and rows at random."""

    n_own: int = Field(
        default=USUAL.retrieval.n_own, ge=1, description="Candidates: items that the user took before, at most."
    )
    n_together: int = Field(
        default=USUAL.retrieval.n_together, ge=0, description="Candidates: new items that go with those, at most."
    )
    n_popular: int = Field(
        default=USUAL.retrieval.n_popular, ge=1, description="Candidates: new items taken most lately, at most."
    )
    n_text: int = Field(
        default=USUAL.retrieval.n_text, ge=0, description="Candidates: new items whose texts are like those, at most."
    )
    n_sequence: int = Field(
        default=USUAL.retrieval.n_sequence,
        ge=0,
        description="Candidates: new items that the order of his visits asks for, at most; 0: no model of sequences is learnt.",
    )
    choice: Literal["gap", "random", "balanced", "all"] = Field(
        default="gap", description="Which candidates are learnt from: those farthest from what a pilot expects (gap)."
    )
    n_rows: int = Field(default=USUAL.choice.n_rows, ge=100, description="Candidates that a ranker learns from, about.")
    fit_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Of one core, in which a ranker's trees learn; how many rows that is, is tried, and n_rows is not asked.",
    )
    pilot_rows: int = Field(
        default=USUAL.choice.pilot_rows, ge=100, description="Candidates that the pilot learns from, at most."
    )
    n_visits: int = Field(default=USUAL.n_visits, ge=1, description="Visits of a period that are learnt from, at most.")
    n_asked: int = Field(
        default=USUAL.n_asked, ge=1, description="Visits of a period that are chosen or tested on, at most."
    )
    leaves: list[int] = Field(default=list(USUAL.search.leaves), description="Sizes of trees that are tried.")
    rounds: list[int] = Field(default=list(USUAL.search.rounds), description="Numbers of trees that are tried.")
    learning_rate: float = Field(default=USUAL.search.learning_rate, gt=0, description="Of the trees.")
    n_processes: int = Field(
        default=2, ge=1, description="In which the system and its twin learn side by side; 1: in half the memory."
    )
    seed: int = Field(default=0, ge=0, description="Of all that is drawn, but for the noise of private training.")
    private: PrivateConfig | None = Field(
        default=None, description="Rankers learn without a pilot, trees and validation, with noise; none: as always."
    )

    def model_post_init(self, _: Any) -> None:
        """Refuse what cannot hold before anything is made.

        Raises:
            InputError: if private training cannot hold with the other settings, or its accountant is not installed.
        """
        if self.private:
            usual = RankerConfig()
            refuse_beside(
                {name: getattr(self, name) for name in WITHOUT if getattr(self, name) != getattr(usual, name)}
            )

    def settings(self) -> Settings:
        """For the domain."""
        return Settings(
            Retrieval(self.n_own, self.n_together, self.n_popular, self.n_text, self.n_sequence),
            RowChoice(self.choice, self.n_rows, self.pilot_rows, seed=self.seed),
            TreeSearch(tuple(self.leaves), tuple(self.rounds), self.learning_rate),
            n_visits=self.n_visits,
            n_asked=self.n_asked,
            seed=self.seed,
            n_processes=self.n_processes,
            private=PrivateTraining(**settings_of(self.private)) if self.private else None,
            fit_seconds=self.fit_seconds,
        )


def _ranked(name: str, description: str, relation: schema.Relation | None, kind: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        name,
        deps=[learning_periods, interaction_trials],
        description=description,
        metadata={"dagster/column_schema": column_schema(relation)} if relation else {},
        group_name="recommend",
        kinds={kind},
    )


@dg.multi_asset(
    specs=[
        _ranked("ranker", "One ranker of the whole catalogue, with its weighting: what serves.", None, "lightgbm"),
        _ranked("sample_choice", "One row per candidate that it learnt from.", schema.SAMPLE_CHOICE, "duckdb"),
        _ranked(
            "next_visit_evaluation",
            "One row per figure of it, its unweighted twin and simple lists, over test periods.",
            schema.NEXT_VISIT_EVALUATION,
            "duckdb",
        ),
    ],
    name="ranker",
)
def ranker(
    context: dg.AssetExecutionContext,
    config: RankerConfig,
    warehouse: Warehouse,
    compute: Compute,
    cluster: Cluster,
    home: Home,
) -> Iterator[dg.MaterializeResult]:
    """Learn from past origins, test each on the period after it, and learn from the latest."""
    with warehouse.connect() as db:
        contents = ledger.contents(db)
        made = {name: made_from(context.assets_def, name, config, contents) for name in RANKED}
        before = ledger.entries(db, "ranker").get(ledger.WHOLE)
    if as_made(warehouse, made) and before and rankers_are_whole(home, before.content):
        yield from (told(warehouse, name, AS_MADE) for name in RANKED)
        return
    require_private(home.rankers / before.content if before else None, config.private)
    with warehouse.connect() as db:
        weighting, n_items = chosen_weighting(db), n_items_of(db)
        origins, shop = _learnt_from(db, circumstances=weighting.asks_circumstances)
    with compute.step(context.log) as step, cluster.joined(context.log) as nodes:
        shop = with_graph(shop, home.graphs)
        found = backtest(shop.acts, shop.catalogue, weighting, origins, config.settings()) if origins else None
    folder = home.rankers / folder_of(made["ranker"], config.private)
    if found:
        inputs = {name: contents[name] for name in ("learning_periods", "interaction_trials")}
        divisions = tuple(shop.catalogue.classes)
        retrieval = config.settings().retrieval
        SavedRanker(found.ranker, weighting, retrieval, divisions, n_items).write(folder, inputs)
        SavedRanker(found.twin, UNWEIGHTED, retrieval, divisions, n_items).write(folder / TWIN, inputs)
    rows = chosen_rows(found.kept if found else [], shop.acts)
    figures = found.evaluation if found else NO_FIGURES
    with warehouse.transaction() as db:
        ledger.record(db, "ranker", ledger.Entry(made["ranker"], folder.name if found else "", len(origins)))
    home.prune(home.rankers, {folder.name})
    promised = promise_of(found.ranker) if found else {}
    yield told(
        warehouse, "ranker", {"n_origins": len(origins), **headline(figures), **promised, **nodes, **step.figures}
    )
    yield publish(context, warehouse, schema.SAMPLE_CHOICE, rows, made["sample_choice"], {})
    yield publish(context, warehouse, schema.NEXT_VISIT_EVALUATION, figures, made["next_visit_evaluation"], {})


@dg.asset(
    deps=["cleaned_interactions", items, embeddings, learning_periods],
    group_name="recommend",
    kinds={"numpy"},
    metadata={"dagster/column_schema": column_schema(schema.ITEM_INDEX)},
)
def item_index(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
    """One row per item that can be recommended, as it is known now."""
    made = recipe(context, None, warehouse)
    with warehouse.connect() as db:
        shop, day = read_shop(db, n_items_of(db)), tomorrow(db)
        availability = read_availability(db, shop.acts.item_ids)
    rows = describe_items(shop, day, withdrawn=availability == "withdrawn")
    counts = ", ".join(f"{name}: {n:,}" for name, n in zip(*np.unique(availability, return_counts=True), strict=True))
    figures = {"availability": counts, "n_withdrawn": rows.withdrawn.sum(), "n_without_text": (~rows.has_text).sum()}
    return publish(context, warehouse, schema.ITEM_INDEX, rows, made, figures)


class SimilarConfig(dg.Config):
    """What is listed beside an item."""

    top: int = Field(default=10, ge=1, description="Items listed, at most.")


@dg.asset(
    deps=["cleaned_interactions", items, embeddings, learning_periods],
    group_name="recommend",
    kinds={"numpy"},
    metadata={"dagster/column_schema": column_schema(schema.SIMILAR_ITEMS)},
)
def similar_items(
    context: dg.AssetExecutionContext, config: SimilarConfig, warehouse: Warehouse, home: Home
) -> dg.MaterializeResult:
    """One row per item beside an item that it is like: by who took both, and of new items by their texts."""
    made = recipe(context, config, warehouse)
    with warehouse.connect() as db:
        shop, day = read_shop(db, n_items_of(db)), tomorrow(db)
    by_text = with_graph(shop, home.graphs).catalogue.by_text
    rows = lists.similar_items(shop.acts, day, by_text=by_text, top=config.top)
    named = rows.assign(item_id=shop.acts.item_ids[rows.item], similar_item_id=shop.acts.item_ids[rows.similar_item])
    figures = {"n_items_by_text": named[named.channel == "text"].item_id.nunique()}
    return publish(context, warehouse, schema.SIMILAR_ITEMS, named[schema.SIMILAR_ITEMS.column_names], made, figures)


class ListsConfig(dg.Config):
    """What a list is."""

    top: int = Field(default=20, ge=1, description="Items of a list.")
    spread: float = Field(
        default=0.1, ge=0, le=1, description="Of an item's score, that its likeness to those above it may cost."
    )
    n_users: int = Field(default=100_000, ge=1, description="Users who get a list, at most: those who came last.")


@dg.asset(
    deps=["ranker", "cleaned_interactions", items, embeddings, "promotions"],
    group_name="recommend",
    kinds={"lightgbm"},
    metadata={"dagster/column_schema": column_schema(schema.RECOMMENDATIONS)},
)
def recommendations(
    context: dg.AssetExecutionContext, config: ListsConfig, warehouse: Warehouse, compute: Compute, home: Home
) -> dg.MaterializeResult:
    """One row per item to show to a user on the next visit, and a list for those who have no history."""
    made = recipe(context, config, warehouse)
    rules = ListRules(config.top, config.spread)
    with warehouse.connect() as db:
        name = ledger.entries(db, "ranker")[ledger.WHOLE].content
        saved = SavedRanker.read(home.rankers / name) if name else None
        shop = read_shop(
            db,
            n_items_of(db),
            divisions=saved.divisions if saved else None,
            circumstances=saved is not None and saved.weighting.asks_circumstances,
        )
        titles, withdrawn = read_titles(db, shop.acts.item_ids), read_withdrawn(db, shop.acts.item_ids)
        day = tomorrow(db)
    with compute.step(context.log) as step:
        shop = with_graph(shop, home.graphs)
        rows = lists.make(shop, saved, day, rules=rules, n_users=config.n_users, titles=titles, withdrawn=withdrawn)
    figures = {"n_users": rows.user_id.nunique(), "made_for": str(day_of(day)), **step.figures}
    return publish(context, warehouse, schema.RECOMMENDATIONS, rows, made, figures)


def rankers_are_whole(home: Home, name: str) -> bool:
    """Whether the ranker of that name and its twin are as they were written; without a name there is nothing to look at."""
    return not name or all(is_whole(folder) for folder in (home.rankers / name, home.rankers / name / TWIN))


def _learnt_from(db: DuckDBPyConnection, *, circumstances: bool) -> tuple[list[Origin], Shop]:
    """The origins, and the shop as it was when the last of their periods had ended."""
    origins = origins_of(db.execute("from learning_periods").df())
    until = origins[-1].validation.end if origins else 0
    return origins, read_shop(db, n_items_of(db), until=until, circumstances=circumstances)


def n_items_of(db: DuckDBPyConnection) -> int:
    """How many items are ranked, at most: `learning_periods` says so for all, or its default where there is none."""
    (told_by,) = db.execute("select any_value(n_items) from learning_periods").fetchall()[0]
    return told_by or PeriodsConfig().n_items


def tomorrow(db: DuckDBPyConnection) -> int:
    """The day after the last one with an act: for which weights hold and lists are made."""
    (last,) = db.execute("select coalesce(max(day), date '1970-01-01') from cleaned_interactions").fetchall()[0]
    return day_number(last) + 1
