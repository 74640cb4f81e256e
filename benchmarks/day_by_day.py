"""Does a day cost a day? Seconds, rows and bytes of each new day, by step; and whether days in turn end where a rebuild does.

    python benchmarks/day_by_day.py days [--share 1] [--days 28] [--work DIR] [--rebuild]
    python benchmarks/day_by_day.py lists --home HOME [--days 21] [--every 7 28]
    python benchmarks/day_by_day.py tenfold [--events 200000] [--new 1000] [--days 2] [--work DIR]

`days`: the packaged data as canonical files, all but the last days in one and each of those in its own; one household in
`--share`. `ecom run` fills a home with the first and then runs once a day, with default settings. `--rebuild` runs all files
in an empty home and compares weights and lists.

`lists`: of a home that is there, the lists of its last days as each would have had them: all made anew, and of those alone who came
the day before, with all every so many days; both judged by the day itself. No run is made, so weeks take minutes; the ranker is the
one that serves now, for both.

`tenfold`: the shop of `scale.py` with n events and with ten times as many, by ten times the users; then new days of the same size.
Of each step the least of its days counts.

A run is a process of its own. Its read and written bytes are what it asked of the system, also where a cache answered, and they and
its seconds on processors are those of a step while it ran, to a twentieth of a second. Rows are what a step says that it wrote.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import duckdb  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scale import FIRST, N_DAYS, generated, write  # noqa: E402

from ecom_pipeline import ledger, sources  # noqa: E402
from ecom_pipeline.ranking.intervals import Interval, crossed_interval, draws_of  # noqa: E402
from ecom_pipeline.recommend import lists  # noqa: E402
from ecom_pipeline.recommend.catalogue import read_shop, read_titles, read_withdrawn  # noqa: E402
from ecom_pipeline.recommend.list_maker import ListRules  # noqa: E402
from ecom_pipeline.recommend.metrics import ndcg  # noqa: E402
from ecom_pipeline.recommend.saved import SavedRanker  # noqa: E402
from ecom_pipeline.sources.source import quoted  # noqa: E402

SOURCE = "complete-journey"
LOOK_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
MEASURED = ("seconds", "processors", "read", "written", "rows")


@dataclass(frozen=True, slots=True)
class Look:
    """What a process had used at a moment: seconds on processors, bytes read and written."""

    at: float
    processors: float
    read: int
    written: int


@dataclass(frozen=True, slots=True)
class Run:
    """What one `ecom run` took.

    Attributes:
        total: by name of `MEASURED`, and `home`, bytes of the warehouse's file afterwards.
        steps: the same by step of Dagster; checks are steps too.
    """

    total: dict[str, float]
    steps: dict[str, dict[str, float]]


def measured_run(home: Path, folder: Path, config: Path | None = None) -> Run:
    """One `ecom run`, watched from outside."""
    command = [sys.executable, "-m", "ecom_pipeline.cli", "run", "--home", str(home), "--source", f"canonical:{folder}"]
    command += ["--config", str(config)] if config else []
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ECOM_HASH_KEY": "days", "PYTHONPATH": str(ROOT)}
    began = time.time()
    with (home.parent / f"{home.name}.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
        looks = list(_looks(process))
        if process.returncode:
            raise SystemExit(f"`ecom run` ended with {process.returncode}: see {log.name}")
    last = looks[-1]
    steps = {name: _between(looks, start, end) | {"rows": rows} for name, start, end, rows in _steps(home, began)}
    total = {"seconds": time.time() - began, **asdict(last), "rows": sum(step["rows"] for step in steps.values())}
    total["home"] = (home / "warehouse.duckdb").stat().st_size
    total.pop("at")
    return Run(total, steps)


def _looks(process: subprocess.Popen) -> Iterator[Look]:
    place = Path(f"/proc/{process.pid}")
    yield Look(time.time(), 0, 0, 0)
    while process.poll() is None:
        try:
            told = dict(line.split(": ") for line in (place / "io").read_text().splitlines())
            used = (place / "stat").read_text().rsplit(") ", 1)[1].split()[11:15]
        except OSError:
            continue  # it has just ended
        yield Look(time.time(), sum(map(int, used)) / TICKS, int(told["rchar"]), int(told["wchar"]))
        time.sleep(LOOK_SECONDS)


def _between(looks: list[Look], start: float, end: float) -> dict[str, float]:
    at = [look.at for look in looks]
    told = {"seconds": end - start}
    for name in ("processors", "read", "written"):
        before, after = np.interp([start, end], at, [getattr(look, name) for look in looks])
        told[name] = float(after - before)
    return told


def _steps(home: Path, since: float) -> Iterator[tuple[str, float, float, int]]:
    """Name, start, end and rows of each step that Dagster remembers of runs that were made since then."""
    import dagster as dg

    from assets.watch import rows_and_gpu

    os.environ["DAGSTER_HOME"] = str(home / "dagster")
    kinds = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.ASSET_MATERIALIZATION}
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs():
            rows: dict[str, int] = {}
            for entry in instance.all_logs(run.run_id, of_type=kinds):
                if entry.timestamp < since:
                    continue
                event = entry.get_dagster_event()
                if event.is_step_materialization:
                    rows[event.asset_key.to_user_string()] = rows_and_gpu(event)[0]
                else:
                    seconds = event.step_success_data.duration_ms / 1000
                    yield event.step_key, entry.timestamp - seconds, entry.timestamp, sum(rows.values())
                    rows = {}


# Complete Journey, a day at a time


def write_days(folder: Path, share: int, n_days: int) -> list[tuple[date, str]]:
    """Write all but the last days, and return each of those with the query that writes it."""
    source = sources.find(SOURCE)
    some = f"hash(user_id::varchar) % {share} = 0"
    events = ""
    with duckdb.connect() as db:
        for part in source.adapter.parts(source.folder):
            query = f"select columns(name -> name <> 'row_number') from ({part.query(db)})"
            if part.table == "events":
                # baskets are of one household each; a place in the file is as good an id as any
                events = (
                    f"select 'e' || row_number as event_id, * exclude (row_number) from ({part.query(db)}) where {some}"
                )
                continue
            where = f"where {some}" if part.table == "campaign_users" else ""
            db.execute(f"copy ({query} {where}) to {quoted(folder / f'{part.table}.parquet')}")
        found = db.execute(f"select distinct occurred_at::date from ({events}) order by 1").fetchall()
        days = [day for (day,) in found][-n_days:]
        db.execute(
            f"copy (from ({events}) where occurred_at::date < '{days[0]}') to {quoted(folder / 'events.parquet')}"
        )
    return [(day, f"from ({events}) where occurred_at::date = '{day}'") for day in days]


def warehouse_of(home: Path) -> duckdb.DuckDBPyConnection:
    """Its file, for this process, while no run is going on."""
    return duckdb.connect(str(home / "warehouse.duckdb"))


def kept_lists(home: Path) -> pd.DataFrame:
    """user_id, rank, item_id of the first ten of each list."""
    with warehouse_of(home) as db:
        return db.execute("select user_id, rank, item_id from recommendations where rank <= 10").df()


def ndcg_of(made: pd.DataFrame, taken: pd.DataFrame) -> pd.Series:
    """nDCG@10 by user, of those who came and had a list."""
    hit = made.merge(taken.assign(hit=True), how="left", on=["user_id", "item_id"])
    users = np.intersect1d(made.user_id, taken.user_id)
    table = hit[hit.hit.eq(True)].pivot_table(index="user_id", columns="rank", values="hit", aggfunc="any")
    table = table.reindex(index=users, columns=range(1, 11)).eq(True)
    n_taken = taken.groupby("user_id").size().reindex(users)
    return pd.Series(ndcg(table.to_numpy(bool), n_taken.to_numpy()), index=users)


def overlap(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Share of the first ten that two sets of lists have in common, on average over users who have both."""
    both = one.merge(other, on=["user_id", "item_id"]).groupby("user_id").size()
    size = other.groupby("user_id").size()
    users = np.intersect1d(one.user_id, other.user_id)
    return float((both.reindex(users).fillna(0) / size.reindex(users)).mean())


