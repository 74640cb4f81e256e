"""Does a model of sequences find what other channels do not? Recall of new items for the next visit, at as many candidates.

    python benchmarks/sequence_channel.py --texts FILE [--source NAME | NAME:FOLDER] [--start 320] [--since 112]
        [--age FORM DAYS] [--epochs 12] [--length 100]

Protocol of `next_visit.py`: the next visit of each user in the 30 days from `--start`; the 28 days before are validation, on
which epochs and shares of channels are chosen; the model learns from visits of the `--since` days before those alone, with all
that was earlier as their history. Acts of one visit stand in one order drawn at random; each is foretold from what was taken
on earlier visits. Items begin from their titles.

Models differ in what counts in the loss: every act; first takings alone; these by age as `--age` says, or by how well the
rest of the history foretells them (0.5 and the rank share, as the item-item model of the pipeline says without the user). `channel` and `channel by age` are
learnt as the pipeline learns them, with a fixed number of epochs.

Together: as many new candidates a visit as the pipeline's channels bring at their defaults, drawn from the channels' lists in
turn. How many come from each is chosen on validation among `SPLITS`, with one channel more and without. Item-kNN is tried as
that channel too: what sequences bring must be more than another list. Intervals are over users.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from false_interactions import read_texts
from next_visit import cleaned

from ecom_pipeline.ranking.intervals import crossed_interval, draws_of
from ecom_pipeline.recommend.best import best_columns
from ecom_pipeline.recommend.catalogue import read_catalogue
from ecom_pipeline.recommend.interactions import Interactions, Visits, read_interactions
from ecom_pipeline.recommend.item_item import Neighbours, history_value
from ecom_pipeline.recommend.metrics import hits, ndcg, recall
from ecom_pipeline.recommend.next_items import fit_next_items, in_order, windows
from ecom_pipeline.recommend.retrieval import Index, evidence, popularity
from ecom_pipeline.recommend.sequence import Histories, SequenceModel, SequenceSettings
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting

DEPTH = 300
SPLITS = {  # parts of the candidates that go together with the history, are popular, are like it in text, are of a sequence
    "today": (150, 100, 30, 0),
    "without text": (150, 130, 0, 0),
    "together": (190, 70, 20, 0),
    "popular": (110, 150, 20, 0),
    "text": (110, 90, 80, 0),
    "a fifth": (120, 80, 24, 56),
    "a third": (100, 67, 20, 93),
    "half": (75, 50, 15, 140),
    "two thirds": (50, 33, 10, 187),
    "sequence for together": (0, 100, 30, 150),
}


@dataclass(frozen=True)
class Asked:
    """Next visits of a period, as of its first day.

    Attributes:
        visits: v of them.
        at, item: (k,) visit and code of everything taken.
        new: (k,) whether the user never had it.
        visit, had: (h,) visit and code of all earlier takings.
        n_items: of the catalogue.
    """

    visits: Visits
    at: np.ndarray
    item: np.ndarray
    new: np.ndarray
    visit: np.ndarray
    had: np.ndarray
    n_items: int

    @classmethod
    def of(cls, acts: Interactions, first: int, end: int) -> "Asked":
        """Of the days from `first` to before `end`."""
        visits = acts.next_visits(first, end)
        at, item = acts.taken(visits)
        visit, row = acts.histories(visits)
        had = acts.item[row]
        new = ~np.isin(at * acts.n_items + item, visit * acts.n_items + had)
        return cls(visits, at, item, new, visit, had, acts.n_items)

    def lists(self, score: np.ndarray, *, new: bool) -> np.ndarray:
        """(v, 300) the best items; `new`: of those that the user never had."""
        if new:
            score = score.copy()
            score[self.visit, self.had] = -np.inf
        return best_columns(score.astype(np.float32), DEPTH)

    def figures(self, top: np.ndarray, *, new: bool) -> np.ndarray:
        """(v, 3) nDCG@10, recall@100 and recall@300; NaN where nothing of the kind was taken."""
        inside = self.new if new else np.ones(len(self.at), bool)
        n = np.bincount(self.at[inside], minlength=len(self.visits))
        hit = hits(top, self.at[inside], self.item[inside], self.n_items)
        return np.column_stack([ndcg(hit[:, :10], n), recall(hit[:, :100], n), recall(hit, n)])

    def reached(self, tops: list[np.ndarray], split: tuple[int, ...], n: np.ndarray) -> np.ndarray:
        """(v,) share of what was new and taken that is among the n first of some channels' lists, taken in turn."""
        found = np.full(len(self.visits), np.nan)
        by_visit = np.argsort(self.at[self.new], kind="stable")
        at, item = self.at[self.new][by_visit], self.item[self.new][by_visit]
        used = [(top, quota) for top, quota in zip(tops, split, strict=True) if quota]
        turn = np.concatenate([(np.arange(top.shape[1]) + 0.5) / quota for top, quota in used])
        order = np.argsort(turn, kind="stable")
        listed = np.concatenate([top for top, _ in used], 1)[:, order]
        for visit in np.unique(at):
            _, first = np.unique(listed[visit], return_index=True)
            reached = listed[visit, np.sort(first)[: n[visit]]]
            found[visit] = np.isin(item[slice(*np.searchsorted(at, [visit, visit + 1]))], reached).mean()
        return found


