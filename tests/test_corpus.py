"""What the language model may learn from: nothing that is held back."""

from dataclasses import replace

import duckdb
import pytest
from test_adaptation import SETTINGS

from ecom_pipeline.language.adaptation.corpus import read_corpus


@pytest.fixture(scope="module")
def db(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as connection:
        yield connection


EVERYTHING = replace(SETTINGS, n_steps=4000, language=1, history=1, attribute=1)


def test_nothing_that_is_held_back_is_learnt(db):
    corpus = read_corpus(db, EVERYTHING)
    held, trained = (
        {text for (text,) in db.execute(f"select context_text from training_samples where {which}").fetchall()}
        for which in ("split <> 'train'", "split = 'train'")
    )
    contexts = {corpus.texts[row] for name in ("query", "history") for row in corpus.pairs[name].left}
    assert len(corpus.pairs["query"]) > 50
    assert len(corpus.pairs["history"]) > 50
    assert not contexts & (held - trained)  # a history may be told twice
    assert not {corpus.texts[row] for row in corpus.language} & held


def test_what_lists_are_tested_on_is_not_learnt(db):
    before = read_corpus(db, EVERYTHING)
    db.execute("begin")
    db.execute("update cleaned_interactions set item_id = 'i0-0-0' where day >= '2024-05-06'")  # the second half
    after = read_corpus(db, EVERYTHING)
    db.execute("update cleaned_interactions set item_id = 'i0-0-0' where day = '2024-05-05'")
    earlier = read_corpus(db, EVERYTHING)
    db.execute("rollback")
    assert before.digest == after.digest != earlier.digest


def test_pairs_of_the_samples_are_left_out_unless_asked_for(db):
    corpus = read_corpus(db, replace(EVERYTHING, from_samples=False))
    assert len(corpus.pairs["query"]) == 0  # in this shop all queries have samples
    assert len(corpus.pairs["attribute"]) == 120


def test_an_item_that_was_judged_irrelevant_is_a_refusal(db):
    corpus = read_corpus(db, EVERYTHING)
    refused = {(corpus.texts[a], corpus.texts[b]) for a, b in corpus.pairs["query"].refused}
    judged = db.execute(
        "select context_text, item_text from training_samples where origin = 'judgment' and split = 'train' and label = 0"
    ).fetchall()
    assert refused == set(judged)
