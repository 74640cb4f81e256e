"""A small canonical shop with planted faults: what is wrong in it is known."""

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"

KINDS = {
    "coffee mug": ("ceramic coffee mug with handle", "enamel camping mug", "glass coffee cup", "travel mug with lid"),
    "running shoes": (
        "men's road running shoes",
        "women's trail running shoes",
        "lightweight jogging sneakers",
        "marathon racing shoes",
    ),
    "desk lamp": ("led desk lamp dimmable", "swing arm desk lamp", "usb reading lamp", "brass banker's desk lamp"),
    "yoga mat": ("non slip yoga mat", "foldable travel yoga mat", "thick exercise mat for yoga", "cork yoga mat"),
    "dog food": (
        "dry dog food with chicken",
        "grain free puppy food",
        "wet dog food in cans",
        "senior dog food salmon",
    ),
    "phone case": (
        "leather phone case",
        "shockproof phone case clear",
        "silicone cover for phone",
        "wallet phone case",
    ),
    "garden hose": (
        "expandable garden hose",
        "rubber garden hose 25 m",
        "garden hose reel",
        "flat drinking water hose",
    ),
    "winter jacket": (
        "down winter jacket hooded",
        "waterproof winter coat",
        "kids insulated snow jacket",
        "quilted puffer jacket",
    ),
    "board game": (
        "family board game strategy",
        "cooperative board game",
        "classic chess board set",
        "party trivia board game",
    ),
    "olive oil": (
        "extra virgin olive oil 1 l",
        "organic olive oil cold pressed",
        "olive oil spray",
        "infused olive oil with garlic",
    ),
}
COLOURS = ("red", "blue", "green")
SEARCHES = ("best {}", "{} gift", "{} online", "buy {}", "my {}", "{} sale", "{} today", "nice {}")  # some are judged
CONFIG = """\
ops:
  fold_predictions: {config: {n_components: 30}}
  label_suspicions: {config: {n_components: 30}}
  sample_values: {config: {n_components: 30}}
  weighting_trials: {config: {n_components: 30, n_trials: 12}}
  fine_tuned_model:
    config: {estimator: oof_confidence, learning_rates: [0.0001], weight_decays: [0.01], n_seeds: 2, max_epochs: 1, n_rows: 200, n_validation_rows: 60, penalties: [0.3, 1.0]}
  learning_periods: {config: {length: 2, n_train: 1, n_test: 2}}
  interaction_trials: {config: {n_trials: 3, n_processes: 1}}
  ranker: {config: {n_rows: 4000, n_visits: 200, leaves: [7], rounds: [20], n_processes: 1}}
"""
HEAD_ALONE = (
    CONFIG.replace("estimator: oof_confidence, ", "")
    .replace("max_epochs: 1", "max_epochs: 0")
    .replace("n_seeds: 2", "n_seeds: 1")
)


@dataclass
class Shop:
    """A canonical folder, and what is wrong in it."""

    folder: Path
    bad: dict[tuple[str, int], str] = field(default_factory=dict)  # (table, row number) -> rule
    flipped: set[tuple[str, str]] = field(default_factory=set)  # (query, item_id) judged wrongly


