"""Are acts that are not their user's own found, and what do lists gain by weighing them down? They are planted.

    python benchmarks/false_interactions.py [--source NAME | NAME:FOLDER] [--kinds strangers bots ...] [--shares 0.05 0.1 0.2]
        [--seeds 0 1] [--lists] [--test 320] [--users N] [--texts FILE]

Kinds: strangers, popular strangers, bots, resellers, doubled month (of its own size). AUROC is over all acts, planted against real; among
the real ones nobody knows what is false, so it is a lower bound.

Lists: from all acts before a test period, planted ones among them; the next visit of each user in the 30 days after it is
judged, untouched. The ranker is own history plus a share of an item-item model; both read weights. Share, and strength of each
weighting (or how many acts are dropped) are chosen on the 28 days before, with plants in history and in what is asked, in the first draw.
T-CE and R-CE (Wang et al. 2021) are a matrix factorisation of 16 factors with their losses; its loss then drops or weighs
acts for the same ranker. Intervals are over users, each with the mean of the draws.
"""

import argparse
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import torch
from next_visit import cleaned
from sklearn.metrics import roc_auc_score

from ecom_pipeline import schema
from ecom_pipeline.language.encoder import encode, load_encoder
from ecom_pipeline.language.models import PACKAGED
from ecom_pipeline.recommend.catalogue import Shop, read_shop
from ecom_pipeline.recommend.genuineness.columns import disagreement
from ecom_pipeline.recommend.genuineness.planting import PLANTED, plant
from ecom_pipeline.recommend.genuineness.recogniser import recognise
from ecom_pipeline.recommend.genuineness.rhythm import doubt_actors, doubt_repeats
from ecom_pipeline.recommend.interactions import Interactions, day_of
from ecom_pipeline.recommend.item_item import history_value, item_item
from ecom_pipeline.recommend.trials import BLENDS, blended_ndcg
from ecom_pipeline.recommend.weighting import rank_share
from ecom_pipeline.sources.source import quoted

KINDS = ("strangers", "popular strangers", "bots", "resellers", "doubled month")
N_ITEMS = 20_000
DROPPED = (0.02, 0.05, 0.1, 0.2)
POWERS = (0.25, 0.5, 1.0, 2.0)


def planted_shop(db: duckdb.DuckDBPyConnection, kind: str, share: float, seed: int, until: int | None) -> Shop:
    """The shop with plants among the acts before a day; the real acts are kept in `real_acts`."""
    db.execute("create or replace table cleaned_interactions as from real_acts")
    if until is not None:
        db.execute(f"delete from cleaned_interactions where day >= '{day_of(until)}'")
    if kind != "none":
        plant(db, kind, share, seed=seed)
    return read_shop(db, N_ITEMS)


def row_truth(db: duckdb.DuckDBPyConnection, acts: Interactions) -> np.ndarray:
    """(n,) share of each row's acts that are planted."""
    rows = db.execute(
        f"""select coalesce(user_id, 'session:' || session_id) as actor, item_id, day - date '1970-01-01' as day,
            avg(starts_with(event_id, '{PLANTED}')::int) as share
        from cleaned_interactions where action <> 'impression' group by all"""
    ).df()
    user, item = np.searchsorted(acts.user_ids, rows.actor), np.searchsorted(acts.item_ids, rows.item_id)
    user, item = np.minimum(user, acts.n_users - 1), np.minimum(item, acts.n_items - 1)
    known = (acts.user_ids[user] == rows.actor) & (acts.item_ids[item] == rows.item_id)
    place = acts.place_in_time(user[known], item[known], rows.day[known].to_numpy())
    order = np.argsort(place)
    found = np.searchsorted(place[order], acts.place_in_time(acts.user, acts.item, acts.day))
    return rows.share[known].to_numpy()[order][found]


def doubts(db: duckdb.DuckDBPyConnection, shop: Shop, seed: int) -> dict[str, np.ndarray]:
    """(n,) doubt of each row of interactions, by detector."""
    acts = shop.acts
    found = recognise(acts, shop.catalogue, seed=100 + seed)
    actors = doubt_actors(db).set_index("actor").doubt.reindex(acts.user_ids).fillna(0).to_numpy()[acts.user]
    again = doubt_repeats(db)
    db.register("again", again)
    rows = db.execute(
        """select coalesce(user_id, 'session:' || session_id) as actor, item_id, day - date '1970-01-01' as day,
            avg(doubt) as doubt from cleaned_interactions join again using (event_id) group by all"""
    ).df()
    db.unregister("again")
    repeats = np.zeros(len(acts))
    if len(rows):
        user = np.minimum(np.searchsorted(acts.user_ids, rows.actor), acts.n_users - 1)
        item = np.minimum(np.searchsorted(acts.item_ids, rows.item_id), acts.n_items - 1)
        place = acts.place_in_time(acts.user, acts.item, acts.day)
        asked = acts.place_in_time(user, item, rows.day.to_numpy())
        at = np.minimum(np.searchsorted(place, asked), len(place) - 1)
        same = place[at] == asked
        repeats[at[same]] = rows.doubt.to_numpy()[same] / 2  # of two acts, one is too many
    together = np.maximum.reduce([found.doubt, actors, repeats])
    return {
        "all detectors": together,
        "recogniser": found.doubt,
        "foretold by the rest": 1 - rank_share(found.columns["foretold"]),
        "disagreement": disagreement(found.columns),
        "rhythm": actors,
        "told twice": repeats,
    }


