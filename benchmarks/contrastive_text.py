"""Does tuning the language model on histories bring items into reach that a user never had? Recall of the text channel.

    python benchmarks/contrastive_text.py HOME [--start 320] [--rows 60000] [--epochs 3] [--threads 2]

HOME is a finished home. The last layer above the frozen states is tuned: one map of a history and one of an item, both
beginning as the identity, by the softmax over the whole catalogue of (history, next new item), and a factor for the log of
popularity. A history is the weighted mean of its items' vectors. Three channels get the same rows, epochs and learning
rates, and each stops where validation says: the states as they are (only the two factors are fitted), tuned with all acts
counting alike, and tuned with weights by age in histories and in the loss. Judged by recall@100 of what is new to a household, alone and
beside the 100 best of popularity and of EASE. Learnt from the 84 days before validation, chosen on the 28 days before the test.
"""

import argparse
from pathlib import Path

import duckdb
import numpy as np
import torch

from ecom_pipeline.recommend.baselines import EASE, POPULAR, baseline_scores, tuned
from ecom_pipeline.recommend.catalogue import read_catalogue
from ecom_pipeline.recommend.interactions import Interactions, Visits, read_interactions
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting

AGED = Weighting("hyperbolic", 61.4)
RATES = (1e-3, 3e-3)


class Channel(torch.nn.Module):
    """Scores of every item for histories."""

    def __init__(self, text: np.ndarray, *, maps: bool) -> None:
        super().__init__()
        self.text = torch.from_numpy(text)
        width = text.shape[1]
        self.maps = torch.nn.ParameterList([torch.eye(width), torch.eye(width)]) if maps else None
        self.sharpness = torch.nn.Parameter(torch.tensor(3.0))
        self.popular = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, history: torch.Tensor, popularity: torch.Tensor) -> torch.Tensor:
        """(v, items) from (v, d) and (items,)."""
        items = self.text
        if self.maps is not None:
            history, items = history @ self.maps[0], items @ self.maps[1]
        history = torch.nn.functional.normalize(history, dim=1)
        items = torch.nn.functional.normalize(items, dim=1)
        return self.sharpness.exp() * (history @ items.T) + self.popular * popularity


def histories(acts: Interactions, visits: Visits, text: np.ndarray, weighting: Weighting) -> np.ndarray:
    """(v, d) weighted means of what was taken before each visit."""
    found = np.zeros((len(visits), text.shape[1]), np.float32)
    for rows in visits.blocks(500):
        visit, row = acts.histories(visits.only(rows))
        weight = weighting.as_of(acts.only(row), visits.day[rows][visit])
        np.add.at(found[rows], visit, weight[:, None] * text[acts.item[row]])
    return found


def new_takings(acts: Interactions, visits: Visits) -> tuple[np.ndarray, np.ndarray]:
    """(k,) visit and (k,) item of everything taken that the user had never had before that day."""
    at, item = acts.taken(visits)
    visit, row = acts.histories(visits)
    had = np.unique(visit * acts.n_items + acts.item[row])
    new = ~np.isin(at * acts.n_items + item, had)
    return at[new], item[new]


def reached(lists: np.ndarray, at: np.ndarray, item: np.ndarray, n_visits: int) -> np.ndarray:
    """(v,) share of a visit's new takings that stand in its list; NaN where there are none."""
    n = np.bincount(at, minlength=n_visits)
    hit = np.bincount(at, (lists[at] == item[:, None]).any(1), n_visits)
    return np.where(n > 0, hit / np.maximum(n, 1), np.nan)


def best(scores: np.ndarray, visits: Visits, acts: Interactions, k: int = 100) -> np.ndarray:
    """(v, k) the best items that a user never had."""
    visit, row = acts.histories(visits)
    scores = scores.copy()
    scores[visit, acts.item[row]] = -np.inf
    top = np.argpartition(scores, -k, axis=1)[:, -k:]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable"), 1)