def write_csv(path: Path, rows: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def make_items() -> list[dict]:
    return [
        {
            "item_id": f"i{k}-{t}-{c}",
            "title": f"{colour} {title}",
            "category": f"shop > {kind}",
            "price": f"{5 + k}.90",
            "currency": "EUR",
        }
        for k, (kind, titles) in enumerate(KINDS.items())
        for t, title in enumerate(titles)
        for c, colour in enumerate(COLOURS)
    ]


def make_judgments(items: list[dict], draw: random.Random, flipped: set) -> list[dict]:
    rows = []
    for kind in KINDS:
        for words in ("best {}", "{} for home", "cheap {}", "{} gift", "good quality {}", "new {}"):
            query = words.format(kind)
            own = draw.sample([i for i in items if i["category"].endswith(kind)], 5)
            other = draw.sample([i for i in items if not i["category"].endswith(kind)], 7)
            for item in own + other:
                right = item in own
                wrong = draw.random() < 0.12
                if wrong:
                    flipped.add((query, item["item_id"]))
                rows.append({"query": query, "item_id": item["item_id"], "relevance": 3 if right != wrong else 0})
    return rows


def make_events(items: list[dict], draw: random.Random) -> list[dict]:
    """Thirty users for ten days: each sees items and clicks those of the two kinds that it likes.

    Every third searches for one of its kinds, and clicks what is of it.
    """
    rows = []
    for user in range(30):
        liked = draw.sample(list(KINDS), 2)
        for day in range(10):
            at = datetime(2024, 5, 1, 9, tzinfo=UTC) + timedelta(days=day, minutes=17 * user)
            wanted = [draw.choice(liked)] if user % 3 == 0 else liked
            query = draw.choice(SEARCHES).format(*wanted) if user % 3 == 0 else ""
            for position, item in enumerate(draw.sample(items, 12), 1):
                seen = {
                    "event_id": f"e{len(rows)}",
                    "occurred_at": at.isoformat(),
                    "user_id": f"person-{user}",
                    "session_id": f"s{user}-{day}",
                    "action": "impression",
                    "item_id": item["item_id"],
                    "position": position,
                    "propensity": 0.5,
                    "query": query,
                }
                rows.append(seen)
                if item["category"].split(" > ")[1] in wanted:
                    click = at + timedelta(minutes=position)
                    rows.append(
                        {
                            **seen,
                            "event_id": f"e{len(rows)}",
                            "occurred_at": click.isoformat(),
                            "action": "click",
                            "position": "",
                        }
                    )
    return rows


def plant(rows: list[dict], row: dict, table: str, rule: str, shop: Shop) -> None:
    rows.append(row)
    shop.bad[table, len(rows)] = rule


def plant_bad_rows(items: list[dict], events: list[dict], judgments: list[dict], shop: Shop) -> None:
    good = {
        "occurred_at": "2024-05-05T12:00:00Z",
        "user_id": "person-1",
        "session_id": "x",
        "action": "click",
        "item_id": items[3]["item_id"],
    }

    def event(rule: str, **changes: object) -> None:
        plant(events, {**good, "event_id": f"bad{len(events)}", **changes}, "events", rule, shop)

    plant(items, {"item_id": "", "title": "nameless"}, "items", "item_id_missing", shop)
    plant(items, {"item_id": "t1", "title": " <b> </b> &nbsp;"}, "items", "title_blank", shop)
    plant(items, {**items[0], "title": "again"}, "items", "item_id_repeated", shop)
    event("time_missing", occurred_at="")
    event("time_unreadable", occurred_at="yesterday")
    event("time_too_early", occurred_at="1970-01-01T00:00:00Z")
    event("time_in_future", occurred_at="2999-01-01T00:00:00Z")
    event("user_and_session_missing", user_id="", session_id=" ")
    event("action_unknown", action="stare")
    event("action_missing", action="")
    event("item_id_missing", item_id="")
    event("item_unknown", item_id="no-such-item")
    event("position_out_of_range", position="0")
    event("position_out_of_range", position="1.5")
    event("propensity_out_of_range", propensity="1.2")
    event("propensity_out_of_range", propensity="0")
    event("rating_out_of_range", action="review", rating="6")
    event("quantity_out_of_range", action="purchase", quantity="-2")
    event("event_id_repeated", event_id="e0")
    events.append({**good, "event_id": "", "occurred_at": "2024-05-06T12:00:00Z"})
    event("exact_duplicate", event_id="", occurred_at="2024-05-06T12:00:00Z")
    events.append({**good, "event_id": "near-1", "occurred_at": "2024-05-06T13:00:00Z"})
    event("near_duplicate", occurred_at="2024-05-06T13:00:01.5Z")
    events.append({**good, "event_id": "midnight", "occurred_at": "2024-05-06T23:59:59Z"})
    event("near_duplicate", occurred_at="2024-05-07T00:00:01Z")
    for second in range(40):
        event(
            "bot_like",
            user_id="robot",
            session_id="r",
            item_id=items[second]["item_id"],
            occurred_at=f"2024-05-06T15:00:{second:02}Z",
        )
    event(
        "cancelled_same_day",
        action="purchase",
        quantity="2",
        occurred_at="2024-05-06T10:00:00Z",
        item_id=items[7]["item_id"],
    )
    event(
        "cancelled_same_day",
        action="return",
        quantity="2",
        occurred_at="2024-05-06T11:00:00Z",
        item_id=items[7]["item_id"],
    )
    event("return_without_purchase", action="return", item_id=items[9]["item_id"])
    events.append(
        {**good, "event_id": "bought", "action": "purchase", "quantity": "1", "item_id": items[11]["item_id"]}
    )
    events.append(
        {
            **good,
            "event_id": "back",
            "action": "return",
            "quantity": "1",
            "item_id": items[11]["item_id"],
            "occurred_at": "2024-05-07T12:00:00Z",
        }
    )

    def judged(rule: str, **changes: object) -> None:
        plant(
            judgments,
            {"query": "odd query", "item_id": items[5]["item_id"], "relevance": 1, **changes},
            "judgments",
            rule,
            shop,
        )

    judged("query_blank", query=" ")
    judged("item_id_missing", item_id="")
    judged("item_unknown", item_id="no-such-item")
    judged("relevance_missing", relevance="")
    judged("relevance_out_of_range", relevance="-1")
    judged("relevance_out_of_range", relevance="high")
    judged("split_unknown", split="holdout")
    judged("exact_duplicate", **judgments[0])
    judged("grades_conflict", **{**judgments[0], "relevance": 2})


def make_offers(items: list[dict], shop: Shop) -> dict[str, list[dict]]:
    """Two campaigns, of which the second held users out, some promotions and an experiment: and rows that break a rule."""
    mugs = [item["item_id"] for item in items if item.get("category", "").endswith("mug")][:12]
    days = {"first_day": "2024-05-04", "last_day": "2024-05-07"}
    tables: dict[str, list[dict]] = {
        "campaigns": [
            {"campaign_id": "c1", "kind": "coupon", "first_day": "2024-05-02", "last_day": "2024-05-04"},
            {"campaign_id": "c2", "kind": "coupon", "first_day": "2024-05-06", "last_day": "2024-05-08"},
        ],
        "campaign_users": [
            {"campaign_id": f"c{n}", "user_id": f"person-{user}", "held_out": "true" if n == 2 and user % 2 else ""}
            for n in (1, 2)
            for user in range(10 * n)
        ],
        "campaign_items": [{"campaign_id": f"c{n}", "item_id": mug} for n in (1, 2) for mug in mugs],
        "promotions": [{"item_id": mug, "kind": "mailer", "reach": "0.5", **days} for mug in mugs],
        "exposures": [
            {
                "experiment": "colours",
                "arm": ("plain", "loud")[user % 2],
                "user_id": f"person-{user}",
                "exposed_at": "2024-05-05T00:00:00Z",
            }
            for user in range(30)
        ],
    }

    def bad(table: str, rule: str, **changes: object) -> None:
        plant(tables[table], {**tables[table][0], **changes}, table, rule, shop)

    bad("campaigns", "campaign_id_missing", campaign_id=" ")
    bad("campaigns", "first_day_unreadable", campaign_id="c3", first_day="soon")
    bad("campaigns", "last_day_unreadable", campaign_id="c4", last_day="")
    bad("campaigns", "days_reversed", campaign_id="c5", last_day="2024-05-01")
    bad("campaigns", "campaign_id_repeated")
    bad("campaign_users", "campaign_unknown", campaign_id="c5")
    bad("campaign_users", "user_missing", user_id="")
    bad("campaign_users", "held_out_unreadable", held_out="perhaps")
    bad("campaign_users", "held_out_conflicts", held_out="true")
    bad("campaign_users", "campaign_user_repeated")
    bad("campaign_items", "item_unknown", item_id="no-such-item")
    bad("campaign_items", "campaign_item_repeated")
    bad("promotions", "item_id_missing", item_id="")
    bad("promotions", "kind_missing", kind="")
    bad("promotions", "reach_out_of_range", reach="1.5", kind="display")
    bad("promotions", "promotion_repeated", reach="0.1")
    bad("exposures", "experiment_missing", experiment="")
    bad("exposures", "arm_missing", arm="")
    bad("exposures", "unit_missing", user_id="")
    bad("exposures", "exposed_at_unreadable", exposed_at="never")
    bad("exposures", "exposed_again", exposed_at="2024-05-06T00:00:00Z")
    return tables


def make_shop(folder: Path) -> Shop:
    """Write the shop into an empty folder."""
    made = Shop(folder)
    draw = random.Random(7)
    items = make_items()
    events, judgments = make_events(items, draw), make_judgments(items, draw, made.flipped)
    plant_bad_rows(items, events, judgments, made)
    tables = {"items": items, "events": events, "judgments": judgments, **make_offers(items, made)}
    for name, rows in tables.items():
        write_csv(made.folder / f"{name}.csv", rows)
    return made


def make_purchases(shop: Shop, folder: Path) -> None:
    """Write a shop into an empty folder that knows of purchases and nothing else: what was clicked without a query."""
    with (shop.folder / "events.csv").open(encoding="utf-8") as file:
        clicks = [row for row in csv.DictReader(file) if row["action"] == "click" and not row["query"]]
    names = ("event_id", "occurred_at", "user_id", "item_id")
    bought = [{**{name: row[name] for name in names}, "action": "purchase"} for row in clicks]
    write_csv(folder / "events.csv", bought)
    (folder / "items.csv").write_text((shop.folder / "items.csv").read_text())


def ecom(*arguments: object, home: Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own, which need not load the libraries anew."""
    command = [*map(str, arguments), "--home", str(home)]
    unset = ("ECOM_HOME", "ECOM_SOURCE", "DAGSTER_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        asked = {"arguments": command, "environment": environment, "out": str(out), "err": str(err), "timeout": 500}
        with _ONE_AT_A_TIME:
            process = _warm()
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
        result = subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())
    assert not check or code == 0, result.stderr[-3000:]
    return result


_ONE_AT_A_TIME = threading.Lock()


@cache
def _warm() -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tests" / "warm.py")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@dataclass(frozen=True)
class Finished:
    """A home in which a run has been finished, and what it printed."""

    home: Path
    output: str
