"""How every asset ends: its rows and what they were made from are written at once, and Dagster is told."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd
from duckdb import DuckDBPyConnection

from assets.code import function_of, version
from ecom_pipeline import ledger, schema
from ecom_pipeline.ledger import Entry
from ecom_pipeline.samples import has_samples
from ecom_pipeline.schema import Relation
from resources.warehouse import Warehouse

Metadata = Mapping[str, object]
WRITTEN = "n_rows_written"  # figure of an asset that wrote but some of its rows


def settings_of(config: dg.Config | None) -> dict[str, Any]:
    """What a configuration says, as plain values."""
    return config.model_dump(mode="json") if config else {}


def made_from(
    asset: dg.AssetsDefinition,
    name: str,
    config: dg.Config | None,
    contents: Mapping[str, str],
    outside: Mapping[str, str] | None = None,
) -> str:
    """What an asset would be made from now: its code, its configuration, the present content of what it reads.

    Args:
        asset: the definition.
        name: which of its keys.
        config: as it will run.
        contents: of the assets upstream, from the ledger.
        outside: fingerprints of what no asset holds, such as the files of a source.
    """
    key = dg.AssetKey(name)
    upstream = {
        dep.to_user_string(): contents.get(dep.to_user_string(), "absent")
        for dep in asset.asset_deps[key]
        if dep.to_user_string() not in asset_names(asset)
    }
    return ledger.fingerprint(version(function_of(asset)), settings_of(config), upstream | dict(outside or {}))


def asset_names(asset: dg.AssetsDefinition) -> list[str]:
    """Names of what a definition makes."""
    return [key.to_user_string() for key in asset.keys]


def recipe(
    context: dg.AssetExecutionContext,
    config: dg.Config | None,
    warehouse: Warehouse,
    outside: Mapping[str, str] | None = None,
) -> str:
    """`made_from` for the asset that is running."""
    with warehouse.connect() as db:
        contents = ledger.contents(db)
    return made_from(context.assets_def, context.asset_key.to_user_string(), config, contents, outside)


def publish(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    relation: Relation,
    frame: pd.DataFrame,
    made: str,
    metadata: Metadata,
) -> dg.MaterializeResult:
    """Replace a relation by a frame that keeps its type, and remember what it was made from."""
    checked = frame_type(relation).type_check(None, frame)  # type: ignore[arg-type]  # a frame's check asks for no context
    if not checked.success:
        raise dg.Failure(
            description=f"{relation.name}: {checked.description}", metadata=checked.metadata, allow_retries=False
        )
    with warehouse.transaction() as db:
        db.execute(f"create or replace table {relation.name} as select {relation.cast} from frame")
        remember(db, relation.name, made)
    return told(warehouse, relation.name, metadata)


def as_made(warehouse: Warehouse, made: Mapping[str, str]) -> bool:
    """Whether assets are there as they would be made now, so that nothing has to learn again.

    Args:
        warehouse: holds the ledger.
        made: `made_from` by asset.
    """
    with warehouse.connect() as db:
        found = {name: ledger.entries(db, name).get(ledger.WHOLE) for name in made}
    return all(entry is not None and entry.made_from == made[name] for name, entry in found.items())


def nothing_to_learn(
    context: dg.AssetExecutionContext, warehouse: Warehouse, made: str, relation: Relation | None = None
) -> dg.MaterializeResult | None:
    """How the asset that is running ends where nothing was judged and nobody searched: at once, and empty.

    Args:
        context: of the asset.
        warehouse: holds `training_samples`.
        made: what the asset is made from.
        relation: that the asset writes; None: it writes no relation.

    Returns:
        What Dagster hears; None where there are samples, and the asset has its work to do.
    """
    name = context.asset_key.to_user_string()
    with warehouse.transaction() as db:
        if has_samples(db):
            return None
        if relation:
            relation.clear(db)
            remember(db, name, made)
        else:
            ledger.record(db, name, Entry(made, "", 0))
    context.log.info("nothing was judged and nobody searched: there is nothing to learn search from")
    return told(warehouse, name, {"without": "judged pairs and search visits: nothing was computed"})


def remember(db: DuckDBPyConnection, asset: str, made: str, where: str = "true") -> None:
    """Note in the ledger what was written; call it in the transaction that wrote it."""
    content, n_rows = ledger.content(db, asset, where)
    ledger.record(db, asset, Entry(made, content, n_rows))


def told(warehouse: Warehouse, asset: str, metadata: Metadata) -> dg.MaterializeResult:
    """What Dagster hears of an asset without partitions: its rows, its content's hash and its figures."""
    with warehouse.connect() as db:
        entry = ledger.entries(db, asset)[ledger.WHOLE]
    return dg.MaterializeResult(
        asset_key=asset,
        data_version=dg.DataVersion(entry.content),
        metadata={"dagster/row_count": entry.n_rows, **plain(metadata)},
    )


def plain(metadata: Metadata) -> dict:
    """Figures as Dagster takes them: numpy's numbers become Python's."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in metadata.items()}


def column_schema(relation: Relation) -> dg.TableSchema:
    """Columns with their meaning, for the catalogue in the UI."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                c.name,
                c.type,
                c.meaning,
                dg.TableColumnConstraints(nullable=not c.required, unique=(c.name,) == relation.key),
            )
            for c in relation.columns
        ]
    )


def frame_type(relation: Relation) -> dg.DagsterType:
    """The `dagster-pandas` type of a frame that crosses assets, from the relation's columns."""
    import dagster_pandas as dp
    from dagster_pandas import constraints

    def column(c: schema.Column) -> dp.PandasColumn:
        found: list = [constraints.NonNullableColumnConstraint()] if c.required else []
        if c.minimum is not None or c.maximum is not None:
            low = -float("inf") if c.minimum is None else c.minimum
            high = float("inf") if c.maximum is None else c.maximum
            found.append(constraints.InRangeColumnConstraint(low, high, ignore_missing_vals=not c.required))
        if c.choices:
            found.append(constraints.CategoricalColumnConstraint(set(c.choices), ignore_missing_vals=not c.required))
        return dp.PandasColumn(c.name, constraints=found)

    name = "".join(part.title() for part in relation.name.split("_")) + "Frame"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # that these types are in beta is ours to know, not the user's
        return dp.create_dagster_pandas_dataframe_type(
            name, f"One row per {relation.row}.", [column(c) for c in relation.columns]
        )