def interval(difference: np.ndarray, seed: int = 0) -> str:
    """Mean and 95 % interval over visits, one a household."""
    known = difference[np.isfinite(difference)]
    draws = np.random.default_rng(seed).integers(len(known), size=(2000, len(known)))
    low, high = np.percentile(known[draws].mean(1), [2.5, 97.5])
    return f"{known.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    """Fit, choose and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("--start", type=int, default=320, help="days after the first of the data")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with duckdb.connect(str(options.home / "warehouse.duckdb")) as db:
        acts = read_interactions(db, 20_000)
        text = read_catalogue(db, acts.item_ids).text
    assert text is not None
    start = int(acts.day.min()) + options.start
    visits = acts.visits(start - 112, start - 28)
    at, item = new_takings(acts, visits)
    drawn = np.sort(np.random.default_rng(0).choice(len(at), min(options.rows, len(at)), replace=False))
    used, place = np.unique(at[drawn], return_inverse=True)
    visits, item = visits.only(used), item[drawn]
    print(f"{len(drawn)} of {len(at)} new takings on {len(visits)} visits to learn from")
    judged = {
        name: acts.next_visits(*days)
        for name, days in (("validation", (start - 28, start)), ("test", (start, start + 30)))
    }
    truth = {name: new_takings(acts, one) for name, one in judged.items()}
    takings = {
        day: np.log1p(np.bincount(acts.item[(acts.day < day) & (acts.day >= day - 28)], minlength=acts.n_items))
        for day in (start - 112, start - 28, start)
    }
    popularity = {day: torch.from_numpy(value.astype(np.float32)) for day, value in takings.items()}
    lists = {}
    for name, weighting, maps in (
        ("frozen", UNWEIGHTED, False),
        ("frozen, weighted histories", AGED, False),
        ("tuned", UNWEIGHTED, True),
        ("tuned, weighted", AGED, True),
    ):
        learnt = torch.from_numpy(histories(acts, visits, text, weighting))
        asked = {which: torch.from_numpy(histories(acts, one, text, weighting)) for which, one in judged.items()}
        weight = torch.from_numpy(
            weighting.as_of(acts_of(acts, visits, place, item), np.full(len(item), start - 28)).astype(np.float32)
        )
        found = []
        for rate in RATES if maps else RATES[:1]:
            torch.manual_seed(0)
            channel = Channel(text, maps=maps)
            slow = [{"params": [channel.sharpness, channel.popular], "lr": 0.01}]
            optimiser = torch.optim.Adam(slow + ([{"params": channel.maps.parameters(), "lr": rate}] if maps else []))
            for epoch in range(options.epochs):
                for rows in torch.randperm(len(item), generator=torch.Generator().manual_seed(epoch)).split(512):
                    logits = channel(learnt[place[rows]], popularity[start - 112])
                    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(item)[rows], reduction="none")
                    optimiser.zero_grad()
                    ((loss * weight[rows]).sum() / weight[rows].sum()).backward()
                    optimiser.step()
                with torch.no_grad():
                    tops = {
                        which: best(channel(asked[which], popularity[day]).numpy(), judged[which], acts)
                        for which, day in (("validation", start - 28), ("test", start))
                    }
                quality = np.nanmean(reached(tops["validation"], *truth["validation"], len(judged["validation"])))
                found.append((quality, tops["test"]))
                print(f"  {name}, rate {rate:g}, epoch {epoch + 1}: validation recall@100 {quality:.4f}", flush=True)
        lists[name] = max(found, key=lambda one: one[0])[1]
    settings = tuned(acts, judged["validation"], start - 28)
    parts = {POPULAR: [], EASE: []}
    for rows, scores in baseline_scores(acts, judged["test"], start, settings=settings, names=(POPULAR, EASE)):
        for name in parts:
            parts[name].append(best(scores[name], judged["test"].only(rows), acts))
    lists |= {name: np.concatenate(tops) for name, tops in parts.items()}
    n = len(judged["test"])
    share = {name: reached(top, *truth["test"], n) for name, top in lists.items()}
    both = np.concatenate([lists[POPULAR], lists[EASE]], 1)
    for name in lists:
        beside = reached(np.concatenate([both, lists[name]], 1), *truth["test"], n)
        more = beside - reached(both, *truth["test"], n)
        print(
            f"{name:<28} recall@100 of new items {np.nanmean(share[name]):.4f}; beside popularity and EASE {interval(more)}"
        )
    for first, second in (
        ("tuned", "frozen"),
        ("tuned, weighted", "tuned"),
        ("tuned, weighted", EASE),
        ("frozen, weighted histories", "frozen"),
    ):
        print(f"{first} less {second}: {interval(share[first] - share[second])}")


def acts_of(acts: Interactions, visits: Visits, place: np.ndarray, item: np.ndarray) -> Interactions:
    """The row of each taking, to be weighed."""
    span = int(acts.day.max()) + 1
    key = (acts.user * acts.n_items + acts.item) * span + acts.day
    wanted = (visits.user[place] * acts.n_items + item) * span + visits.day[place]
    return acts.only(np.searchsorted(key, wanted))


if __name__ == "__main__":
    main()