def factorised(acts: Interactions, loss: str, seed: int, *, epochs: int = 5) -> np.ndarray:
    """(n,) doubt of each row: the loss of its pair in a factorisation whose loss is truncated (T-CE) or reweighted (R-CE)."""
    torch.manual_seed(seed)
    pairs, pair = acts.pairs()
    user, item = (torch.from_numpy(part) for part in np.divmod(pairs, acts.n_items))
    width = 16
    tables = [torch.nn.Parameter(0.1 * torch.randn(n, width)) for n in (acts.n_users, acts.n_items)]
    bias = torch.nn.Parameter(torch.zeros(acts.n_items))
    adam = torch.optim.Adam([*tables, bias], lr=0.02)

    def logit(u: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return (tables[0][u] * tables[1][i]).sum(1) + bias[i]

    size, step, ramp = 16384, 0, 0.2
    n_steps = epochs * (len(pairs) // size + 1)
    for _ in range(epochs):
        for rows in torch.randperm(len(pairs)).split(size):
            u, i = user[rows], item[rows]
            value = torch.cat([logit(u, i), logit(u, torch.randint(acts.n_items, (len(rows),)))])
            label = torch.cat([torch.ones(len(rows)), torch.zeros(len(rows))])
            each = torch.nn.functional.binary_cross_entropy_with_logits(value, label, reduction="none")
            if loss == "T-CE":
                dropped = min(1.0, step / (n_steps * 0.5)) * ramp
                kept = each.detach() <= torch.quantile(each.detach()[: len(rows)], 1 - dropped)
                each = each * torch.where(label == 1, kept, True)
            else:
                p = torch.sigmoid(value.detach())
                each = each * torch.where(label == 1, p, 1 - p) ** 0.2
            adam.zero_grad()
            (
                each.mean() + 1e-5 * sum((t[ids] ** 2).sum(1).mean() for t, ids in zip(tables, (u, i), strict=True))
            ).backward()
            adam.step()
            step += 1
    with torch.no_grad():
        found = torch.cat([-logit(u, i) for u, i in zip(user.split(10**6), item.split(10**6), strict=True)])
    return torch.sigmoid(found).numpy()[pair]


def weightings(doubt: np.ndarray) -> dict[str, np.ndarray]:
    """Ways to weigh by a doubt: nothing, dropped shares, powers of the trust."""
    share = rank_share(-doubt)
    return {
        "none": np.ones(len(doubt)),
        **{f"drop {one:.0%}": (share > one).astype(float) for one in DROPPED},
        **{f"power {one}": (1 - np.clip(doubt, 0, 1 - 1e-6)) ** one for one in POWERS},
    }


def judge(acts: Interactions, weight: np.ndarray, asked: tuple) -> np.ndarray:
    """(blends, v) nDCG@10 of visits."""
    matrix = acts.matrix((acts.n_acts.sum(1) * weight).astype(np.float32))
    value = matrix.copy()
    value.data = history_value(value.data)
    visits, truth = asked
    return blended_ndcg(matrix, item_item(value), visits, truth)


def question(clean: Interactions, acts: Interactions, first: int, end: int) -> tuple:
    """Next visits and what was taken, in the codes of the planted shop."""
    visits = clean.next_visits(first, end)
    at, item = clean.taken(visits)
    user = np.searchsorted(acts.user_ids, clean.user_ids[visits.user])
    code = np.minimum(np.searchsorted(acts.item_ids, clean.item_ids[item]), acts.n_items - 1)
    same = acts.item_ids[code] == clean.item_ids[item]
    at, item = at[same], code[same]
    return type(visits)(user, visits.day), (at, item, np.bincount(at, minlength=len(visits)))


def lists(db: duckdb.DuckDBPyConnection, kind: str, share: float, options: argparse.Namespace) -> None:
    """Gains of every way to weigh over none, and what of the oracle's they are."""
    db.execute("create or replace table cleaned_interactions as from real_acts")
    clean = read_shop(db, N_ITEMS).acts
    test = int(clean.day.min()) + options.test
    valid = test - 28
    draws, chosen = [], {}
    for seed in options.seeds:
        shop = planted_shop(db, kind, share, seed, test)
        acts, truth = shop.acts, row_truth(db, shop.acts)
        asked = question(clean, acts, test, test + 30)
        found = doubts(db, shop, seed)
        ways = {
            "all detectors": found["all detectors"],
            "foretold by the rest": found["foretold by the rest"],
            "disagreement": found["disagreement"],
            "T-CE": factorised(acts, "T-CE", seed),
            "R-CE": factorised(acts, "R-CE", seed),
        }
        if not chosen:
            known = acts.day < valid
            of_valid = acts.only(known)
            asked_then = question(acts, acts, valid, test)
            for name, doubt in ways.items():
                if name in ("T-CE", "R-CE"):
                    kept = [way for way in weightings(doubt) if way.startswith("drop" if name == "T-CE" else "power")]
                else:
                    kept = list(weightings(doubt))
                scores = {
                    way: np.nanmean(judge(of_valid, weightings(doubt)[way][known], asked_then), 1)
                    for way in {*kept, "none"}
                }
                best = max(scores, key=lambda way: scores[way].max())
                chosen[name] = (best, int(scores[best].argmax()))
            chosen["none"] = ("none", int(scores["none"].argmax()))
            print(f"  chosen: { {name: (way, BLENDS[blend]) for name, (way, blend) in chosen.items()} }", flush=True)
        blend = chosen["none"][1]
        figures = {
            "none": judge(acts, np.ones(len(acts)), asked)[blend],
            "oracle": judge(acts, 1 - truth, asked)[blend],
        }
        for name, doubt in ways.items():
            way, own = chosen[name]
            figures[name] = judge(acts, weightings(doubt)[way], asked)[own]
        draws.append(figures)
    mean = {name: np.mean([one[name] for one in draws], 0) for name in draws[0]}
    said = np.isfinite(mean["none"])
    draw = np.random.default_rng(0).multinomial(said.sum(), np.full(said.sum(), 1 / said.sum()), 2000) / said.sum()
    oracle = draw @ (mean["oracle"] - mean["none"])[said]
    print(f"{kind} {share:.0%}: none {mean['none'][said].mean():.4f}, {said.sum()} users, {len(draws)} draws")
    for name in mean:
        if name == "none":
            continue
        gain = draw @ (mean[name] - mean["none"])[said]
        low, high = np.quantile(gain, [0.025, 0.975])
        each = ", ".join(f"{np.nanmean(one[name] - one['none']):+.4f}" for one in draws)
        part = gain.mean() / oracle.mean() if np.quantile(oracle, 0.025) > 0 else float("nan")
        print(
            f"  {name:<24}{gain.mean():+.4f} [{low:+.4f}, {high:+.4f}]  of the oracle's {part:5.0%}  draws {each}",
            flush=True,
        )


def finding(db: duckdb.DuckDBPyConnection, kind: str, share: float, seed: int) -> None:
    """AUROC of every detector."""
    started = time.monotonic()
    shop = planted_shop(db, kind, share, seed, None)
    truth = row_truth(db, shop.acts)
    found = doubts(db, shop, seed)
    whole = truth > 0  # a row told twice is half planted, and is found as a row
    told = "  ".join(f"{name} {roc_auc_score(whole, doubt):.3f}" for name, doubt in found.items())
    print(
        f"{kind} {share:.0%} seed {seed}: {whole.mean():.1%} of {len(whole)} rows; {told}; {time.monotonic() - started:.0f} s",
        flush=True,
    )


def read_texts(db: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Put vectors of the texts of ranked items into `embeddings`; they are made where the file is not there, and kept in it."""
    if not file.is_file():
        query = f"""select distinct item_text from (
            select item_text from items join cleaned_interactions using (item_id) group by all order by count(*) desc
            limit {N_ITEMS}) order by 1"""
        texts = [text for (text,) in db.execute(query).fetchall()]
        found = encode(load_encoder(PACKAGED, 128, "cpu"), texts, 8192).embedding
        pd.DataFrame({"text": texts, "embedding": list(found)}).to_parquet(file)
    schema.EMBEDDINGS.create(db)
    db.execute(f"""
        insert into embeddings by name
        select md5(text) as text_hash, 'benchmark' as encoder_id, embedding, now()::timestamp as embedded_at
        from read_parquet({quoted(file)})""")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="complete-journey")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--lists", action="store_true", help="what lists gain; else: what is found")
    parser.add_argument("--test", type=int, default=320, help="first day of the test, after the first of the data")
    parser.add_argument("--users", type=int, help="of the source, at most: those with the lowest hash")
    parser.add_argument(
        "--texts", type=Path, help="Parquet file of vectors of the items' texts; not said: texts are not read"
    )
    options = parser.parse_args()
    db = cleaned(options.source)
    if options.texts:
        read_texts(db, options.texts)
    some = f"where hash(user_id) in (select distinct hash(user_id) as h from cleaned_interactions order by h limit {options.users})"
    db.execute(f"create table real_acts as from cleaned_interactions {some if options.users else ''}")
    for kind in options.kinds:
        for share in options.shares[:1] if kind == "doubled month" else options.shares:
            if options.lists:
                lists(db, kind, share, options)
            else:
                for seed in options.seeds:
                    finding(db, kind, share, seed)


if __name__ == "__main__":
    main()
