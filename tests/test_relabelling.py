"""The whole loop: wrong labels are planted, suspects asked about, answers cleaned in, and the ranker taught anew."""

import random
from dataclasses import replace
from datetime import datetime
from hashlib import md5

import duckdb
import numpy as np
import pytest
from shop import KINDS, SEARCHES, make_items
from test_cleaning import put
from test_ratings import rating

from ecom_pipeline import cleaning, days, schema
from ecom_pipeline.importance import frames
from ecom_pipeline.language import embeddings
from ecom_pipeline.ranking.ablation import Part, Parts
from ecom_pipeline.ranking.answers import EFFECT, WITH, WITHOUT, compare_answers, score_answers
from ecom_pipeline.report import answers, doubts
from ecom_pipeline.samples import SampleRules, build_samples

RULES = SampleRules(5, None, None, None, None, None, 0.2, 0.3)
N_COMPONENTS, WIDTH, WRONG = 30, 64, 0.1
WORDS = (*SEARCHES, "cheap {}", "new {}", "{} for home", "good quality {}")


def judge(draw: random.Random) -> tuple[list[dict], list[dict], set[tuple[str, str]]]:
    """Items, judged pairs of 120 queries, and which pairs are judged wrongly: a tenth of them."""
    items, rows, wrong = make_items(), [], set()
    for kind in KINDS:
        for words in WORDS:
            query = words.format(kind)
            own = draw.sample([item for item in items if item["category"].endswith(kind)], 6)
            other = draw.sample([item for item in items if not item["category"].endswith(kind)], 8)
            for item in own + other:
                if draw.random() < WRONG:
                    wrong.add((query, item["item_id"]))
                right = (item in own) != ((query, item["item_id"]) in wrong)
                rows.append({"query": query, "item_id": item["item_id"], "relevance": 3 if right else 0})
    return items, rows, wrong


def embed(db: duckdb.DuckDBPyConnection) -> None:
    """Each text as the sum of random vectors of its words: what a model of language would tell apart, and no model."""
    texts = embeddings.missing_texts(db, "words", 0)
    vectors = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            seed = int(md5(word.strip(".,").encode()).hexdigest()[:8], 16)
            vectors[row] += np.random.default_rng(seed).normal(size=WIDTH)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embeddings.add(db, embeddings.Embedded("words", texts, vectors, {}))


def learn(db: duckdb.DuckDBPyConnection) -> Parts:
    """What a run makes of the raw tables, up to the suspicions."""
    cleaning.clean_judgments(db)
    build_samples(db, RULES)
    embed(db)
    parts = {}
    for split in schema.SPLITS:
        samples = db.execute("from training_samples where split = ? order by sample_id", [split]).df()
        parts[split] = Part(samples, embeddings.sample_features(db, samples))
    train = parts["train"]
    scored = frames.score(train.samples, train.features, 2, N_COMPONENTS, "cpu").frame
    doubted = frames.suspect(train.samples, train.features, scored, N_COMPONENTS, "cpu").frame
    for name, frame in (("fold_predictions", scored), ("label_suspicions", doubted)):
        db.register("made", frame)
        db.execute(f"create or replace table {name} as from made")
    return Parts(**parts)


@pytest.fixture(scope="module")
def loop():
    """A home after its first run, its raw rows, and the pairs that were judged wrongly."""
    items, rows, wrong = judge(random.Random(3))
    with duckdb.connect() as db:
        put(db, "items", items)
        put(db, "judgments", rows)
        put(db, "events", [])
        days.create(db)
        cleaning.clean_items(db)
        cleaning.settle_days(db, datetime(2026, 5, 1))
        schema.SAMPLE_ATTRIBUTES.create(db)
        yield db, rows, wrong, learn(db)


def ask(db: duckdb.DuckDBPyConnection, wrong: set, order: str) -> tuple[list[dict], int, int]:
    """The truth about the first 5 % of the suspects, as a journal has it; how many they are, and how many were wrong."""
    (n,) = db.execute("select count(*) // 20 from label_suspicions").fetchone()
    found = doubts.suspects(db, n, order)
    pairs = list(zip(found.context_text, found.item_id, found.label, strict=True))
    was_wrong = [(query, item) in wrong for query, item, _ in pairs]
    rows = [
        rating(query, item, 3 if (label >= 0.5) != bad else 0, minute=minute)
        for minute, ((query, item, label), bad) in enumerate(zip(pairs, was_wrong, strict=True))
    ]
    return rows, n, sum(was_wrong)


