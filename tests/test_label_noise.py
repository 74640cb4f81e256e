import sys

import numpy as np
import pytest
from shop import ROOT, SHARED
from sklearn.metrics import roc_auc_score

from ecom_pipeline.benchmark.dataset import from_samples
from ecom_pipeline.benchmark.noise import corrupted
from ecom_pipeline.benchmark.values import evidence_of, valued
from ecom_pipeline.importance.catalogue import named

sys.path.insert(0, str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def found():
    """Mean AUROC over 3 seeds of finding 20 % flips of real search data: of the beginnings of its texts."""
    if not (SHARED / "crowdflower").is_dir():
        pytest.skip("the real data of crowdflower is not on this machine")
    from search_data import load

    samples = load(str(SHARED / "crowdflower"), max_tokens=24, test_groups=1)
    dataset = from_samples("crowdflower", *samples, 100, 2)
    train, held = dataset.train, dataset.validation
    rows = []
    for seed in range(3):
        label = corrupted(train.rows.label, train.item, "random", 0.2, np.random.default_rng(seed))
        evidence = evidence_of(dataset, label, held.rows.label, 2, "cpu")
        told = valued(evidence, named(["oof_confidence", "group_kernel", "literal_prediction_gap"]), dataset.n_folds)
        wrong = label != train.rows.label
        rows.append({name: roc_auc_score(wrong, -one.value) for name, one in told.items()})
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


def test_flipped_labels_of_real_search_data_are_found(found):
    assert found["oof_confidence"] >= 0.88  # 0.884 was measured over 5 seeds


def test_what_the_querys_own_items_say_finds_more_of_them(found):
    assert found["group_kernel"] >= 0.905  # 0.914 was measured over 5 seeds


def test_the_literal_formula_puts_wrong_labels_on_top(found):
    assert found["literal_prediction_gap"] < 0.4