def interval(value: np.ndarray, user: np.ndarray) -> str:
    """Mean and 95 % interval over users."""
    known = np.isfinite(value)
    times = draws_of(user[known], 0)
    found = crossed_interval((times @ value[known] / times.sum(1))[None], len(np.unique(user[known])))
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


class Study:
    """A shop, the two periods, and channels' scores of the items for the visits of each."""

    def __init__(self, options: argparse.Namespace) -> None:
        db = cleaned(options.source)
        read_texts(db, options.texts)
        (n_items,) = db.execute(
            "select count(*) from (select 1 from cleaned_interactions group by item_id having count(*) >= 10)"
        ).fetchall()[0]
        self.acts = read_interactions(db, n_items)
        text = read_catalogue(db, self.acts.item_ids).text
        assert text is not None
        self.text, self.options = text, options
        form, days = options.age
        self.weighting = UNWEIGHTED if form == "none" else Weighting(form, float(days))
        self.test = int(self.acts.day.min()) + options.start
        self.valid = self.test - 28
        self.asked = {
            "validation": Asked.of(self.acts, self.valid, self.test),
            "test": Asked.of(self.acts, self.test, self.test + 30),
        }
        told = ", ".join(
            f"{name} {len(one.visits)} visits, {one.new.mean():.0%} new" for name, one in self.asked.items()
        )
        print(f"{len(self.acts)} rows, {self.acts.n_users} users, {self.acts.n_items} items; {told}", flush=True)

    def channels(self, part: str, day: int) -> dict[str, np.ndarray]:
        """(v, items) scores."""
        visits, known = self.asked[part].visits, self.acts.before(day)
        recent = popularity(self.acts, visits, days=28)
        binary = known.matrix(np.ones(len(known), np.float32))
        binary.data[:] = 1
        index = Index.fit(self.acts, day, weighting=self.weighting, text=self.text)
        history = known.matrix(index.weights(known, np.full(len(known), day)))
        history.data = history_value(history.data)
        return {
            "together": index.together.scores(history[visits.user]),
            "popularity": np.stack([recent[int(one)] for one in visits.day]),
            "titles": np.asarray(history[visits.user] @ self.text, np.float32) @ self.text.T,
            "item-kNN": Neighbours.fit(binary, 200).scores(binary[visits.user]),
        }

    def weights(self, kind: str, rows: np.ndarray) -> np.ndarray:
        """(n,) of the acts in the order of sequences; 0 before the days that are learnt from."""
        known = self.acts.before(self.valid)
        weight = np.ones(len(known), np.float32)
        pairs, pair = known.pairs()
        if kind != "every act":
            weight[np.r_[False, pair[1:] == pair[:-1]]] = 0  # rows come by user, item and day
        if "age" in kind:
            weight *= self.weighting.by_age(self.valid - known.day)
        if "foretold" in kind:
            wanted = Weighting(evidence="behaviour", evidence_strength=1.0)
            share = evidence(known, pairs, pair, day=self.valid, weighting=wanted, text=None)
            assert share is not None
            weight *= 0.5 + share[pair]
        weight[known.day < self.valid - self.options.since] = 0
        return weight[rows]

    def learnt(self, kind: str) -> dict[str, np.ndarray]:
        """(v, items) scores of a model of sequences, by part."""
        started, length = time.process_time(), self.options.length
        known, later = self.acts.before(self.valid), self.acts.before(self.test)
        rows, histories = in_order(known.user, known, n=known.n_users)
        weight = self.weights(kind, rows)
        new = kind != "every act"
        asked, part = self.asked["validation"], 1 if new else 0

        def score(model: SequenceModel, known: Histories, of: Asked) -> np.ndarray:
            return model.asks(known, of.visits.user) @ model.items.T

        def quality(model: SequenceModel) -> float:
            return float(
                np.nanmean(asked.figures(asked.lists(score(model, histories, asked), new=new), new=new)[:, part])
            )

        settings = SequenceSettings(
            length=length,
            n_epochs=self.options.epochs,
            every=1,
            patience=3,
            temperature=self.options.temperature,
            learning_rate=self.options.rate,
        )
        if kind.startswith("channel"):
            value = self.weighting.as_of(known, self.valid) if "age" in kind else np.ones(len(known), np.float32)
            model = fit_next_items(known, weight=value, text=self.text)
        else:
            model = SequenceModel.fit(
                windows(replace(histories, weight=weight), length + 1, length * 3 // 4),
                self.acts.n_items,
                text=self.text,
                settings=settings,
                quality=quality,
                say=lambda line: print(f"  {kind}: {line}, {time.process_time() - started:.0f} s", flush=True),
            )
        _, of_test = in_order(later.user, later, n=later.n_users)
        print(
            f"{kind}: {model.settings.n_epochs} epochs, {time.process_time() - started:.0f} s of one core", flush=True
        )
        return {"validation": score(model, histories, asked), "test": score(model, of_test, self.asked["test"])}


def together(study: Study, tops: dict[str, dict[str, list[np.ndarray]]], name: str) -> None:
    """What the channels reach with one more and without, at as many candidates a visit."""
    n = {}
    for part, of_part in tops.items():
        first = np.concatenate(
            [top[0][:, :k] for top, k in zip(list(of_part.values())[:3], SPLITS["today"], strict=False)], 1
        )
        first.sort(axis=1)
        n[part] = 1 + (first[:, 1:] != first[:, :-1]).sum(1)
    found: dict[str, dict[str, np.ndarray]] = {}
    for split, parts in SPLITS.items():
        names = ["together", "popularity", "titles", name]
        found[split] = {
            part: study.asked[part].reached([of_part[one][0] for one in names], parts, n[part])
            for part, of_part in tops.items()
        }
    mean = {split: np.nanmean(of["validation"]) for split, of in found.items()}
    without = max((one for one in SPLITS if not SPLITS[one][3]), key=lambda one: mean[one])
    beside = max((one for one in SPLITS if SPLITS[one][3]), key=lambda one: mean[one])
    user = study.asked["test"].visits.user
    print(f"{name}, {n['test'].mean():.0f} new candidates a visit; validation {mean}")
    for one in dict.fromkeys(("today", without, beside)):
        print(f"| {name}: {one} | {interval(found[one]['test'], user)} |")
    for one in dict.fromkeys(("today", without)):
        print(
            f"| {name}: {beside} - {one} | {interval(found[beside]['test'] - found[one]['test'], user)} |", flush=True
        )


def main() -> None:
    """Learn, choose and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="complete-journey")
    parser.add_argument(
        "--texts", type=Path, required=True, help="Parquet file of vectors of titles; made where absent"
    )
    parser.add_argument("--start", type=int, default=320, help="first day of the test, after the first of the data")
    parser.add_argument("--since", type=int, default=112, help="days before validation that are learnt from")
    parser.add_argument(
        "--age", nargs=2, default=("square_root", "24"), metavar=("FORM", "DAYS"), help="none 1: no age"
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--rate", type=float, default=1e-3, help="of learning")
    parser.add_argument("--kinds", nargs="*", default=["channel", "channel by age", "every act", "first by foretold"])
    options = parser.parse_args()
    study = Study(options)
    started = time.monotonic()
    scores = {"validation": study.channels("validation", study.valid), "test": study.channels("test", study.test)}
    print(f"channels: {time.monotonic() - started:.0f} s", flush=True)

    def lists(part: str, score: np.ndarray) -> list[np.ndarray]:
        return [study.asked[part].lists(score, new=new) for new in (True, False)]

    tops = {part: {name: lists(part, score) for name, score in of.items()} for part, of in scores.items()}
    del scores
    asked, told = study.asked["test"], {}

    def show(name: str) -> None:
        of_new, of_all = (
            asked.figures(top, new=new) for top, new in zip(tops["test"][name], (True, False), strict=True)
        )
        told[name] = np.column_stack([of_new, of_all])
        print(f"| {name} | " + " | ".join(interval(column, asked.visits.user) for column in told[name].T) + " |")

    print("| | new nDCG@10 | new recall@100 | new recall@300 | nDCG@10 | recall@100 | recall@300 |")
    for name in tops["test"]:
        show(name)
    together(study, tops, "item-kNN")
    for kind in options.kinds:
        name = f"sequences, {kind}"
        for part, score in study.learnt(kind).items():
            tops[part][name] = lists(part, score)
        show(name)
        for other in ("together", f"sequences, {options.kinds[0]}", "sequences, channel"):
            if other in told and other != name:
                less = (told[name] - told[other]).T
                print(f"| {name} - {other} | " + " | ".join(interval(one, asked.visits.user) for one in less) + " |")
        together(study, tops, name)


if __name__ == "__main__":
    main()
