"""The next item of 22,363 users among 12,101: Amazon Beauty as papers on sequences cut it, where figures are published.

    python benchmarks/amazon_beauty.py ../shared/data/amazon_beauty [--text FILE.npy] [--processes 2] [--epochs 100]

Leave-one-out: each user's last item is the test, the one before it validation, on which everything is chosen; lists are of the
whole catalogue without what the user has had. The test is looked at once, at the end; its histories hold the validation item.
Models learn without the validation items; `learnt again` then learns as many epochs as validation chose, with them, and takes
the share that validation chose: a model that serves learns from all that is known. Which of both the published models did is
not known for each of them. Intervals are over users. `--text` keeps vectors of the titles between calls.

Weights of acts in the loss of the sequence model: `recent` halves every eight steps back from a user's last; `foretold` is 0.5
plus the rank share of what item-kNN says of an act from the rest of the user's history. Each has the unweighted twin's settings
and seed. A hybrid adds the scores of item-kNN, standardised within the user, by a share.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import duckdb
import numpy as np
import scipy.sparse as sparse

sys.path.insert(0, str(Path(__file__).parents[1]))

from ecom_pipeline.recommend.item_item import Neighbours, RidgeByItems
from ecom_pipeline.recommend.sequence import Histories, SequenceModel, SequenceSettings
from ecom_pipeline.recommend.weighting import rank_share

PUBLISHED = {"SASRec with sampled softmax": (0.0531, 0.0921), "eSASRec": (0.0523, 0.0928)}
AGAIN = ("unweighted", "foretold")  # kinds of weight whose models learn again, with the validation items
N_LOOKED = 6000  # users of validation by whom an epoch is judged
Scores = Callable[[Histories, np.ndarray], np.ndarray]  # histories and users to (users, items)


class Beauty:
    """The data: histories that are learnt from, those of the test, and both targets."""

    def __init__(self, folder: Path) -> None:
        rows = duckdb.sql(
            f"select user_id - 1 as user, item_id - 1 as item, step from '{folder}/sequences.parquet' order by 1, 3"
        ).fetchnumpy()
        user, item, step = (np.asarray(rows[name], np.int64) for name in ("user", "item", "step"))
        self.n_users, self.n_items = int(user.max()) + 1, int(item.max()) + 1
        back = np.bincount(user)[user] - step
        self.learnt = Histories.of(user[back > 1], item[back > 1], n_users=self.n_users)
        self.known = Histories.of(user[back > 0], item[back > 0], n_users=self.n_users)
        self.validation, self.test = item[back == 1], item[back == 0]
        self.titles = (
            duckdb.sql(f"select coalesce(title, '') as t from '{folder}/items.parquet' order by item_id")
            .fetchnumpy()["t"]
            .tolist()
        )

    def matrix(self, histories: Histories, fade: float = 1.0) -> sparse.csr_matrix:
        """(users, items); an act weighs `fade` to the power of how many came after it."""
        length = np.diff(histories.start)
        user = np.repeat(np.arange(self.n_users), length)
        back = length[user] - 1 - (np.arange(len(user)) - histories.start[user])
        shape = (self.n_users, self.n_items)
        return sparse.csr_matrix(((fade**back).astype(np.float32), (user, histories.item)), shape=shape)


def figures(data: Beauty, scores: Scores, part: str, users: np.ndarray | None = None) -> np.ndarray:
    """(users, 2) nDCG@10 and recall@10."""
    histories, target = (data.learnt, data.validation) if part == "validation" else (data.known, data.test)
    users = np.arange(data.n_users) if users is None else users
    found = []
    for begin in range(0, len(users), 1000):
        some = users[begin : begin + 1000]
        table = np.array(scores(histories, some), np.float32)
        for row, user in enumerate(some):
            table[row, histories.item[histories.start[user] : histories.start[user + 1]]] = -np.inf
        rank = (table > table[np.arange(len(some)), target[some]][:, None]).sum(1)
        found.append(np.column_stack([np.where(rank < 10, 1 / np.log2(rank + 2), 0), rank < 10]))
    return np.concatenate(found)


def titles_read(data: Beauty, kept: Path | None) -> np.ndarray:
    """(items, d) unit vectors of the titles by the default language model."""
    if kept and kept.is_file():
        return np.load(kept)
    from ecom_pipeline.language.encoder import encode, load_encoder

    found = encode(load_encoder("all-MiniLM-L6-v2", 64, "cpu"), data.titles, 4096).embedding
    if kept:
        np.save(kept, found)
    return found


def weights_of(data: Beauty, histories: Histories, kind: str) -> np.ndarray:
    """(n,) of the acts that are learnt from."""
    length = np.diff(histories.start)
    user = np.repeat(np.arange(data.n_users), length)
    if kind == "recent":
        return (0.5 ** ((length[user] - 1 - (np.arange(len(user)) - histories.start[user])) / 8)).astype(np.float32)
    if kind == "foretold":
        matrix = data.matrix(histories)
        model, found = Neighbours.fit(matrix, 200), np.empty(len(user), np.float32)
        for begin in range(0, data.n_users, 500):
            rows = slice(histories.start[begin], histories.start[min(begin + 500, data.n_users)])
            table = model.scores(matrix[begin : begin + 500])  # an item does not speak for itself
            found[rows] = table[user[rows] - begin, histories.item[rows]]
        return 0.5 + rank_share(found)
    return np.ones(len(user), np.float32)


def learnt(
    folder: Path, text: np.ndarray | None, kind: str, n_epochs: int, *, again: bool = False
) -> tuple[SequenceModel, float]:
    """A sequence model, and the seconds that it took; `again`: of all but the test, without a look at anything."""
    import torch

    torch.set_num_threads(1)
    data = Beauty(folder)
    acts = data.known if again else data.learnt
    histories = Histories(acts.item, acts.start, weights_of(data, acts, kind))
    looked = np.random.default_rng(0).permutation(data.n_users)[:N_LOOKED]
    name = f"{'ids and titles' if text is not None else 'ids'}, {kind}"

    def quality(model: SequenceModel) -> float:
        return float(figures(data, of_sequences(model), "validation", looked)[:, 0].mean())

    started = time.monotonic()
    model = SequenceModel.fit(
        histories,
        data.n_items,
        text=text,
        settings=SequenceSettings(n_epochs=n_epochs),
        quality=None if again else quality,
        say=lambda line: print(f"{name}: {line}, {time.monotonic() - started:.0f} s", flush=True),
    )
    return model, time.monotonic() - started


def of_sequences(model: SequenceModel) -> Scores:
    """Scores by a sequence model."""
    return lambda histories, users: model.asks(histories, users) @ model.items.T


def mixture(alone: Scores, knn: Scores, share: float) -> Scores:
    """A sequence model's scores and a share of item-kNN's."""
    return lambda histories, users: standard(alone(histories, users)) + share * standard(knn(histories, users))


def standard(table: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and deviation 1."""
    return (table - table.mean(1, keepdims=True)) / (table.std(1, keepdims=True) + 1e-9)