def paired(difference: pd.DataFrame) -> Interval:
    """The mean over visits, users drawn with all their visits; columns user_id and value."""
    by_user = difference.groupby("user_id").value.agg(["sum", "size"])
    draws = draws_of(np.arange(len(by_user)), seed=0)
    drawn = (draws @ by_user["sum"].to_numpy()) / (draws @ by_user["size"].to_numpy())
    return crossed_interval(drawn[None], len(by_user))


def day_after_day(options: argparse.Namespace, work: Path) -> None:
    """Fill a home, run each day, and compare with a rebuild."""
    folder, home, kept = work / f"shop-{options.share}", work / f"home-{options.share}", work / f"{options.share}.json"
    folder.mkdir(parents=True, exist_ok=True)
    days = write_days(folder, options.share, options.days)
    told: dict = json.loads(kept.read_text()) if kept.is_file() else {"first": None, "days": {}}
    for day, query in days[: len(told["days"])]:
        _add(folder, day, query)
    if not told["first"]:
        told["first"] = asdict(measured_run(home, folder))
        kept.write_text(json.dumps(told))
        print(f"first run: {told['first']['total']['seconds']:.0f} s", flush=True)
    for day, query in days[len(told["days"]) :]:
        _add(folder, day, query)
        run = measured_run(home, folder)
        told["days"][str(day)] = asdict(run)
        kept.write_text(json.dumps(told))
        print(f"{day}: {_line(run.total)}", flush=True)
    _tell_days(told)
    if options.rebuild:
        fresh = work / f"rebuilt-{options.share}"
        run = measured_run(fresh, folder)
        print(f"\nrebuilt: {_line(run.total)}")
        _tell_distance(home, fresh)


