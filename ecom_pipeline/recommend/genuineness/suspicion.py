"""Which acts are probably not their user's own, and why: strangers' acts, accounts with a rhythm of their own, acts told twice.

On the floor above `recogniser` and `rhythm`.
"""

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.errors import SampleError
from ecom_pipeline.recommend.catalogue import Shop
from ecom_pipeline.recommend.genuineness.recogniser import Recognised, recognise
from ecom_pipeline.recommend.genuineness.rhythm import AGAIN, doubt_actors, doubt_repeats
from ecom_pipeline.recommend.interactions import Interactions
from ecom_pipeline.samples import TAKEN

KINDS = ("stranger", "rhythm", "told twice")
_AGAINST = {
    "foretold": "what the user takes else foretells it less than {share:.1%} of all acts are foretold",
    "titles": "its title is less like those of the user's other items than {share:.1%} of all acts",
    "class": "the user takes less else of its {division} than the shop's share, by more than in {share:.1%} of all acts",
    "basket": "its {division} fits the rest of the day less than in {share:.1%} of all acts",
    "season": "fewer others took it around that day, against what is usual for it, than in {share:.1%} of all acts",
}
_RHYTHM = {
    "acts a day": "{n_acts:,} acts on {n_days:,} days",
    "items": "{n_acts:,} acts on {n_items:,} different items",
    "pieces": "{pieces:,.1f} pieces an act, in {n_acts:,} acts",
    "hour": "{n_acts:,} acts on {n_days:,} days, most of them at {peak_hour:.0f} o'clock (UTC)",
    "gaps": "{steadiness:.0%} of the gaps between {n_acts:,} acts are the same",
}


def doubt_acts(db: DuckDBPyConnection, shop: Shop, *, seed: int = 0) -> pd.DataFrame:
    """How much each act is doubted, by each detector and by the one that doubts most.

    Args:
        db: a connection to the warehouse.
        shop: the ranked catalogue and what was taken of it; what is not ranked is doubted by rhythm and repeats alone.
        seed: of `recognise`.

    Returns:
        One row an act, by event_id: event_id, actor, item_id, day, occurred_at, stranger, rhythm and told_twice in [0, 1],
        doubt (the largest of them), kind (whose it is) and row (of the shop's interactions, -1 where it is not ranked).

    Raises:
        SampleError: if nothing was taken that is ranked.

    Cost: as `recognise`, `doubt_actors` and `doubt_repeats`, and a join of all acts.
    """
    return _doubted(db, shop, recognise(_some_acts(shop), shop.catalogue, seed=seed))


def suspect_acts(db: DuckDBPyConnection, shop: Shop, top: int, *, seed: int = 0) -> pd.DataFrame:
    """The acts that are doubted most, with a reason for people.

    Args:
        db: as in `doubt_acts`.
        shop: likewise.
        top: how many, at most; of one account told by its rhythm, one act is listed.
        seed: likewise.

    Returns:
        event_id, actor, item_id, day, doubt, kind and why, the most doubtful first.

    Raises:
        SampleError: as `doubt_acts`.
    """
    recognised = recognise(_some_acts(shop), shop.catalogue, seed=seed)
    found = _doubted(db, shop, recognised)
    first = found.sort_values(["doubt", "event_id"], ascending=[False, True], kind="stable")
    shown = first[(first.kind != "rhythm") | ~first.duplicated(["kind", "actor"])].head(top)
    actors = doubt_actors(db).set_index("actor")
    why = []
    for act in shown.itertuples():
        if act.kind == "rhythm":
            of_actor = actors.loc[act.actor]
            why.append(_RHYTHM[of_actor.stands_out].format(**of_actor.to_dict()))
        elif act.kind == "told twice":
            why.append(
                f"the same act again within {AGAIN // 60} minutes; {act.rate:.1%} of its month's acts are, more than in others"
            )
        else:
            why.append(_against(recognised, int(act.row)))
    columns = ["event_id", "actor", "item_id", "day", "doubt", "kind"]
    return shown[columns].assign(why=why).reset_index(drop=True)


def _some_acts(shop: Shop) -> Interactions:
    if not len(shop.acts):
        raise SampleError(
            "interactions: 0 acts are known; first: none. Something must have been clicked, bought or reviewed well: "
            "bring events, then `ecom run`."
        )
    return shop.acts


def _doubted(db: DuckDBPyConnection, shop: Shop, recognised: Recognised) -> pd.DataFrame:
    acts = shop.acts
    db.register(
        "ranked_rows",
        pd.DataFrame(
            {
                "actor": acts.user_ids[acts.user],
                "item_id": acts.item_ids[acts.item],
                "since_1970": acts.day,
                "row": np.arange(len(acts)),
                "stranger": recognised.doubt,
            }
        ),
    )
    db.register("rhythms", doubt_actors(db)[["actor", "doubt"]])
    db.register("repeats", doubt_repeats(db)[["event_id", "rate", "doubt"]])
    try:
        found = db.execute(
            f"""with acts as (
                select event_id, {identity.actor("e")} as actor, item_id, day, occurred_at, day - date '1970-01-01' as since_1970
                from cleaned_interactions as e where {TAKEN})
            select event_id, acts.actor, acts.item_id, day, occurred_at, coalesce(stranger, 0)::double as stranger,
                coalesce(rhythms.doubt, 0) as rhythm, coalesce(repeats.doubt, 0) as told_twice,
                greatest(coalesce(stranger, 0)::double, coalesce(rhythms.doubt, 0), coalesce(repeats.doubt, 0)) as doubt,
                rate, coalesce(row, -1) as row
            from acts left join ranked_rows using (actor, item_id, since_1970) left join rhythms using (actor)
                left join repeats using (event_id) order by event_id"""
        ).df()
    finally:
        for name in ("ranked_rows", "rhythms", "repeats"):
            db.unregister(name)
    kind = found[["stranger", "rhythm", "told_twice"]].to_numpy().argmax(1)
    return found.assign(kind=np.array(KINDS)[kind])


def _against(recognised: Recognised, row: int) -> str:
    """What speaks against an act most, in words."""
    columns, lowest, words = recognised.columns, 2.0, ""
    for name in columns.names:
        about, _, division = name.partition("_")
        if about not in _AGAINST or name == "foretold_for_its_crowd":
            continue
        share = float((columns[name] <= columns[name][row]).mean())
        if share < lowest:
            lowest, words = share, _AGAINST[about].format(share=1 - share, division=division)
    return words
