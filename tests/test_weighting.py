import numpy as np
import pandas as pd
import pytest

from ecom_pipeline.importance.selection import NONE, Search
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
    values = pd.DataFrame(
        {"estimator": "oof_confidence", "sample_id": samples.sample_id, "sample_value": 1.0 - flipped}
    )
    return samples, PairFeatures(meeting, np.zeros((n, 5), np.float32)), values


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

    def judged(x, label, weight, *rest):
        linear = fit(x, label, weight, *rest)
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
