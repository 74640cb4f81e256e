"""A small warehouse of acts in memory: clicks and purchases of several pieces, some of which went back."""

from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd

from ecom_pipeline import schema

FIRST = date(2024, 1, 1)


def store(n_users: int = 12, n_items: int = 9, n_days: int = 30, seed: int = 0) -> duckdb.DuckDBPyConnection:
    """A warehouse with `items` and `cleaned_interactions`."""
    db = duckdb.connect()
    for relation in (schema.ITEMS, schema.CLEANED_INTERACTIONS, schema.EMBEDDINGS):
        relation.create(db)
    draw = np.random.default_rng(seed)
    wares = pd.DataFrame({"item_id": [f"i{n}" for n in range(n_items)]})
    wares = wares.assign(
        title=wares.item_id, item_text=wares.item_id, category=[f"c{n % 3} > d{n}" for n in range(n_items)]
    )
    db.execute("insert into items by name select * from wares")
    rows = []
    for user in range(n_users):
        for day in range(int(draw.integers(3)), n_days, 2 + user % 4):
            for _ in range(3):
                item, kind = int(draw.integers(n_items)), ("purchase", "click")[int(draw.random() < 0.3)]
                rows.append((f"u{user}", f"i{item}", day, kind, float(draw.integers(1, 4)), None))
    acts = pd.DataFrame(rows, columns=["user_id", "item_id", "n", "action", "quantity", "return_of"])
    acts["event_id"] = [f"e{n:05}" for n in range(len(acts))]
    bought = acts[acts.action == "purchase"].iloc[::7]
    back = bought.assign(action="return", return_of=bought.event_id, event_id="r" + bought.event_id, n=bought.n + 2)
    events = pd.concat([acts, back], ignore_index=True)
    events["day"] = [FIRST + timedelta(days=int(n)) for n in events.n]
    events["occurred_at"] = pd.to_datetime(events.day)
    events = events.drop(columns="n")
    db.execute("insert into cleaned_interactions by name select * from events")
    return db
