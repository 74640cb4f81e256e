"""The gates: each relation keeps its schema, keys and ranges, and the laws of its stage; else nothing below it runs.

Checks of drift warn and stop nothing: an unusual day may be a good one. So does that of graphs, which are not used where they
find too few.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import schema
from ecom_pipeline.laws import LAWS, Law
from ecom_pipeline.recommend.nearest_items import LEAST_FOUND
from ecom_pipeline.schema import Relation, Violation
from ecom_pipeline.watching.drift import alarms
from ecom_pipeline.watching.figures import FAMILIES, Family
from resources.home import Home
from resources.warehouse import Warehouse

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition


Judge = Callable[[DuckDBPyConnection], dg.AssetCheckResult]
Gate = tuple[dg.AssetCheckSpec, Judge]


def _schema_gate(relation: Relation) -> Gate:
    def judge(db: DuckDBPyConnection) -> dg.AssetCheckResult:
        relation.create(db)
        found = schema.violations(db, relation)
        columns = db.sql(f"from {relation.name} limit 0").columns
        (n_rows,) = db.execute(f"select count(*) from {relation.name}").fetchall()[0]
        rejected = schema.most_rejected(db, relation.name)
        # counted in SQL and judged here: the same verdict at any size
        missing = 0 if n_rows or relation.may_be_empty else 1
        broken = _judge({v.promise: v.n_rows for v in found} | {"n_rows": missing})
        absent = sorted(set(relation.column_names) - set(columns))
        return dg.AssetCheckResult(
            asset_key=relation.name,
            check_name=spec.name,
            passed=not broken and not absent,
            description=_told(relation, n_rows, [v for v in found if v.promise in broken], rejected),
            metadata={
                "n_rows": n_rows,
                "missing_columns": absent,
                "broken": [str(v) for v in found if v.promise in broken] or broken,
            },
        )

    spec = dg.AssetCheckSpec(
        f"{relation.name}_keep_schema_keys_and_ranges",
        asset=relation.name,
        blocking=True,
        description=f"One row per {relation.row}: columns, keys, ranges and volume, judged by Great Expectations.",
    )
    return spec, judge


def _told(relation: Relation, n_rows: int, broken: list[Violation], rejected: str) -> str:
    """What is wrong first, in a sentence; what is promised where nothing is."""
    if broken:
        return f"{len(broken)} promises of {relation.name} are broken; first: {broken[0]}"
    if not n_rows and not relation.may_be_empty:
        return f"{relation.name} has 0 rows and must have 1 or more; {rejected}"
    return f"One row per {relation.row}: columns, keys, ranges and volume hold for {n_rows} rows; {rejected}"


def _judge(n_broken: Mapping[str, int]) -> list[str]:
    """Names of the promises that rows break, in the eyes of Great Expectations."""
    counted = _counted()  # first: a suite needs a context that is there
    import great_expectations as gx
    import great_expectations.expectations as gxe

    suite = gx.ExpectationSuite(name="promises")
    suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column="n_broken", value_set=[0]))
    rows = pd.DataFrame({"promise": n_broken.keys(), "n_broken": n_broken.values()})
    told = {"result_format": "COMPLETE", "unexpected_index_column_names": ["promise"]}
    (judged,) = counted.get_batch({"dataframe": rows}).validate(suite, result_format=told).results
    return [] if judged.success else [one["promise"] for one in judged.result["unexpected_index_list"]]


@cache
def _counted() -> "BatchDefinition":
    """Where Great Expectations takes a frame from: made once a process, as it takes longer than to judge."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("counts").add_dataframe_asset("counts")
    return asset.add_batch_definition_whole_dataframe("all")


def _law_gate(law: Law) -> Gate:
    def judge(db: DuckDBPyConnection) -> dg.AssetCheckResult:
        broken = db.sql(law.broken).df()
        first = broken.head(3).astype(str).to_dict("records")
        return dg.AssetCheckResult(
            asset_key=law.relation,
            check_name=law.name,
            passed=broken.empty,
            description=law.statement
            if broken.empty
            else f"{law.statement}; {len(broken)} break it; first: {first[0]}",
            metadata={"n_broken": len(broken), "first": dg.MetadataValue.json(first)},
        )

    return dg.AssetCheckSpec(law.name, asset=law.relation, blocking=True, description=law.statement), judge


def _drift_gate(family: Family) -> Gate:
    statement = f"on the last whole day, {family} are as far from usual as ordinary days are"

    def judge(db: DuckDBPyConnection) -> dg.AssetCheckResult:
        found = [one for one in alarms(db, days=1) if one.family == family]
        return dg.AssetCheckResult(
            asset_key="drift",
            check_name=spec.name,
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(str(one) for one in found) or statement,
            metadata={"n_unusual": len(found)},
        )

    spec = dg.AssetCheckSpec(f"{family}_are_as_usual", asset="drift", description=f"{statement}.")
    return spec, judge


def _together(asset: str, gates: Sequence[Gate]) -> dg.AssetChecksDefinition:
    """All gates of an asset in one step, as a step costs more than a gate: on Kubernetes, it may be a pod."""

    @dg.multi_asset_check(
        specs=[spec for spec, _ in gates],
        name=f"gates_of_{asset}",
        description=f"What must hold of {asset} before anything is made of it.",
        can_subset=True,
    )
    def check(context: dg.AssetCheckExecutionContext, warehouse: Warehouse) -> Iterator[dg.AssetCheckResult]:
        with warehouse.connect() as db:
            for spec, judge in gates:
                if spec.key in context.selected_asset_check_keys:
                    yield judge(db)  # at once: where the next cannot be asked, this one has been told

    return check


@dg.asset_check(
    asset="published_model",
    name="graphs_find_the_nearest_items",
    blocking=False,
    description=f"A graph of items finds {LEAST_FOUND:.0%} of the ten nearest, or all vectors are looked at instead.",
)
def graphs_find_the_nearest_items(home: Home) -> dg.AssetCheckResult:
    """Warns and stops nothing: what finds too few is not used, so that answers are right and only slower."""
    from ecom_pipeline.service import folders

    recall = {name: value for name, value in folders.pointer(home.published)["measured"].items() if "recall" in name}
    low = {name: value for name, value in recall.items() if value < LEAST_FOUND}
    told = f"{len(recall)} graphs of items find {LEAST_FOUND:.0%} or more of the ten nearest"
    if low:
        name, value = min(low.items(), key=lambda one: one[1])
        told = (
            f"graphs of items: {len(low)} of {len(recall)} find too few of the ten nearest; first: {name} is {value:.3f}. "
            f"Each must find {LEAST_FOUND:.0%}: until it does, all vectors are looked at, which takes longer and finds all; "
            f"look at the items' texts, or delete the folder {home.graphs.name!r} of the home and publish again."
        )
    return dg.AssetCheckResult(
        passed=not low,
        severity=dg.AssetCheckSeverity.WARN,
        description=told,
        metadata={"n_graphs": len(recall), **recall},
    )


def _by_asset(gates: Sequence[Gate]) -> dict[str, list[Gate]]:
    found: dict[str, list[Gate]] = {}
    for gate in gates:
        found.setdefault(gate[0].asset_key.to_user_string(), []).append(gate)
    return found


_GATES = [
    *(_schema_gate(relation) for relation in schema.RELATIONS.values()),
    *(_law_gate(law) for law in LAWS),
    *(_drift_gate(family) for family in FAMILIES),
]
CHECKS = [graphs_find_the_nearest_items, *(_together(asset, gates) for asset, gates in _by_asset(_GATES).items())]
