"""A small shop with purchases and exposures, and the file that says which experiments it has."""

from datetime import date

import duckdb
import numpy as np
import pandas as pd

from ecom_pipeline import schema
from ecom_pipeline.experiments.plan import Arm, Experiment

MAY = (date(2024, 5, 1), date(2024, 5, 31))
HALVES = (Arm("old", 0.5), Arm("new", 0.5))
PLAIN = Experiment("e", HALVES, *MAY)
FILE = """\
weights:
  arms: {unweighted: {share: 0.5, system: unweighted}, weighted: {share: 0.5, system: weighted}}
  first_day: 2024-05-01
  last_day: 2024-05-31
  changes: lists
"""


def written(tmp_path, text):
    path = tmp_path / "experiments.yaml"
    path.write_text(text)
    return path


def shop(events, exposures, experiment="e"):
    """A warehouse of purchases (user, day, price, quantity) and exposures (user, arm, day)."""
    db = duckdb.connect()
    schema.CLEANED_INTERACTIONS.create(db)
    schema.EXPOSURES.create(db)
    bought = [
        (f"e{n}", at, user, "purchase", price, pieces, None) for n, (user, at, price, pieces, *_) in enumerate(events)
    ]
    back = [
        (f"r{n}", "2024-06-20 00:00", event[0], "return", None, event[4], f"e{n}")
        for n, event in enumerate(events)
        if event[4:]
    ]
    names = ["event_id", "occurred_at", "user_id", "action", "price", "quantity", "return_of"]
    rows = pd.DataFrame([*bought, *back], columns=names)
    rows["occurred_at"] = pd.to_datetime(rows.occurred_at)
    db.register("rows", rows.assign(day=rows.occurred_at.dt.date, item_id="i"))
    db.execute("insert into cleaned_interactions by name from rows")
    for user, arm, at in exposures:
        db.execute("insert into exposures values (?, ?, ?, null, ?)", [experiment, arm, user, at])
    return db


def year(n_users=300, seed=0):
    draw = np.random.default_rng(seed)
    taste = draw.gamma(2, 2, n_users)
    return [
        (f"u{user}", f"2024-{month:02}-{1 + int(day):02} 10:00", float(price), 1)
        for user in range(n_users)
        for month in (3, 4, 5)
        for day, price in zip(draw.integers(0, 28, draw.poisson(taste[user])), draw.gamma(2, 5, 50), strict=False)
    ]


def exposed(experiment):
    return [(f"u{n}", experiment.assign(f"u{n}").name, "2024-05-01 00:00") for n in range(300)]
