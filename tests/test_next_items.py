from dataclasses import replace

import numpy as np
import pytest
from crowd import crowd, interactions

from ecom_pipeline.recommend.candidates import Catalogue, Retrieval, retrieve
from ecom_pipeline.recommend.interactions import Visits
from ecom_pipeline.recommend.next_items import fit_next_items, in_order, next_item_scores, windows
from ecom_pipeline.recommend.pilot import joined
from ecom_pipeline.recommend.retrieval import Index
from ecom_pipeline.recommend.sequence import SequenceModel, SequenceSettings
from ecom_pipeline.recommend.weighting import UNWEIGHTED

SMALL = SequenceSettings(width=16, length=8, dropout=0.0, n_negatives=0, n_epochs=40, learning_rate=0.01)


def rounds(n_users, n_items, n_days, again=None):
    """Users who go round the catalogue, an item a day, each from his own place; `again`: an item of every day."""
    begun = np.random.default_rng(0).integers(0, n_items, n_users)
    rows = [(user, int(begun[user] + day) % n_items, day) for user in range(n_users) for day in range(n_days)]
    rows += [(user, again, day) for user in range(n_users) for day in range(n_days) if again is not None]
    return interactions(sorted(set(rows)), n_users, n_items + 1)


@pytest.mark.parametrize(("length", "stride"), [(6, 4), (6, 6), (3, 1)])
def test_every_act_counts_once_with_what_was_before_it(length, stride):
    acts, _ = crowd()
    order, histories = in_order(acts.user, acts, n=acts.n_users)
    assert (np.diff(acts.day[order])[np.diff(acts.user[order]) == 0] >= 0).all()
    weight = np.random.default_rng(0).random(len(acts)).astype(np.float32)
    parts = windows(replace(histories, weight=weight), length, stride)
    assert np.sort(parts.weight[parts.weight > 0]) == pytest.approx(np.sort(weight))
    assert np.diff(parts.start).max() == length
    place = np.arange(len(parts.item)) - np.repeat(parts.start[:-1], np.diff(parts.start))
    begins = np.repeat(np.add.reduceat(parts.weight > 0, parts.start[:-1]), np.diff(parts.start)) == np.repeat(
        np.diff(parts.start), np.diff(parts.start)
    )  # a part that counts whole is the begin of a history
    assert (place[(parts.weight > 0) & ~begins] >= length - stride).all()


def test_what_is_taken_for_the_first_time_is_foretold_and_what_is_taken_always_is_not():
    acts = rounds(60, 12, 6, again=12)
    model = fit_next_items(acts, weight=np.ones(len(acts), np.float32), text=None, settings=SMALL)
    asked = interactions([(0, 3, 1), (0, 4, 2), (1, 8, 1), (1, 9, 2)], 3, 13)
    found = next_item_scores(model, asked.user, asked, n_visits=3)
    assert found[:2].argmax(1).tolist() == [5, 10]
    assert not found[2].any()


def test_what_nobody_took_and_nobody_read_is_last():
    acts = rounds(20, 12, 6)
    model = fit_next_items(acts, weight=np.ones(len(acts), np.float32), text=None, settings=replace(SMALL, n_epochs=1))
    found = next_item_scores(model, acts.user, acts, n_visits=20)
    assert (found[:, 12] < found[:, :12].min(1)).all()


def test_a_model_that_was_written_asks_as_it_did(tmp_path):
    acts = rounds(30, 12, 6)
    text = np.random.default_rng(0).normal(size=(13, 4)).astype(np.float32)
    model = fit_next_items(acts, weight=np.ones(len(acts), np.float32), text=text, settings=replace(SMALL, n_epochs=2))
    model.write(tmp_path / "model")
    again = SequenceModel.read(tmp_path / "model")
    assert (again.settings, model.settings.n_epochs) == (model.settings, 2)
    for one in (model, again):
        assert one.items.shape == (13, 16)
    np.testing.assert_allclose(
        *(next_item_scores(one, acts.user, acts, n_visits=30) for one in (model, again)), atol=1e-5
    )


def test_the_channel_brings_new_items_alone_and_is_not_there_unless_it_is_asked_for():
    acts, _ = crowd()
    visits = Visits(np.arange(4), np.full(4, 60))
    found = {}
    for n in (0, 3):
        index = Index.fit(acts, 60, weighting=UNWEIGHTED, sequences=n > 0)
        retrieval = Retrieval(n_own=10, n_together=0, n_popular=1, n_text=0, n_sequence=n)
        found[n] = joined(rows for _, rows in retrieve(acts, index, Catalogue({}), visits, retrieval))
    assert "sequence" not in found[0].names
    assert not found[0].channels[:, 4].any()
    brought = found[3].channels[:, 4]
    assert np.bincount(found[3].visit[brought], minlength=4).max() == 3
    assert (found[3].column("own_days")[brought] == 0).all()
    best = found[3].column("sequence")
    new = found[3].column("own_days") == 0
    assert best[brought].min() >= best[new & ~brought].min(initial=1)
