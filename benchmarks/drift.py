"""How often is an ordinary day told as unusual, and how large a change is not missed?

    python benchmarks/drift.py [--source NAME | NAME:FOLDER] [--step 10]

A source is what the pipeline takes; Complete Journey, the default, has a year. Nothing is planted for the false alarms: each
day is compared with the 56 before it, and those beyond the threshold are listed, holidays too. Changes are planted in every
`step`th day that can be judged, in the cleaned events themselves, and the day is counted again; usual and spread are those of the
untouched past. Of items that are withdrawn, the events are put among the rejected ones, as cleaning has it.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from next_visit import cleaned

from ecom_pipeline.watching import figures
from ecom_pipeline.watching.drift import SCALES, Limits, judged

THRESHOLDS = (4, 5, 6, 8)
EVERY_DAY = "select unnest(generate_series(min(day), max(day), interval 1 day))::date from cleaned_interactions"
KEPT = "select * exclude (draw) from planted_from where true"
# name: by size, the query for the days' events, and one for the items whose events are rejected
CHANGES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "events lost": {f"{size}%": (f"{KEPT} and draw >= {size}", "false") for size in (10, 20, 30, 40, 50, 70)},
    "events twice (an action doubled)": {
        f"{size}%": (f"{KEPT} union all {KEPT} and draw < {size}", "false") for size in (20, 50, 100)
    },
    "prices in cents": {
        f"{size}% of rows": (
            f"select * exclude (draw) replace (if(draw < {size}, price * 100, price) as price) from planted_from",
            "false",
        )
        for size in (5, 10, 20, 50, 100)
    },
    "prices up": {
        f"{size}%": (f"select * exclude (draw) replace (price * {1 + size / 100} as price) from planted_from", "false")
        for size in (5, 10, 20, 30, 50)
    },
    "items withdrawn": {
        f"{size}% of items": (f"{KEPT} and hash(item_id) % 1000 >= {size * 10}", f"hash(item_id) % 1000 < {size * 10}")
        for size in (0.5, 1, 2, 5, 10)
    },
    "users missing": {
        f"{size}% of rows": (
            f"select * exclude (draw) replace (if(draw < {size}, null, user_id) as user_id) from planted_from",
            "false",
        )
        for size in (1, 2, 5, 10)
    },
}


def told_days(db: duckdb.DuckDBPyConnection) -> None:
    """The days beyond each threshold, when nothing was planted."""
    for threshold in THRESHOLDS:
        db.execute(f"create or replace table drift as {judged('watched', Limits(threshold))}")
        n_told, n_days, n_figures = db.execute(
            """select count(distinct day) filter (verdict = 'unusual'), count(distinct day),
                count(*) from drift where verdict <> 'too early'"""
        ).fetchall()[0]
        days = db.execute("select distinct day::varchar from drift where verdict = 'unusual' order by 1").fetchall()
        named = ", ".join(day for (day,) in days)
        print(f"  threshold {threshold}: {n_told} of {n_days} days told, of {n_figures} figures; {named}", flush=True)


def found(db: duckdb.DuckDBPyConnection, planted: str, rejected: str) -> tuple[int, int, str]:
    """Days that are told, of days that a change was planted in, and which figure tells most of them."""
    db.execute(f"create or replace table planted as {planted}")
    db.execute(
        f"""create or replace table planted_rejected as select source, day from rejected_rows semi join test_days using (day)
        union all select 'events', day from planted_from where {rejected}"""
    )
    db.execute(f"create or replace table counted {figures.VALUES}")
    figures.of_days(db, "from test_days", into="counted", events="planted", rejected="planted_rejected")
    scale = " ".join(
        f"when '{kind}' then abs({to.format('c.value')} - {to.format('d.usual')})" for kind, (to, _) in SCALES.items()
    )
    db.execute(
        f"""create or replace table beyond as select d.day, d.figure from counted as c
        join drift as d using (day, figure, part) where case d.kind {scale} end >= {Limits().threshold} * d.spread
            and d.figure not like 'new %'  -- what is new asks for the days between, which are not planted in"""
    )
    (n_told,) = db.execute("select count(distinct day) from beyond").fetchall()[0]
    (n_days,) = db.execute("select count(*) from test_days").fetchall()[0]
    first = db.execute("select figure from beyond group by 1 order by count(distinct day) desc, 1 limit 1").fetchall()
    return n_told, n_days, first[0][0] if first else "none"


def main() -> None:
    """Both halves, printed."""
    parser = argparse.ArgumentParser(description="False alarms and planted changes.")
    parser.add_argument("--source", default="complete-journey")
    parser.add_argument("--step", type=int, default=10)
    args = parser.parse_args()
    with cleaned(args.source) as db:
        db.execute(f"create table watched {figures.VALUES}")
        began = time.perf_counter()
        figures.of_days(db, EVERY_DAY, into="watched")
        every = time.perf_counter() - began
        (last,) = db.execute("select max(day) from cleaned_interactions").fetchall()[0]
        began = time.perf_counter()
        db.execute(f"create temp table one {figures.VALUES}")
        figures.of_days(db, f"select date '{last}'", into="one")
        print(f"{args.source}: counted in {every:.1f} s, the last day alone in {time.perf_counter() - began:.2f} s")
        told_days(db)
        db.execute(f"create or replace table drift as {judged('watched', Limits())}")
        db.execute(
            f"""create table test_days as select day from (
                select day, row_number() over (order by day) as n from (select distinct day from drift
                    where verdict <> 'too early' and day not in (select day from drift where verdict = 'unusual')))
            where n % {args.step} = 0"""
        )
        db.execute(
            """create table planted_from as select *, hash(event_id) % 100 as draw from cleaned_interactions
            semi join test_days using (day)"""
        )
        for name, sizes in CHANGES.items():
            for size, (planted, rejected) in sizes.items():
                n_told, n_days, first = found(db, planted, rejected)
                print(f"  {name}, {size}: {n_told} of {n_days} days told, most by {first}", flush=True)


if __name__ == "__main__":
    main()
