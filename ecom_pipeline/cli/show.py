"""Commands that read what a run has made."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecom_pipeline import ledger
from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, enter, finished, tell, writing
from ecom_pipeline.errors import InputError
from ecom_pipeline.schema.samples import SuspectOrder
from ecom_pipeline.sources import landing
from resources.writer import one_writer

if TYPE_CHECKING:
    import pandas as pd


@app.command()
def report(home: HomeOption = DEFAULT_HOME) -> None:
    """Print the results of the last run, and where the page lies."""
    enter(home)
    from ecom_pipeline import definitions

    tell(definitions.HOME, definitions.WAREHOUSE)


@app.command(name="forget-file")
def forget_file(
    file: Annotated[str, typer.Argument(help="Its path below the source's folder, as rejected_rows has it.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Take the rows of a file that is gone from the source out of the home, for good; the next run makes the rest so."""
    from assets.ingest import TABLES

    with finished(home, "landed_files") as db, one_writer(home.expanduser(), "`ecom forget-file`"):
        db.begin()
        gone = landing.forget(db, file)
        for asset, tables in TABLES.items():
            if gone.keys() & set(tables):
                ledger.forget(db, asset)
        db.commit()
    print(", ".join(f"{n_rows} {table} of {file!r} are forgotten" for table, n_rows in gone.items()))


@app.command()
def recommend(
    home: HomeOption = DEFAULT_HOME,
    user: Annotated[
        str, typer.Option(help="The shop's id of a user, or its hash: what to show on the next visit.")
    ] = "",
    item: Annotated[str, typer.Option(help="An item_id: what is like it.")] = "",
    top: Annotated[int, typer.Option(help="How many.", min=1)] = 10,
) -> None:
    """Print a user's list for the next visit with reasons, or the items that are like an item."""
    from ecom_pipeline.report import lists

    if bool(user) == bool(item):
        raise InputError(
            f"recommend: {2 if user else 0} of --user and --item are given; first: {user!r}. Exactly 1 must be: say whose "
            "list, or which item's."
        )
    with finished(home, "similar_items" if item else "recommendations") as db:
        if item:
            title, rows = lists.alike(db, item, top)
            print(f"{title} ({item}): {len(rows)} items are like it")
        else:
            rows = _list_of(db, user, top)
    for row in rows.itertuples():
        print(f"{row.rank:>4}  {row.score:.3f}  {row.item_id:<14} {row.title[:60]:<60}  {row.reason}")


def _list_of(db: Any, user: str, top: int) -> "pd.DataFrame":
    from ecom_pipeline import definitions
    from ecom_pipeline.recommend.lists import NEW_VISITOR
    from ecom_pipeline.report import lists
    from ecom_pipeline.sources.people import keyed_hash

    hashed = keyed_hash(user, definitions.hash_key_of(definitions.HOME))
    found = lists.known_user(db, [hashed, user])
    if found is None:
        print(
            f"{user!r} has no list: nothing was taken that is ranked, or all that could be shown is withdrawn. New visitors are shown this"
        )
    return lists.list_of(db, found or NEW_VISITOR, top)