def best(data: Beauty, tried: dict[str, Scores]) -> tuple[str, Scores, float]:
    """What has the highest validation nDCG@10 of all users."""
    told = {name: float(figures(data, scores, "validation")[:, 0].mean()) for name, scores in tried.items()}
    print(json.dumps(told), flush=True)
    name = max(told, key=lambda one: told[one])
    return name, tried[name], told[name]


def simple(data: Beauty, text: np.ndarray) -> dict[str, tuple[str, Scores, float]]:
    """Models without a sequence, tuned on validation: settings, scores and the validation figure."""
    plain = data.matrix(data.learnt)
    popular = np.asarray(plain.sum(0), np.float32)
    found = {"popularity": best(data, {"": lambda histories, users: np.repeat(popular, len(users), 0)})}
    fades = (1.0, 0.8, 0.6, 0.4)

    def faded(model, fade: float) -> Scores:
        return lambda histories, users: np.asarray(model(data.matrix(histories, fade)[users]), np.float32)

    knn = Neighbours.fit(plain, 200)
    found["item-kNN"] = best(data, {f"fade {fade}": faded(knn.scores, fade) for fade in fades})
    ease = {}
    for ridge in (100.0, 300.0):
        model = RidgeByItems.fit(plain, ridge)
        ease |= {f"ridge {ridge:.0f}, fade {fade}": faded(model.scores, fade) for fade in (1.0, 0.6)}
    found["EASE"] = best(data, ease)
    by_text = {f"fade {fade}": faded(lambda history: (history @ text) @ text.T, fade) for fade in (0.8, 0.6)}
    found["titles alone"] = best(data, by_text)
    try:
        from implicit.als import AlternatingLeastSquares
    except ImportError:
        print("iALS: `implicit` is not installed; left out")
        return found
    ials = {}
    for factors, alpha in ((64, 5.0), (128, 5.0), (128, 20.0)):
        model = AlternatingLeastSquares(factors, regularization=0.05, alpha=alpha, iterations=15, random_state=0)
        model.fit(plain, show_progress=False)

        def folded(history: sparse.csr_matrix, model=model) -> np.ndarray:
            return model.recalculate_user(np.arange(history.shape[0]), history) @ model.item_factors.T

        ials[f"{factors} factors, alpha {alpha:.0f}"] = faded(folded, 1.0)
    found["iALS"] = best(data, ials)
    return found


