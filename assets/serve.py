"""Stage 9: all that serving needs, in one folder that a service loads while the pipeline goes on."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from duckdb import DuckDBPyConnection

from assets.evaluate import evaluation
from assets.importance import label_suspicions
from assets.language import adapted_encoder, embeddings, encoder_folder
from assets.model import fine_tuned_model
from assets.modes import sample_attributes
from assets.prepare import items, judgments
from assets.publish import as_made, recipe, told
from assets.recommend import TWIN, n_items_of, recommendations, similar_items, tomorrow
from ecom_pipeline import ledger
from ecom_pipeline.recommend import lists
from ecom_pipeline.recommend.catalogue import read_shop, read_titles, read_withdrawn, with_graph
from ecom_pipeline.recommend.list_maker import ListRules
from ecom_pipeline.recommend.saved import SavedRanker
from ecom_pipeline.samples import has_samples
from resources.compute import Compute
from resources.home import Home
from resources.warehouse import Warehouse

if TYPE_CHECKING:
    from ecom_pipeline.service.published import Ingredients

_LISTED = 20  # users whose lists a publication without a run is tested with, and items in each


@dg.asset(
    deps=[
        *("ranker", "next_visit_evaluation", "interaction_weights", "cleaned_interactions", "promotions"),
        *(recommendations, similar_items, items, judgments, embeddings, adapted_encoder),
        *(fine_tuned_model, evaluation, sample_attributes, label_suspicions),
    ],
    group_name="serve",
    kinds={"parquet", "numpy"},
)
def published_model(
    context: dg.AssetExecutionContext, warehouse: Warehouse, compute: Compute, home: Home
) -> dg.MaterializeResult:
    """One folder with all that a service needs; it is switched to only if it answers as it must."""
    from ecom_pipeline.service import folders
    from ecom_pipeline.service.published import write_model
    from ecom_pipeline.service.smoke import smoke_test

    made = recipe(context, None, warehouse)
    if as_made(warehouse, {"published_model": made}) and folders.current_is_whole(home.published):
        return told(warehouse, "published_model", {"published": folders.current(home.published)})
    with compute.step(context.log) as step, warehouse.connect() as db:
        given = _ingredients(db, home)
        listed = db.execute("select user_id, item_id from recommendations order by user_id, rank").df()
        name = folders.publish(
            home.published, lambda folder: write_model(folder, db, given), lambda folder: smoke_test(folder, listed)
        )
    home.prune(home.graphs, set())
    with warehouse.transaction() as db:
        ledger.record(db, "published_model", ledger.Entry(made, name, 1))
    measured = folders.pointer(home.published)["measured"]
    context.log.info("model %s is published: %s", name, measured)
    return told(warehouse, "published_model", {"published": name, **measured, **step.figures})


def publish_without_learning(db: DuckDBPyConnection, home: Home, published: Path) -> str:
    """Publish what the warehouse holds now with the rankers and twins that are there, and return the model's name.

    Args:
        db: a connection to a warehouse in which a whole run was finished.
        home: of the rankers, twins and encoders.
        published: folder of publications.

    Raises:
        PublicationError: if the model does not answer as it must; what serves is left alone then.

    Cost: as the asset `published_model`.
    """
    from ecom_pipeline.service import folders
    from ecom_pipeline.service.published import write_model
    from ecom_pipeline.service.smoke import smoke_test

    given = _ingredients(db, home)
    ids, rules = given.shop.acts.item_ids, ListRules(_LISTED)
    told = {"titles": read_titles(db, ids), "withdrawn": read_withdrawn(db, ids)}
    listed = lists.make(given.shop, given.rankers.get("weighted"), given.day, rules=rules, n_users=_LISTED, **told)
    return folders.publish(
        published, lambda folder: write_model(folder, db, given), lambda folder: smoke_test(folder, listed)
    )


def _ingredients(db: DuckDBPyConnection, home: Home) -> "Ingredients":
    from ecom_pipeline.service.published import Ingredients, journal_until

    contents = {name: ledger.entries(db, name)[ledger.WHOLE].content for name in ("ranker", "fine_tuned_model")}
    folder = home.rankers / contents["ranker"]
    rankers = {"weighted": folder, "unweighted": folder / TWIN} if contents["ranker"] else {}
    saved = {name: SavedRanker.read(one) for name, one in rankers.items()}
    divisions = saved["weighted"].divisions if saved else None
    asks = any(one.weighting.asks_circumstances for one in saved.values())
    shop = read_shop(db, n_items_of(db), divisions=divisions, circumstances=asks)
    return Ingredients(
        shop=with_graph(shop, home.graphs),
        day=tomorrow(db),
        rankers=saved,
        encoder=encoder_folder(db, home),
        models=home.models / contents["fine_tuned_model"] if has_samples(db) else None,
        journal=journal_until(db),
        graphs=home.graphs,
    )