@app.command()
def suspects(
    home: HomeOption = DEFAULT_HOME,
    top: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
    csv: Annotated[Path | None, typer.Option(help="Write them to this file instead.")] = None,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask",
            help="List what to have judged next instead: the pairs whose label teaches most, those that models find least "
            "sure, 2p(1 - p); pairs that no rater has judged, only searched for, are marked so.",
        ),
    ] = False,
    order: Annotated[
        SuspectOrder,
        typer.Option(
            help="probability: flagged ones first, then as models see it that know nothing of the query. worth: the other "
            "labels of the query are looked at too, which finds more wrong labels in as many answers.",
        ),
    ] = "probability",
    interactions: Annotated[
        bool,
        typer.Option(
            "--interactions",
            help="List acts instead that are probably not their user's own: a stranger's, a bot's or a reseller's, or told "
            "twice by a tracker, each with the reason. Worked out when it is asked for, from all acts: minutes.",
        ),
    ] = False,
) -> None:
    """List the training samples that are most likely mislabelled and not yet answered, with text, label, score and why."""
    from ecom_pipeline.report import doubts
    from ecom_pipeline.samples import require_samples

    if interactions:
        _suspect_acts(home, top, csv, others=ask or order != "probability")
        return
    with finished(home, "label_suspicions") as db:
        require_samples(db)
        found = doubts.to_ask(db, top) if ask else doubts.suspects(db, top, order)
    if csv:
        writing(csv, lambda: found.to_csv(csv, index=False))
        print(f"{len(found)} samples: {csv}")
        return
    for row in found.itertuples():
        if ask:
            told = f"{row.expected_gap:.3f}  {row.sample_id}  {f'judged {row.label:g}' if row.judged else 'not judged'}"
            why = f"models that did not see it give label 1 a chance of {row.oof_score:.0%}"
        else:
            chance = row.worth_of_asking if order == "worth" else row.wrong_probability
            told, why = f"{chance:.3f}  {row.sample_id}  label {row.label:g}", row.why
        print(f"{told}\n       {row.context_text[:110]}\n       -> {row.title[:100]}\n       {why}")


def _suspect_acts(home: Path, top: int, csv: Path | None, *, others: bool) -> None:
    if others:
        raise InputError(
            "suspects: 2 kinds of list are asked for; first: --interactions. It stands alone, or with --top and --csv: "
            "leave --ask and --order out."
        )
    with finished(home, "learning_periods") as db:
        from assets.recommend import n_items_of
        from ecom_pipeline.recommend.catalogue import read_shop
        from ecom_pipeline.recommend.genuineness.suspicion import suspect_acts

        found = suspect_acts(db, read_shop(db, n_items_of(db)), top)
    if csv:
        writing(csv, lambda: found.to_csv(csv, index=False))
        print(f"{len(found)} acts: {csv}")
        return
    for row in found.itertuples():
        print(
            f"{row.doubt:.3f}  {row.kind:<11}{row.event_id}  {row.day:%Y-%m-%d}\n       {row.actor} -> {row.item_id}\n       {row.why}"
        )


@app.command()
def weights(
    export: Annotated[
        Path,
        typer.Option(
            help="Parquet file to write: judged and searched pairs with weights, splits and features, to train with. "
            "Weights of past acts come beside it, in FILE's name with -interactions."
        ),
    ],
    home: HomeOption = DEFAULT_HOME,
    estimator: Annotated[
        str, typer.Option(help="Whose weights; not said: those that the model in use was trained with.")
    ] = "",
) -> None:
    """Write the training weights to Parquet files, with all that another trainer needs; docs/other-trainers.md has examples."""
    from ecom_pipeline.export import weights_in_use, weights_of, weights_of_acts, weights_told
    from ecom_pipeline.samples import has_samples, require_samples

    beside = export.with_name(f"{export.stem}-interactions.parquet")
    written = []
    with finished(home, "interaction_weights") as db:
        acts = weights_of_acts(db)
        if estimator or acts.empty:
            require_samples(db)
        if has_samples(db):
            name = estimator or weights_in_use(db, home.expanduser() / "models")
            pairs = weights_of(db, name)
            n_held_out = int(pairs.sample_weight.isna().sum())
            told = f"{len(pairs) - n_held_out} weights {weights_told(db, name)}, and {n_held_out} pairs held out"
            written.append((export, pairs, told))
    if len(acts):
        written.append((beside, acts, f"{len(acts)} weights of past acts"))
    for path, found, told in written:
        writing(path, partial(found.to_parquet, path, index=False))
        print(f"{told}: {path}")


@app.command()
def estimators() -> None:
    """List every way to value a sample: its name, what it needs to know, and what it answers."""
    from ecom_pipeline.importance.catalogue import ALL

    for one in ALL:
        answer = (type(one).__doc__ or "").split("\n")[0]
        print(f"{one.name:<28}{', '.join(one.needs) or 'labels alone':<24}{answer}")
