"""A tenth of the judged rows, chosen by prediction gap or at random: how good a ranker do they make? CrowdFlower.

    python benchmarks/search_row_choice.py ../shared/data --cache /tmp/row_choice            # linear heads, planted noise
    python benchmarks/search_row_choice.py ../shared/data --cache /tmp/row_choice --tuned    # fine-tuned layers, labels as they are

Queries are divided into five parts by a hash; each part is the test once, the next one the validation, the other three are
trained on. nDCG@10 on the grades of the test queries; a query's figure is the mean over draws of rows. Differences are
paired; their intervals are of 2,000 resamplings of both queries and draws. Planted noise turns over a share of the training
and validation labels, anew in each draw.
The pilot is the mean out-of-fold score of two repeats under the same wrong labels; what is believed of the noise is the
planted share. Linear heads begin from nothing here and see the kept rows alone, under the penalty that validation prefers;
the layers begin, as in the pipeline, from a head on all rows.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from assets.model import ModelConfig
from ecom_pipeline.curves import untracked
from ecom_pipeline.importance.estimator import one_hot
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.importance.sample_choice import Acceptance, LabelNoise
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.ranking.metrics import ndcg_at_k
from ecom_pipeline.samples import fold_of

N_PARTS, N_COMPONENTS, SHARE = 5, 100, 0.1
NOISES = (0.0, 0.05, 0.2, 0.4)
COLUMNS = ("group_id", "item_id", "context_text", "item_text", "label", "relevance")


@dataclass(frozen=True)
class Split:
    """One division of the queries: (n,) rows of each part, features projected, labels as wrong as planted."""

    rows: dict[str, np.ndarray]
    x: dict[str, np.ndarray]
    label: dict[str, np.ndarray]
    pilot: np.ndarray


def read(folder: Path, cache: Path) -> tuple[pd.DataFrame, PairFeatures]:
    """Samples and frozen features, kept in the cache."""
    file = cache / "crowdflower.npz"
    if not file.is_file():
        from search_data import load

        samples, features = load(str(folder / "crowdflower"))
        cache.mkdir(parents=True, exist_ok=True)
        told = {name: samples[name].to_numpy() for name in COLUMNS}
        told = {name: values.astype(str) if values.dtype == object else values for name, values in told.items()}
        np.savez(file, meeting=features.meeting, match=features.match, **told)
    with np.load(file) as kept:
        samples = pd.DataFrame({name: kept[name] for name in COLUMNS})
        return samples, PairFeatures(kept["meeting"], kept["match"])


def numbered(groups: pd.Series) -> np.ndarray:
    """(n,) numbers from 0."""
    return np.unique(groups, return_inverse=True)[1]


def divided(samples: pd.DataFrame, part: int) -> dict[str, np.ndarray]:
    """Rows of train, validation and test where one part is the test."""
    of = np.array(fold_of(samples.group_id, N_PARTS, 7))
    held, tested = (part + 1) % N_PARTS, part
    masks = {"train": (of != held) & (of != tested), "validation": of == held, "test": of == tested}
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def split_of(samples: pd.DataFrame, features: PairFeatures, part: int) -> Split:
    """A division with labels as they are, and its pilot."""
    rows = divided(samples, part)
    projection = Projection.fit(features.rows(rows["train"]), N_COMPONENTS)
    x = {name: projection.apply(features.rows(of)).astype(np.float64) for name, of in rows.items()}
    label = {name: samples.label.to_numpy(float)[of] for name, of in rows.items()}
    return Split(rows, x, label, pilot_of(samples, rows["train"], x["train"], label["train"]))


def corrupted(samples: pd.DataFrame, split: Split, noise: float, generator: np.random.Generator) -> Split:
    """The same with a share of the training and validation labels turned over, and the pilot that follows."""
    label = dict(split.label)
    for name in ("train", "validation"):
        wrong = generator.random(len(label[name])) < noise
        label[name] = np.where(wrong, 1 - label[name], label[name])
    pilot = pilot_of(samples, split.rows["train"], split.x["train"], label["train"])
    return replace(split, label=label, pilot=pilot)


def pilot_of(samples: pd.DataFrame, rows: np.ndarray, x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(n,) mean out-of-fold probability of label 1."""
    fold = np.column_stack([fold_of(samples.group_id.iloc[rows], 5, repeat) for repeat in range(2)]).astype(np.int64)
    return out_of_fold_scores(x.astype(np.float32), one_hot(label), fold, 5, "cpu").score[:, :, 1].mean(1)