def _add(folder: Path, day: date, query: str) -> None:
    with duckdb.connect() as db:
        target = folder / f"events-{day}.parquet"
        if not target.exists():
            db.execute(f"copy ({query}) to {quoted(target)}")


def _line(total: dict[str, float]) -> str:
    return (
        f"{total['seconds']:.1f} s, {total['processors']:.1f} s on processors, {total['rows']:,.0f} rows, "
        f"read {total['read'] / 1e6:,.0f} MB, wrote {total['written'] / 1e6:,.0f} MB, home {total['home'] / 1e6:,.0f} MB"
    )


def _tell_days(told: dict) -> None:
    runs = list(told["days"].values())
    names = {name: None for run in runs for name in run["steps"]}
    table = pd.DataFrame(
        {
            name: {what: np.median([run["steps"].get(name, {}).get(what, 0) for run in runs]) for what in MEASURED}
            for name in names
        }
    ).T.sort_values("processors", ascending=False)
    print("\nmedian day, by step\n", _shown(table.head(25)), sep="")
    for what in MEASURED:
        of_days = np.array([run["total"][what] for run in runs])
        print(f"{what}: median {np.median(of_days):,.1f}, from {of_days.min():,.1f} to {of_days.max():,.1f}")


def _tell_distance(home: Path, fresh: Path) -> None:
    """How far a home is from one that was made at once."""
    with duckdb.connect() as db:
        for name, one in (("kept", home), ("fresh", fresh)):
            db.execute(f"attach {quoted(one / 'warehouse.duckdb')} as {name} (read_only)")
        factors = db.execute("describe kept.interaction_weights").df().column_name[1:]
        apart = ", ".join(f"max(abs(a.{one} / nullif(b.{one}, 0) - 1)) as {one}" for one in factors)
        joined = "kept.interaction_weights as a full join fresh.interaction_weights as b using (event_id)"
        print(
            db.execute(
                f"select count(*) as n, count(*) - count(a.{factors[0]} + b.{factors[0]}) as n_alone, {apart} from {joined}"
            )
            .df()
            .T
        )
        for name in ("item_index", "similar_items", "cleaned_interactions", "recommendations"):
            columns = [one for one in db.execute(f"describe fresh.{name}").df().column_name if one != "cleaned_at"]
            rows = [f"(select {', '.join(columns)} from {one}.{name})" for one in ("kept", "fresh")]
            (n,) = db.execute(f"select count(*) from ({rows[0]} except all {rows[1]})").fetchall()[0]
            print(f"{name}: {n} rows are not in the rebuilt home")
    print(f"overlap@10 with the rebuilt home {overlap(kept_lists(home), kept_lists(fresh)):.4f}")


