"""A small shop whose lists are published, and the app that serves it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb
from acts_store import FIRST, store

from ecom_pipeline.recommend.backtest import Settings, backtest
from ecom_pipeline.recommend.candidates import Retrieval
from ecom_pipeline.recommend.catalogue import read_shop, read_titles, read_withdrawn
from ecom_pipeline.recommend.interactions import day_number
from ecom_pipeline.recommend.list_maker import ListRules
from ecom_pipeline.recommend.lists import make
from ecom_pipeline.recommend.periods import origins_of, plan_periods
from ecom_pipeline.recommend.pilot import RowChoice
from ecom_pipeline.recommend.ranker import TreeSearch
from ecom_pipeline.recommend.saved import SavedRanker
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting
from ecom_pipeline.service import folders
from ecom_pipeline.service.app import House, make_app
from ecom_pipeline.service.gate import Gate
from ecom_pipeline.service.guards import LOOPBACK, Limits
from ecom_pipeline.service.journal.appending import Journal
from ecom_pipeline.service.journal.database import Database
from ecom_pipeline.service.journal.sqlite import SQLite
from ecom_pipeline.service.published import Ingredients, write_model
from ecom_pipeline.service.serving import Serving
from ecom_pipeline.service.smoke import smoke_test
from ecom_pipeline.service.trials import Trials
from ecom_pipeline.sources.people import keyed_hash

N_DAYS, N_ITEMS = 40, 30
DAY = day_number(FIRST) + N_DAYS
WEIGHTING = Weighting("exponential", 20.0, light_act=0.5, returned=0.0, ignored=0.1)
KEY = b"tests"
GRAPHS = Path("no graphs")  # of so few items there are none
SETTINGS = Settings(
    Retrieval(n_own=20, n_together=5, n_popular=5, n_text=0, n_sequence=3),
    RowChoice("gap", n_rows=400, pilot_rows=500),
    TreeSearch((7,), (10, 20), min_rows=5, n_threads=1),
    n_visits=60,
    n_asked=30,
)


@dataclass
class Shop:
    """A warehouse, what its model is published from, and the pipeline's own lists."""

    db: duckdb.DuckDBPyConnection
    given: Ingredients
    listed: object

    def publish(self, folder: Path, **changes: object) -> str:
        """Write it to a folder of publications."""
        given = Ingredients(**{**{f: getattr(self.given, f) for f in Ingredients.__slots__}, **changes})
        return folders.publish(
            folder, lambda part: write_model(part, self.db, given), lambda part: smoke_test(part, self.listed)
        )


def make_published_shop() -> Shop:
    """Users u0 to u39, hashed as at the door, and items i0 to i29, of which i3 is withdrawn."""
    db = store(n_users=40, n_items=N_ITEMS, n_days=N_DAYS)
    for user in range(40):
        db.execute(
            "update cleaned_interactions set user_id = ? where user_id = ?", [keyed_hash(f"u{user}", KEY), f"u{user}"]
        )
    db.execute("""update items set attributes = '{"availability": "Out of stock"}' where item_id = 'i3'""")
    db.execute(
        "update items set price = 1 + length(item_id), title = 'a mug of kind ' || item_id, item_text = 'a mug of kind ' || item_id"
    )
    db.execute("create table training_samples (sample_id varchar)")
    periods = plan_periods(db, n_train=2, n_test=1, length=5, n_items=100)
    dates = {name: periods[name].astype("datetime64[ns]") for name in ("first_day", "last_day")}
    origins = origins_of(periods.assign(**dates))
    until = read_shop(db, 100, until=origins[-1].validation.end)
    found = backtest(until.acts, until.catalogue, WEIGHTING, origins, SETTINGS)
    divisions = tuple(until.catalogue.classes)
    rankers = {
        "weighted": SavedRanker(found.ranker, WEIGHTING, SETTINGS.retrieval, divisions, 100),
        "unweighted": SavedRanker(found.twin, UNWEIGHTED, SETTINGS.retrieval, divisions, 100),
    }
    shop = read_shop(db, 100, divisions=divisions)
    ids = shop.acts.item_ids
    told = {"titles": read_titles(db, ids), "withdrawn": read_withdrawn(db, ids)}
    listed = make(shop, rankers["weighted"], DAY, rules=ListRules(5), n_users=40, **told)
    return Shop(db, Ingredients(shop, DAY, rankers, None, None, 0, GRAPHS), listed[["user_id", "item_id"]])


def serve(
    folder: Path, *, keys: Path | None = None, limits: Limits | None = None, database: Database | None = None
) -> tuple[object, Serving]:
    """The app of a home's folder, with its journal; close the second."""
    serving = Serving(folder / "published", Journal(database or SQLite(folder / "journal")))
    hosts = (*LOOPBACK, "testserver")  # as test clients call it
    trials = Trials(folder / "experiments.yaml", serving.journal)
    limits, gate = limits or Limits(per_second=100_000), Gate(folder / "forgotten.json", KEY)
    return make_app(House(serving, KEY, keys, trials, limits, hosts=hosts, gate=gate)), serving


def copied(source: Path, target: Path) -> Path:
    """A folder that a test may change."""
    shutil.copytree(source, target)
    return target