def head(x: np.ndarray, label: np.ndarray, offset: np.ndarray, penalty: float) -> np.ndarray:
    """(d,) of a logistic head of all rows from kept ones: its logit less the offset is fitted to them. Newton's steps."""
    ridge = np.full(x.shape[1], penalty * len(x))
    ridge[-1] = 1e-6 * len(x)
    beta = np.zeros(x.shape[1])
    for _ in range(25):
        p = expit(x @ beta - offset)
        gradient = x.T @ (p - label) + ridge * beta
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge), gradient)
        beta -= step
        if np.abs(step).max() < 1e-7:
            break
    return beta


def choices(noise: float) -> dict[str, tuple[str, LabelNoise]]:
    """What is compared: how rows are chosen, and what is believed of labels."""
    told = {"all": ("all", LabelNoise()), "random": ("random", LabelNoise()), "balanced": ("balanced", LabelNoise())}
    told["gap"] = ("gap", LabelNoise())
    return told | ({"gap, noise believed": ("gap", LabelNoise(noise, noise))} if noise else {})


def linear(samples: pd.DataFrame, features: PairFeatures, share: float, n_draws: int) -> Iterator[pd.DataFrame]:
    """Rows of noise, choice, draw, query, ndcg; labels are turned over anew in each draw."""
    for part in range(N_PARTS):
        clean = split_of(samples, features, part)
        for place, noise in enumerate(NOISES):
            for draw in range(n_draws):
                coins = np.random.SeedSequence([part, place, draw]).spawn(2)  # labels and rows share no coin
                split = corrupted(samples, clean, noise, np.random.default_rng(coins[0])) if noise else clean
                for name, (method, belief) in choices(noise).items():
                    generator = np.random.default_rng(coins[1])
                    ndcg = one_head(samples, split, method, belief, share, generator)
                    yield told(samples, split.rows["test"], ndcg, noise=noise, choice=name, draw=draw)