def replayed_lists(options: argparse.Namespace, work: Path) -> None:
    """Judge lists of touched users beside lists of all, day by day, with what a home knows."""
    from assets.recommend import n_items_of, tomorrow

    home = options.home
    with warehouse_of(home) as db:
        saved = SavedRanker.read(home / "rankers" / ledger.entries(db, "ranker")[ledger.WHOLE].content)
        shop, end = read_shop(db, n_items_of(db), divisions=saved.divisions), tomorrow(db)
        told = {
            name: read(db, shop.acts.item_ids)
            for name, read in (("titles", read_titles), ("withdrawn", read_withdrawn))
        }
    acts = shop.acts
    kept: dict[int, pd.DataFrame] = {}
    judged, shared = [], []
    for nth, day in enumerate(range(end - options.days, end)):
        known = acts.user_ids[np.unique(acts.user[acts.day < day])]
        rows = lists.make(shop, saved, day, rules=ListRules(), n_users=100_000, **told)
        full = rows.loc[(rows["rank"] <= 10) & rows.user_id.isin(known), ["user_id", "rank", "item_id"]]
        came = acts.user_ids[np.unique(acts.user[acts.day == day - 1])]
        here = acts.only(acts.day == day)
        taken = pd.DataFrame({"user_id": acts.user_ids[here.user], "item_id": acts.item_ids[here.item]})
        found = {0: ndcg_of(full, taken)}
        for every in options.every:
            if nth % every == 0:
                kept[every] = full
            old, new = kept[every], full[full.user_id.isin(came) | ~full.user_id.isin(kept[every].user_id)]
            kept[every] = pd.concat([old[~old.user_id.isin(new.user_id)], new])
            found[every] = ndcg_of(kept[every], taken)
            shared.append((every, overlap(kept[every], full), len(new) / len(full)))
        judged.append(pd.DataFrame(found).rename_axis("user_id").reset_index())
        print(f"day {nth + 1} of {options.days}: {len(found[0])} users came", flush=True)
    table = pd.concat(judged, ignore_index=True)
    print(f"{len(table)} visits of {table.user_id.nunique()} users on {options.days} days")
    print(f"all lists, every day: nDCG@10 {paired(table.assign(value=table[0]))}")
    of = pd.DataFrame(shared, columns=["every", "overlap", "made"]).groupby("every")
    for every in options.every:
        less = paired(table.assign(value=table[every] - table[0]))
        mean, worst = of.mean().loc[every], of.overlap.min().loc[every]
        print(
            f"all every {every} days: {mean.made:.1%} of lists made a day, overlap@10 {mean.overlap:.3f}, on the worst day "
            f"{worst:.3f}; nDCG@10 less that of all lists {less.value:+.5f} [{less.low:+.5f}, {less.high:+.5f}]"
        )


# a generated shop and one ten times as large


