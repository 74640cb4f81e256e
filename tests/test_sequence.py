import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.recommend.sequence import Histories, SequenceModel, SequenceSettings, _loss, _Net, batches

SMALL = SequenceSettings(width=16, length=8, dropout=0.0, n_negatives=0, n_epochs=30, learning_rate=0.01)


def histories(rows, weight=None):
    item = np.concatenate([np.array(row, np.int64) for row in rows])
    user = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return Histories.of(user, item, None if weight is None else np.array(weight), n_users=len(rows))


def rounds(n_users, n_items, length, seed=0):
    """Users who go round the catalogue, each from his own place."""
    begun = np.random.default_rng(seed).integers(0, n_items, n_users)
    return [(place + np.arange(length)) % n_items for place in begun]


def best(model, known, users):
    return (model.asks(known, users) @ model.items.T).argmax(1)


def test_what_always_follows_is_foretold_and_a_length_that_was_never_seen_too():
    known = histories(rounds(60, 12, 6))
    model = SequenceModel.fit(known, 12, settings=SMALL)
    asked = histories([[0, 1, 2], [7, 8], [10]])
    assert best(model, asked, np.arange(3)).tolist() == [3, 9, 11]
    assert np.linalg.norm(model.items, axis=1) == pytest.approx(np.ones(12), rel=1e-5)


def test_acts_without_weight_are_not_learnt_and_do_not_stop_what_follows():
    """Half of the users go the other way round; their acts weigh nothing."""
    there, back = rounds(40, 12, 6), [row[::-1] for row in rounds(40, 12, 6, seed=1)]
    weight = np.repeat([1.0, 0.0], 40 * 6)
    model = SequenceModel.fit(histories(there + back, weight), 12, settings=SMALL)
    assert best(model, histories([[4, 5, 6]]), np.array([0])).tolist() == [7]


@given(st.integers(0, 1000))
def test_an_act_that_weighs_two_counts_as_one_that_is_there_twice(seed):
    draw = np.random.default_rng(seed)
    rows = [draw.integers(0, 9, 5) for _ in range(3)]
    weight = draw.integers(1, 4, (3, 5)).astype(float)
    net = _Net(np.ones(9, bool), None, SMALL).eval()
    by_weight = _loss(net, histories(rows, weight.ravel()), np.arange(3), 9, draw)
    again = [  # the same history, and of its acts that one alone which is repeated counts
        (row, np.eye(5)[place]) for row, of_row in zip(rows, weight, strict=True)
        for place in range(1, 5) for _ in range(int(of_row[place]))
    ]  # fmt: skip
    repeated = histories([row for row, _ in again], np.concatenate([one for _, one in again]))
    by_repetition = _loss(net, repeated, np.arange(len(again)), 9, draw)
    torch.testing.assert_close(by_weight, by_repetition, rtol=1e-4, atol=1e-5)


def test_what_comes_later_changes_nothing_of_what_was_asked_before():
    net = _Net(np.ones(9, bool), None, SMALL).eval()
    codes = torch.tensor([[1, 2, 3, 4]])
    changed = torch.tensor([[1, 2, 8, 8]])
    with torch.inference_mode():
        torch.testing.assert_close(net(codes)[:, :2], net(changed)[:, :2])
        assert not torch.allclose(net(codes)[:, 2], net(changed)[:, 2])


def test_an_item_that_nobody_took_is_found_by_its_words():
    words = np.eye(12, dtype=np.float32)
    words[11] = words[3]  # nobody takes 11, which has the words of 3
    rows = [row[row != 11] for row in rounds(80, 12, 6)]
    known = histories([row for row in rows if len(row) > 1])
    settings = SequenceSettings(width=16, length=8, dropout=0.0, n_negatives=0, n_epochs=40, learning_rate=0.01)
    model = SequenceModel.fit(known, 12, text=words, settings=settings)
    score = (model.asks(histories([[0, 1, 2]]), np.array([0])) @ model.items.T)[0]
    assert (score[11] > np.delete(score, [3, 11])).mean() > 0.8


def test_batches_hold_everyone_who_teaches_once_and_little_padding():
    draw = np.random.default_rng(0)
    known = histories([draw.integers(0, 9, n) for n in draw.integers(1, 40, 300)])
    found = batches(known, 20, draw)
    length = np.diff(known.start)
    assert sorted(np.concatenate(found).tolist()) == np.flatnonzero(length > 1).tolist()
    assert max(len(users) * min(length[users].max(), 21) for users in found) <= 1024


def test_a_user_without_a_history_asks_for_nothing():
    model = SequenceModel.fit(histories(rounds(20, 12, 4)), 12, settings=SMALL)
    known = Histories(np.array([1, 2]), np.array([0, 0, 2]), np.ones(2, np.float32))
    assert not model.asks(known, np.array([0, 1]))[0].any()


def test_the_best_epoch_is_kept_and_learning_ends_where_it_gets_no_better():
    told = iter([0.1, 0.5, 0.3, 0.2, 0.1])
    seen = []

    def quality(model):
        seen.append(model.items.copy())
        return next(told)

    settings = SequenceSettings(width=16, length=8, n_epochs=50, patience=2, every=1)
    model = SequenceModel.fit(histories(rounds(20, 12, 4)), 12, settings=settings, quality=quality)
    assert [figure for _, figure in model.curve] == [0.1, 0.5, 0.3, 0.2]
    np.testing.assert_allclose(model.items, seen[1], atol=1e-6)


def test_acts_of_one_visit_are_foretold_from_earlier_visits_alone():
    """Of five acts on days 0, 0, 1, 1, 1 the last three are asked after the second; of the first day's none is foretold."""
    day = np.array([0, 0, 1, 1, 1])
    one = Histories(np.array([1, 2, 3, 4, 5]), np.array([0, 5]), np.ones(5, np.float32), day)
    assert one.asked_from(np.array([0]), 9).tolist() == [[-1, 1, 1, 1]]
    net = _Net(np.ones(9, bool), None, SMALL).eval()

    def loss(items, weight):
        known = Histories(np.array(items), np.array([0, 5]), np.array(weight, np.float32), day)
        return _loss(net, known, np.array([0]), 9, np.random.default_rng(0))

    last = [0, 0, 0, 0, 1]
    torch.testing.assert_close(loss([1, 2, 3, 4, 5], last), loss([1, 2, 7, 8, 5], last))
    assert not torch.allclose(loss([1, 2, 3, 4, 5], last), loss([1, 8, 3, 4, 5], last))
    assert loss([1, 2, 3, 4, 5], [1, 1, 0, 0, 0]) == 0