def one_head(
    samples: pd.DataFrame,
    split: Split,
    method: str,
    belief: LabelNoise,
    share: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """nDCG@10 of each test query by the head of one draw of rows, its penalty chosen on validation."""
    label, pilot = split.label["train"], split.pilot
    acceptance = Acceptance.fit(method, pilot, label, n_rows=round(share * len(label)), noise=belief)
    kept = acceptance.draw(pilot, label, generator.random(len(label)))
    offset = acceptance.offset(pilot[kept])
    betas = [head(split.x["train"][kept], label[kept], offset, penalty) for penalty in PENALTIES]
    group = numbered(samples.group_id.iloc[split.rows["validation"]])
    held = [np.nanmean(ndcg_at_k(group, split.label["validation"], split.x["validation"] @ beta, 10)) for beta in betas]
    return on_test(samples, split.rows["test"], split.x["test"] @ betas[int(np.argmax(held))])


def on_test(samples: pd.DataFrame, rows: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(groups,) nDCG@10 by the grades."""
    tested = samples.iloc[rows]
    return ndcg_at_k(numbered(tested.group_id), tested.relevance.to_numpy(float), score, 10)


def told(samples: pd.DataFrame, rows: np.ndarray, ndcg: np.ndarray, **what: object) -> pd.DataFrame:
    """A row a test query."""
    return pd.DataFrame({"query": np.unique(samples.group_id.iloc[rows]), "ndcg": ndcg, **what})


def tuned(
    samples: pd.DataFrame, features: PairFeatures, share: float, n_draws: int, cache: Path, parts: list[int]
) -> Iterator[pd.DataFrame]:
    """The same of the top layers of the packaged model, trained as the pipeline does but for one rate."""
    from ecom_pipeline.language.encoder import PACKAGED, load_encoder
    from ecom_pipeline.ranking import frames

    encoder = load_encoder(PACKAGED, 64, "cpu")
    samples = samples.assign(sample_id=np.arange(len(samples)).astype(str))
    for part in parts:
        rows = divided(samples, part)
        seen, held, tested = (samples.iloc[rows[name]] for name in ("train", "validation", "test"))
        projection = Projection.fit(features.rows(rows["train"]), N_COMPONENTS)
        x = projection.apply(features.rows(rows["train"]))
        pilot = pilot_of(samples, rows["train"], x, seen.label.to_numpy(float))
        data = frames.Splits(
            *(seen, features.rows(rows["train"]), held, features.rows(rows["validation"])),
            weight=np.ones(len(seen)),
            pilot=pilot,
            estimator="none",
        )
        told_features = features.rows(rows["test"])
        for choice in ("all", "random", "gap"):
            for draw in range(1 if choice == "all" else n_draws):
                config = ModelConfig(
                    choice=choice,
                    n_rows=round(share * len(seen)),
                    n_validation_rows=0,
                    learning_rates=[1e-4],
                    weight_decays=[0.1],
                    n_seeds=1,
                    seed=draw,
                )
                with tempfile.TemporaryDirectory() as folder:
                    fitted = (encoder, config.settings(), Path(folder) / "model", cache / "frozen")
                    made = frames.fit(data, *fitted, {}, untracked)
                    scored = frames.score_twins(tested, told_features, encoder, fitted[2], cache / "frozen")
                seconds = made["twins"]["unweighted"]["seeds"][0]["seconds"]
                print(f"part {part}, {choice}, draw {draw}: {made['n_kept']} rows, {seconds:.0f} s", flush=True)
                ndcg = on_test(samples, rows["test"], scored["unweighted"][0])
                yield told(samples, rows["test"], ndcg, noise=0.0, choice=choice, draw=draw)
        score = projection.apply(told_features) @ frames_head(
            seen, x, held, projection, features.rows(rows["validation"])
        )
        yield told(samples, rows["test"], on_test(samples, rows["test"], score), noise=0.0, choice="head alone", draw=0)


def frames_head(
    seen: pd.DataFrame, x: np.ndarray, held: pd.DataFrame, projection: Projection, held_features: PairFeatures
) -> np.ndarray:
    """(d,) the head on all rows that training starts from."""
    from ecom_pipeline.ranking.evaluation import Rows
    from ecom_pipeline.ranking.linear import fit_linear

    rows = Rows(numbered(held.group_id), held.label.to_numpy(float), held.relevance.to_numpy(float))
    weight = np.ones((len(x), 1))
    held_x = projection.apply(held_features)
    return fit_linear(
        x,
        seen.label.to_numpy(float),
        weight,
        held_features=held_x,
        held=rows,
        penalties=ModelConfig().penalties,
        device="cpu",
    ).tuned[0]


def table(found: pd.DataFrame) -> Iterator[str]:
    """A line a noise and choice: mean, and differences to all rows and to as many at random."""
    generator = np.random.default_rng(0)
    for noise, rows in found.groupby("noise"):
        n_draws = int(rows.draw.max()) + 1
        by_draw = {
            name: of.pivot(index="draw", columns="query", values="ndcg").reindex(range(n_draws)).ffill()
            for name, of in rows.groupby("choice")
        }  # (draws, queries); what is not drawn is the same in each
        for name, ndcg in by_draw.items():
            line = f"noise {noise:.2f} {name:20} {np.nanmean(ndcg.to_numpy()):.4f}"
            for other in ("random", "all"):
                apart = (ndcg - by_draw[other]).dropna(axis=1).to_numpy()
                low, high = interval(apart, generator)
                line += f"  - {other}: {apart.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
            yield f"{line}  {n_draws} draws, {ndcg.notna().all().sum()} queries"


def interval(apart: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """95 % of the means when (draws, queries) are both drawn anew."""
    by_draw, by_query = (generator.multinomial(n, np.full(n, 1 / n), 2000) / n for n in apart.shape)
    return tuple(np.quantile(np.einsum("bd,dq,bq->b", by_draw, apart, by_query, optimize=True), [0.025, 0.975]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--share", type=float, default=SHARE)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--parts", type=int, nargs="+", default=list(range(N_PARTS)))
    asked = parser.parse_args()
    samples, features = read(asked.data, asked.cache)
    print(f"{len(samples)} pairs of {samples.group_id.nunique()} queries, label 1 of {samples.label.mean():.3f}")
    if asked.tuned:
        found = tuned(samples, features, asked.share, asked.draws, asked.cache, asked.parts)
    else:
        found = linear(samples, features, asked.share, asked.draws)
    print("\n".join(table(pd.concat(found, ignore_index=True))))


if __name__ == "__main__":
    sys.exit(main())
