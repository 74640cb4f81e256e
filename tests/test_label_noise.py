import sys

import numpy as np
import pytest
from shop import ROOT, SHARED
from sklearn.metrics import roc_auc_score

from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.out_of_fold import OutOfFoldConfidence
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.language.features import Projection
from ecom_pipeline.samples import fold_of

sys.path.insert(0, str(ROOT / "benchmarks"))


def test_flipped_labels_of_real_search_data_are_found():
    if not (SHARED / "crowdflower").is_dir():
        pytest.skip("the real data of crowdflower is not on this machine")
    from search_data import load

    samples, features = load(str(SHARED / "crowdflower"))
    train = (samples.split == "train").to_numpy()
    truth, groups = samples.label[train].to_numpy(), samples.group_id[train]
    x = Projection.fit(features.rows(train), 100).apply(features.rows(train))
    fold = np.column_stack([fold_of(groups, 5, repeat) for repeat in range(2)])
    found = []
    for seed in range(5):
        flipped = np.random.default_rng(seed).random(len(truth)) < 0.2
        label = one_hot(np.where(flipped, 1 - truth, truth))
        scores = out_of_fold_scores(x, label, fold, 5, "cpu")
        value = OutOfFoldConfidence().fit(Evidence(label=label, oof_score=scores.score)).value
        found.append(roc_auc_score(flipped, -value))
    assert np.mean(found) >= 0.88