def main() -> None:
    """Choose on validation, then print the test figures of all models."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    started = time.monotonic()
    data = Beauty(options.folder)
    text = titles_read(data, options.text)
    kinds = [(text, "unweighted"), (text, "recent"), (text, "foretold"), (None, "unweighted")]
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        going = [pool.submit(learnt, options.folder, words, kind, options.epochs) for words, kind in kinds]
        trained = [one.result() for one in going]
        of_titles = [
            (kind, model) for (words, kind), (model, _) in zip(kinds, trained, strict=True) if words is not None
        ]
        again = {
            kind: pool.submit(
                learnt, options.folder, text, kind, max(model.curve, key=lambda look: look[1])[0], again=True
            )
            for kind, model in of_titles
            if kind in AGAIN
        }
        relearnt = {kind: one.result() for kind, one in again.items()}
    models = simple(data, text)
    for (words, kind), (model, seconds) in zip(kinds, trained, strict=True):
        name = f"sequences of {'ids and titles' if words is not None else 'ids'}, {kind}"
        models[name] = best(data, {f"{model.curve[-1][0]} epochs, {seconds:.0f} s": of_sequences(model)})
    _, knn, _ = models["item-kNN"]
    fade = float(models["item-kNN"][0].split()[-1])
    whole = Neighbours.fit(data.matrix(data.known), 200)

    def knn_again(histories: Histories, users: np.ndarray) -> np.ndarray:
        return np.asarray(whole.scores(data.matrix(histories, fade)[users]), np.float32)

    for kind, model in of_titles:
        mixed = {share: mixture(of_sequences(model), knn, share) for share in (0.1, 0.2, 0.3, 0.5)}
        name, scores, before = best(data, {f"{share} of item-kNN": one for share, one in mixed.items()})
        models[f"hybrid, {kind}"] = name, scores, before
        if kind in relearnt:
            model, seconds = relearnt[kind]
            told = f"{model.settings.n_epochs} epochs, {seconds:.0f} s, {name}"
            share = float(name.split()[0])
            models[f"hybrid learnt again, {kind}"] = told, mixture(of_sequences(model), knn_again, share), np.nan
    draws = np.random.default_rng(0).multinomial(data.n_users, np.full(data.n_users, 1 / data.n_users), 2000)
    print("\n| model | chosen | validation nDCG@10 | test nDCG@10 | test recall@10 |\n|---|---|---|---|---|")
    tested = {}
    for name, (told, scores, before) in models.items():
        tested[name] = figures(data, scores, "test")
        print(f"| {name} | {told} | {before:.4f} | " + " | ".join(interval(tested[name], draws)) + " |", flush=True)
    for name, (ndcg, recall) in PUBLISHED.items():
        print(f"| {name}, as published | | | {ndcg:.4f} | {recall:.4f} |")
    for name in ("sequences of ids and titles", "hybrid", "hybrid learnt again"):
        for kind in AGAIN[1:] if "again" in name else ("recent", "foretold"):
            gain = tested[f"{name}, {kind}"] - tested[f"{name}, unweighted"]
            print(f"| {name}: {kind} - unweighted | | | " + " | ".join(interval(gain, draws)) + " |")
    print(f"\n{time.monotonic() - started:.0f} s in all")


def interval(rows: np.ndarray, draws: np.ndarray) -> list[str]:
    """Mean and 95 % interval over users of each column."""
    low, high = np.quantile(draws @ rows / len(rows), [0.025, 0.975], axis=0)
    return [f"{mean:.4f} [{a:.4f}, {b:.4f}]" for mean, a, b in zip(rows.mean(0), low, high, strict=True)]


if __name__ == "__main__":
    main()
