import shutil
import subprocess

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import ecom
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score
from test_report import CHROMIUM, FLAGS

from ecom_pipeline import schema
from ecom_pipeline.benchmark import leaderboard
from ecom_pipeline.benchmark.dataset import from_samples, generated, told_samples
from ecom_pipeline.benchmark.finding import found, lower_of_two_means
from ecom_pipeline.benchmark.noise import KINDS, corrupted
from ecom_pipeline.benchmark.run import Plan, everything, left_out, noises, tasks
from ecom_pipeline.benchmark.training import Labels, LinearLearner, NetworkLearner, removal_areas, tuned_scores
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.networks import NetworkSettings
from ecom_pipeline.importance.selection import Search
from ecom_pipeline.language.embeddings import sample_features

FEW = ("oof_confidence", "aum", "knn_shapley", "influence", "class_balance")


@pytest.fixture(scope="module")
def figures():
    plan = Plan(FEW, (("natural", 0.0), ("random", 0.3)), ("find", "curve", "linear"), 2, Search(n_trials=12))
    return everything(generated(600, 0, n_features=8), plan, [200, 400], "cpu")


@given(st.sampled_from(KINDS), st.floats(0.01, 0.6), st.integers(0, 99))
def test_labels_go_wrong_in_the_way_that_is_said(kind, share, seed):
    draw = np.random.default_rng(seed)
    label, item = (draw.random(400) < 0.4).astype(float), draw.integers(0, 20, 400)
    wrong = corrupted(label, item, kind, share, draw) != label
    if kind == "missing_positives":
        assert not wrong[label == 0].any()
        assert wrong[label == 1].mean() == pytest.approx(share, abs=0.2)
    elif kind == "popular_clicks":
        assert not wrong[label == 1].any()
        assert wrong.sum() == min(int(share * 400), int((label == 0).sum()) // 2)
    else:
        assert wrong.mean() == pytest.approx(share, abs=0.15)


def test_clicks_are_faked_at_popular_items_more_often():
    label, item = np.zeros(2000), np.r_[np.zeros(1000, int), 1 + np.arange(1000)]
    wrong = corrupted(label, item, "popular_clicks", 0.2, np.random.default_rng(0)) > 0
    assert wrong[:1000].mean() > 5 * wrong[1000:].mean()


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=30).filter(lambda v: len(set(v)) > 1))
def test_two_means_are_as_good_as_those_of_scikit_learn(values):
    value = np.array(values, float)
    low = lower_of_two_means(value)
    ours = value[low].var() * low.sum() + value[~low].var() * (~low).sum()
    peer = KMeans(2, n_init=10, random_state=0).fit(value[:, None])
    assert ours <= peer.inertia_ + 1e-6
    assert value[low].max() < value[~low].min()


