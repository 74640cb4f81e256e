import numpy as np
import pytest

from ecom_pipeline.benchmark.dataset import generated
from ecom_pipeline.benchmark.values import evidence_of
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.catalogue import AGAINST_BIAS, ALL, COSTLY, NAMES, QUICK, named
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.preparation import prepared


@pytest.fixture(scope="module")
def evidence():
    dataset = generated(200, 3, n_features=6)
    rows = dataset.train.rows
    known = evidence_of(dataset, rows.label, dataset.validation.rows.label, 2, "cpu")
    return prepared(known, named(QUICK), dataset.n_folds)[0]


def test_names_are_unique_and_told_apart():
    assert len(set(NAMES)) == len(NAMES) >= 45
    assert set(NAMES) >= COSTLY | AGAINST_BIAS


@pytest.mark.parametrize("name", QUICK)
def test_every_quick_estimator_gives_one_finite_value_a_sample(evidence, name):
    (estimator,) = named([name])
    if evidence.lacks(estimator.needs):
        with pytest.raises(SampleError, match=rf"{name}: .* not known of these 200 samples; first: .*take another"):
            estimator.fit(evidence)
        return
    found = estimator.fit(evidence)
    assert found.value.shape == (200,)
    assert np.isfinite(found.value).all()
    assert found.stderr is None or (found.stderr >= 0).all()


@pytest.mark.parametrize("estimator", ALL, ids=NAMES)
def test_what_is_not_known_is_said_and_not_made_up(estimator):
    if estimator.needs:
        with pytest.raises(SampleError, match="bring data that has them"):
            estimator.fit(Evidence(label=one_hot(np.array([1.0, 0.0]))))


def test_an_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(SampleError, match=r"1 of 2 names are not known; first: 'magic'.*oof_confidence"):
        named(["oof_confidence", "magic"])