@pytest.mark.parametrize("order", ["probability", "worth"])
def test_answers_about_suspects_mend_many_times_what_chance_would_and_the_ranker_is_no_worse(loop, order):
    db, rows, wrong, _ = loop
    put(db, "judgments", rows)
    before = learn(db)
    answered, n, n_found = ask(db, wrong, order)
    assert n_found > 4 * WRONG * n
    put(db, "judgments", [*rows, *answered])
    after = learn(db)
    evaluation = compare_answers(after, N_COMPONENTS, "cpu", seed=0)
    effect = answers.gather(db, evaluation)
    assert (effect.n_pairs, effect.n_changed) == (n, n_found)
    assert effect.effect.ci_high >= 0
    assert f"{n_found} labels of the source were changed" in answers.sentences(effect)
    asked = {(row["query"], row["item_id"]) for row in answered}
    again = doubts.suspects(db, 10_000, order)
    assert not asked & set(zip(again.context_text, again.item_id, strict=True))
    assert len(again) == len(after.train.samples) - n
    assert before.test.samples.label.equals(after.test.samples.label)


def test_answers_that_agree_change_nothing_and_the_report_says_so(loop):
    db, rows, _, _ = loop
    agreeing = [rating(row["query"], row["item_id"], row["relevance"]) for row in rows[:20]]
    put(db, "judgments", [*rows, *agreeing])
    effect = answers.gather(db, compare_answers(learn(db), N_COMPONENTS, "cpu", seed=0))
    assert answers.sentences(effect) == (
        "Raters judged 20 pairs: 0 labels of the source were changed. No training label changed, so the ranker is as it was."
    )


def test_the_order_by_worth_is_a_chance_and_finds_more_than_the_models_that_know_no_query(loop):
    db, rows, wrong, _ = loop
    put(db, "judgments", rows)
    learn(db)
    found = {order: ask(db, wrong, order)[2] for order in ("probability", "worth")}
    assert found["worth"] >= found["probability"]
    assert [str(v) for v in schema.violations(db, schema.LABEL_SUSPICIONS) if v.n_rows] == []


def test_false_answers_are_seen_to_make_the_ranker_worse(loop):
    """What tells a gain must be able to tell harm: all labels of half the queries are turned over."""
    _, _, _, parts = loop
    train = parts.train.samples.copy()
    lied = train.group_id.isin(train.group_id.unique()[::2])
    train.loc[lied, "label"] = 1 - train.source_label[lied]
    false = replace(parts, train=Part(train, parts.train.features))
    effect = compare_answers(false, N_COMPONENTS, "cpu", 0).set_index(["model", "metric"]).loc[EFFECT, "auc"]
    assert effect.ci_high < 0


def test_without_answers_nothing_is_compared(loop):
    _, _, _, parts = loop
    assert score_answers(parts, N_COMPONENTS, "cpu") == {}
    assert compare_answers(parts, N_COMPONENTS, "cpu", 0).empty


def test_the_twin_without_answers_is_the_ranker_on_the_sources_labels_alone(loop):
    """Two labels are changed and three pairs are new: the twin must not know of any of them."""
    _, _, _, parts = loop
    train = parts.train.samples.copy()
    train.loc[[0, 1], "source_label"] = 1 - train.label[[0, 1]]
    train.loc[[5, 6, 7], "source_label"] = np.nan
    compared = score_answers(replace(parts, train=Part(train, parts.train.features)), N_COMPONENTS, "cpu")
    bare = train.drop(index=[5, 6, 7])
    bare["source_label"], bare["label"] = np.nan, bare.source_label  # changed: all, so that it is compared with nothing
    features = parts.train.features
    kept = np.delete(np.arange(len(train)), [5, 6, 7])
    alone = score_answers(replace(parts, train=Part(bare, features.rows(kept))), N_COMPONENTS, "cpu")
    # the components are those of all pairs, so the two agree but for what three pairs move them by
    assert np.corrcoef(compared[WITHOUT][0], alone[WITH][0])[0, 1] > 0.9999
    assert np.abs(compared[WITH] - compared[WITHOUT]).max() > 1e-4