def tenfold(options: argparse.Namespace, work: Path) -> None:
    """New days of one size beside n and ten n events, and their ratio by step."""
    config = work / "quick.yaml"
    # what is learnt before does not matter here
    config.write_text(
        "ops:\n  interaction_trials: {config: {n_trials: 2, n_processes: 1}}\n"
        "  ranker: {config: {n_visits: 500, n_asked: 500, n_rows: 20000, leaves: [15], rounds: [100], n_processes: 1}}\n"
    )
    best = {}
    for n in (options.events, 10 * options.events):
        folder, home, kept = work / f"made-{n}", work / f"made-home-{n}", work / f"made-{n}.json"
        folder.mkdir(parents=True, exist_ok=True)
        runs = json.loads(kept.read_text()) if kept.is_file() else []
        with duckdb.connect() as db:
            if not runs:
                write(db, folder, n, options.items)
                runs.append(asdict(measured_run(home, folder, config)))
                kept.write_text(json.dumps(runs))
            print(f"{n:,} events: {_line(runs[0]['total'])}", flush=True)
            for nth in range(len(runs) - 1, options.days):
                more = generated(options.new, options.items, n, str(N_DAYS + nth))
                day = FIRST + timedelta(days=N_DAYS + nth)
                # ids and users go on from the day before
                query = f"select * replace (event_id || '-{nth}' as event_id) from ({more})"
                db.execute(f"copy ({query}) to {quoted(folder / f'events-{day}.parquet')}")
                runs.append(asdict(measured_run(home, folder, config)))
                kept.write_text(json.dumps(runs))
                print(f"  day {nth + 1}: {_line(runs[-1]['total'])}", flush=True)
        best[n] = _least(runs[1 : options.days + 1])
    small, large = best.values()
    print(f"\na day of {options.new:,} events beside {options.events:,} and ten times as many, by step\n")
    print(_shown_ratios(small, large))


def _least(runs: list[dict]) -> pd.DataFrame:
    found = [pd.DataFrame({**run["steps"], "whole run": run["total"]}).T[list(MEASURED)] for run in runs]
    return pd.concat(found).groupby(level=0).min()


def _shown(table: pd.DataFrame) -> str:
    told = table.assign(read=table.read / 1e6, written=table.written / 1e6).rename(
        columns={"read": "read_mb", "written": "written_mb"}
    )
    return told.to_string(float_format=lambda value: f"{value:,.1f}")


def _shown_ratios(small: pd.DataFrame, large: pd.DataFrame) -> str:
    """A table in Markdown: both sizes, and how many times the small one the large one is."""
    order = large.sort_values("processors", ascending=False).index
    head = " | ".join(f"{name}, n | 10 n | times" for name in ("s on processors", "MB read", "MB written", "rows"))
    lines = [f"| step | {head} |", "|---|" + "---:|" * 12]
    for name in order:
        cells = []
        for what in ("processors", "read", "written", "rows"):
            one, ten = (table[what].get(name, 0.0) for table in (small, large))
            scale, form = {"processors": (1, ",.2f"), "rows": (1, ",.0f")}.get(what, (1e6, ",.1f"))
            cells += [format(one / scale, form), format(ten / scale, form), f"{ten / one:.1f}" if one else ""]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["days", "lists", "tenfold"])
    parser.add_argument("--share", type=int, default=1, help="One household in so many.")
    parser.add_argument("--days", type=int, help="28; 21 of a home; 2 of a generated shop.")
    parser.add_argument("--home", type=Path, help="Of `lists`.")
    parser.add_argument(
        "--every", type=int, nargs="+", default=[7, 28], help="Days until all lists are made, of `lists`."
    )
    parser.add_argument("--rebuild", action="store_true", help="Compare with a home that is made at once.")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--new", type=int, default=1_000, help="Events of a new day of a generated shop.")
    parser.add_argument(
        "--work", type=Path, help="Folder to work in and to keep, and to go on in; not said: one that goes."
    )
    options = parser.parse_args()
    options.days = options.days or {"days": 28, "lists": 21, "tenfold": 2}[options.what]
    with tempfile.TemporaryDirectory() as own:
        work = (options.work or Path(own)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        {"days": day_after_day, "lists": replayed_lists, "tenfold": tenfold}[options.what](options, work)


if __name__ == "__main__":
    main()
