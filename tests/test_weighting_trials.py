import duckdb
import numpy as np
import pandas as pd
import pytest

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.frames import read_values, weigh
from ecom_pipeline.importance.selection import NONE, Search
from ecom_pipeline.importance.weights import WeightMap
from ecom_pipeline.language.features import PairFeatures
from ecom_pipeline.ranking import weighting
from ecom_pipeline.ranking.weighting import try_weightings


def shop(n_groups, seed, wrong=0.0):
    """Groups of five items whose first feature says what is relevant; some labels are turned over."""
    draw = np.random.default_rng(seed)
    n = 5 * n_groups
    meeting = draw.normal(size=(n, 6)).astype(np.float32)
    relevant = (meeting[:, 0] + 0.3 * draw.normal(size=n) > 0).astype(float)
    flipped = draw.random(n) < wrong
    samples = pd.DataFrame(
        {
            "sample_id": [f"s{seed}-{i:05}" for i in range(n)],
            "group_id": np.repeat([f"g{i}" for i in range(n_groups)], 5),
            "label": np.where(flipped, 1 - relevant, relevant),
            "relevance": relevant,
        }
    )
    return samples, PairFeatures(meeting, np.zeros((n, 5), np.float32)), {"oof_confidence": 1.0 - flipped}


def tried(n_tried, wrong=0.3):
    samples, features, values = shop(60, 0, wrong)
    held, held_features, _ = shop(40, 1)
    search = Search(n_trials=12, confidence=0.5)
    return try_weightings(samples, features, values, held, held_features, 6, search, "cpu", n_tried=n_tried)


def test_with_room_for_all_samples_no_second_fit_is_made():
    found = tried(300)
    assert found.figures["n_samples_tried"] == 300
    assert "gain_ndcg_of_all_samples" not in found.figures


@pytest.mark.parametrize("helps", [True, False])
def test_a_choice_by_some_samples_must_hold_for_all(monkeypatch, helps):
    fit = weighting.fit_linear

    def judged(x, label, weight, **rest):
        linear = fit(x, label, weight, **rest)
        better = np.ptp(weight, axis=0) > 0  # the choice is decided here, not by luck
        sign = 1.0 if helps or len(label) < 300 else -1.0
        linear.ndcg[:] = (0.5 + sign * 0.1 * better)[:, None, None]
        return linear

    monkeypatch.setattr(weighting, "fit_linear", judged)
    found = tried(100)
    assert 100 <= found.figures["n_samples_tried"] < 110
    assert (found.figures["chosen"] != NONE) == helps
    assert (found.frame[found.frame.chosen].estimator != NONE).tolist() == [helps]
    assert found.figures["gain_ndcg_of_all_samples"] == pytest.approx(0.1 if helps else -0.1)


def test_values_are_read_in_the_order_of_ids_and_a_missing_one_is_told():
    with duckdb.connect() as db:
        db.execute(
            "create table sample_values as select * from (values ('b', 's2', 2.0), ('b', 's1', 1.0), "
            "('a', 's1', 5.0), ('a', 's2', 6.0)) as t(estimator, sample_id, sample_value)"
        )
        found = read_values(db, 2)
        assert {name: value.tolist() for name, value in found.items()} == {"a": [5.0, 6.0], "b": [1.0, 2.0]}
        with pytest.raises(SampleError, match="first: 'a' has 2"):
            read_values(db, 3)


@pytest.mark.parametrize("chosen", [NONE, "good"])
def test_the_automatic_weights_are_those_of_the_choice(chosen):
    samples, _, _ = shop(4, 0)
    values = {"good": np.arange(20.0), "other": np.arange(20.0)[::-1]}
    trials = pd.DataFrame(
        [(NONE, None, 0.0, 1.0, None, chosen == NONE), ("good", "drop", 0.5, 1.0, "all", chosen == "good")],
        columns=["estimator", "kind", "strength", "clip_quantile", "within", "chosen"],
    )
    found = weigh(samples, values, WeightMap("rank", 1.0, 1.0, "all"), trials).frame
    assert found.groupby("estimator").sample_weight.mean().to_dict() == pytest.approx(dict.fromkeys(found.estimator, 1))
    own = found[found.estimator == "automatic"]
    assert own.sample_weight.tolist() == ([1.0] * 20 if chosen == NONE else [0.0] * 10 + [2.0] * 10)
    assert own.sample_id.tolist() == samples.sample_id.tolist()