def test_figures_of_finding_are_those_of_scikit_learn_and_by_hand():
    wrong, value = np.array([True, False, True, False, False]), np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    told = found(wrong, value)
    assert told["auroc"] == roc_auc_score(wrong, -value)
    assert told["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert told["precision_at_count"] == 0.5
    assert told["f1_two_means"] == pytest.approx(2 * 2 / (2 + 3))


def test_within_grades_the_grade_itself_tells_nothing():
    grade = np.repeat([1.0, 2.0], 50)
    wrong = np.random.default_rng(0).random(100) < np.where(grade == 1, 0.9, 0.1)
    assert found(wrong, grade)["auroc"] > 0.8
    assert found(wrong, grade, grade)["auroc_within_grade"] == 0.5


def test_rows_keep_the_relation_and_random_values_find_nothing(figures):
    with duckdb.connect() as db:
        relation = schema.IMPORTANCE_BENCHMARK
        columns = ", ".join(f"{c.name}::{c.type} as {c.name}" for c in relation.columns)
        db.execute(f"create table {relation.name} as select {columns} from figures")
        assert [str(v) for v in schema.violations(db, relation) if v.n_rows] == []
    auroc = figures[(figures.metric == "auroc") & (figures.noise_kind == "random")].set_index("estimator").value
    assert auroc["random"] == pytest.approx(0.5, abs=0.06)
    assert auroc["oof_confidence"] > 0.75
    assert "class_balance" not in auroc.index


def test_each_gain_is_the_difference_to_the_twin(figures):
    part = figures[(figures.task == "linear") & (figures.noise_kind == "random")]
    wide = part.pivot(index="estimator", columns="metric", values="value")
    gain = wide.ndcg_at_10 - wide.ndcg_at_10["unweighted"]
    np.testing.assert_allclose(gain.drop("unweighted"), wide["ndcg_at_10 gain"].drop("unweighted"), atol=1e-9)
    assert {"oracle", "automatic"} <= set(wide.index)


def test_the_oracle_is_not_told_where_the_truth_is_not_known(figures):
    assert "oracle" not in set(figures[figures.noise_kind == "natural"].estimator)


def test_cost_grows_between_the_sizes(figures):
    cost = figures[figures.task == "cost"]
    assert set(cost[cost.metric == "seconds"].dataset) == {"generated_200", "generated_400"}
    assert set(cost[cost.metric == "growth"].estimator) == set(FEW)


def test_removing_what_is_wrong_helps_and_removing_at_random_does_not():
    dataset = generated(1000, 1, n_features=8)
    draw = np.random.default_rng(0)
    noisy = corrupted(dataset.train.rows.label, dataset.train.item, "random", 0.4, draw)
    right = (noisy == dataset.train.rows.label).astype(float)
    labels = Labels(noisy, dataset.validation.rows.label, right == 0)
    areas = removal_areas(
        dataset, labels, {"truth": right + 0.01 * draw.random(1000), "random": draw.random(1000)}, "cpu"
    )
    assert areas["truth"]["removal_gain"] > areas["random"]["removal_gain"]
    assert areas["truth"]["addition_gain"] > areas["random"]["addition_gain"]


@pytest.mark.parametrize("learner", [LinearLearner(), NetworkLearner(NetworkSettings(width=4, n_epochs=2))])
def test_equal_values_train_the_twin_itself(learner):
    dataset = generated(200, 0, n_features=4)
    clean = Labels(dataset.train.rows.label, dataset.validation.rows.label, None)
    first, second = (
        learner.scores(dataset.train.features, clean.train, weight, (1.0, 3.0), [dataset.test.features], "cpu")[0]
        for weight in (np.ones((200, 1)), np.ones((200, 3)))
    )
    np.testing.assert_allclose(second, np.repeat(first, 3, 0), atol=1e-4)
    told = tuned_scores(dataset, clean, {"flat": np.ones(200)}, LinearLearner(), Search(n_trials=12), "cpu")
    assert set(told) == {"unweighted", "flat", "automatic"}


def test_what_cannot_be_read_is_refused():
    with pytest.raises(SampleError, match=r"1 of 2 cannot be read; first: 'random:2'.*such as 'random:0.2'"):
        noises(["natural", "random:2"])
    with pytest.raises(SampleError, match=r"1 of 2 names are not known; first: 'win'.*must be one of find, curve"):
        tasks(["find", "win"])


def test_what_the_data_lack_is_told():
    names = ("oof_confidence", "aum", "recency", "inverse_propensity", "knn_shapley")
    assert left_out(generated(200, 0), names) == {"recency": "age_days", "inverse_propensity": "propensity"}


def test_a_setting_that_cannot_be_taken_ends_with_2(finished, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("ops: {importance_benchmark: {config: {n_seeds: 0}}}")
    told = ecom("benchmark", "--config", config, home=finished.home)
    assert told.returncode == 2
    assert (
        "1 settings cannot be taken; first: 'n_seeds' is 0. Input should be greater than or equal to 1" in told.stderr
    )


def test_a_dataset_of_a_home_has_its_splits_and_its_disputed_labels(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as db:
        samples = told_samples(db)
        features = sample_features(db, samples)
        dataset = from_samples("shop", samples, features, 10, 2)
    assert len(dataset.train.features) == (samples.split == "train").sum()
    assert dataset.train.features.shape[1] == dataset.test.features.shape[1] == 10 + features.match.shape[1] + 1
    assert samples.returned.sum() <= 1


def test_the_benchmark_of_a_home_is_made_when_asked_for(finished, tmp_path):
    home, config = tmp_path / "home", tmp_path / "config.yaml"
    shutil.copytree(finished.home, home)
    config.write_text(
        "ops: {importance_benchmark: {config: {estimators: [oof_confidence, literal_prediction_gap], cost_sizes: [], "
        "noises: ['random:0.2'], n_trials: 12, n_components: 20, name: shop}}}"
    )
    told = ecom("benchmark", "--config", config, "--seeds", 2, home=home, check=True)
    assert "shop, 20% labels turned over at random: oof_confidence finds them best, AUROC" in told.stdout
    assert "the automatic choice" in told.stdout
    with duckdb.connect(str(home / "warehouse.duckdb")) as db:
        assert db.execute("select max(n_seeds) from importance_benchmark").fetchone() == (2,)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_a_real_browser_sorts_the_leaderboard(figures, tmp_path):
    page = tmp_path / "b.html"
    leaderboard.write(figures, page, {"recency": "age_days"}, "Of generated data.")
    text = page.read_text()
    assert "http" not in text.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl", ""
    ).replace("http://creativecommons", "")
    # a click on the first column's name sorts by it, which the page's own script does
    page.write_text(text.replace("</body>", "<script>document.querySelector('th button').click()</script></body>"))
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path / 'u'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    first = shown.split("<tbody>")[1].split("</tbody>")[0]
    names = [row.split("</td>")[0] for row in first.split("<td>")[1:]]
    assert names == sorted(names, reverse=True)
    assert 'aria-sort="descending"' in shown


def test_verdicts_say_who_finds_and_whether_weights_help(figures):
    told = " ".join(leaderboard.verdicts(figures))
    assert "finds them best, AUROC" in told
    assert "who knows the wrong labels" in told


def test_the_page_is_written_without_cost_and_with_one_seed(tmp_path):
    plan = Plan(("oof_confidence",), (("random", 0.2),), ("find",), 1)
    figures = everything(generated(200, 0, n_features=4), plan, [], "cpu")
    leaderboard.write(figures, tmp_path / "b.html", {})
    assert "oof_confidence" in (tmp_path / "b.html").read_text()
    assert pd.isna(figures.ci_low).all()
