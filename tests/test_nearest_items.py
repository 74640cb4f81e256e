"""Which items are nearest: all vectors looked at, and the graph, held against what a person would do by hand."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sparse
from crowd import crowd
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.recommend import catalogue, item_graph
from ecom_pipeline.recommend.candidates import Retrieval, retrieve
from ecom_pipeline.recommend.catalogue import Shop, history_texts, with_graph
from ecom_pipeline.recommend.item_graph import ItemGraph, distinct, open_or_build, recall_at_10
from ecom_pipeline.recommend.lists import similar_items
from ecom_pipeline.recommend.nearest_items import DEEPEST, LEAST_FOUND, ExactItems
from ecom_pipeline.recommend.pilot import joined
from ecom_pipeline.recommend.retrieval import Index
from ecom_pipeline.recommend.weighting import UNWEIGHTED

NOTHING = np.empty((0, 24), np.float32)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def wares(n=4000, copies=3, seed=0):
    """Items in clusters; every text stands under about so many items, and item 7 was not read."""
    draw = np.random.default_rng(seed)
    texts = draw.normal(size=(40, 24))[draw.integers(40, size=n // copies)] + 0.7 * draw.normal(size=(n // copies, 24))
    vectors = unit(texts)[draw.integers(n // copies, size=n)]
    vectors[7] = 0
    return vectors


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def graph(kept):
    return open_or_build(kept, wares(), NOTHING)


def queries(n=60, seed=1):
    vectors, draw = wares(), np.random.default_rng(seed)
    return unit(vectors[draw.integers(10, len(vectors), n)] + 0.1 * draw.normal(size=(n, 24)))


@given(
    seed=st.integers(0, 2**31), n=st.integers(1, 40), k=st.integers(1, 50), share=st.sampled_from([1.0, 0.5, 0.1, 0.0])
)
@settings(deadline=None)
def test_all_vectors_are_looked_at_as_a_person_would(seed, n, k, share):
    draw = np.random.default_rng(seed)
    vectors, asked = unit(draw.normal(size=(n, 5))), unit(draw.normal(size=(3, 5)))
    allowed, had = draw.random(n) < share, draw.random((3, n)) < 0.3
    item, cosine = ExactItems(vectors).ask(asked).nearest(k, allowed=allowed, but=sparse.csr_matrix(had))
    for row in range(3):
        may = np.flatnonzero(allowed & ~had[row])
        expected = may[np.argsort(-(vectors[may] @ asked[row]), kind="stable")][:k]
        assert item[row][item[row] >= 0].tolist() == expected.tolist()
        np.testing.assert_allclose(cosine[row][item[row] >= 0], vectors[expected] @ asked[row], atol=1e-6)


def test_the_graph_finds_nearly_all_of_the_nearest_and_says_how_many(graph):
    item, cosine = graph.ask(queries()).nearest(10)
    exact = ExactItems(graph.vectors).ask(queries()).nearest(10)[1]
    assert (cosine >= exact[:, -1:] - 1e-6).mean() > 0.98
    assert graph.told["recall_at_10"] >= LEAST_FOUND
    assert graph.used
    assert (item >= 0).all()
    np.testing.assert_allclose(cosine[3], graph.vectors[item[3]] @ queries()[3], atol=1e-6)  # not those of the graph


def test_items_of_one_text_are_found_together_in_their_order(graph):
    place = 11
    same = np.flatnonzero((graph.vectors == graph.vectors[place]).all(1))
    assert len(same) > 1
    item, _ = graph.ask(graph.vectors[place][None]).nearest(len(same))
    assert item[0].tolist() == same.tolist()


def test_a_thousand_copies_of_one_text_hide_no_other(kept):
    vectors = np.concatenate([np.repeat(wares()[20:21], 1000, axis=0), wares()[100:1100]])
    found = open_or_build(kept, vectors, NOTHING).ask(queries()).nearest(10)[1]
    exact = ExactItems(vectors).ask(queries()).nearest(10)[1]
    assert (found >= exact[:, -1:] - 1e-6).mean() > 0.98


@pytest.mark.parametrize("share", [0.5, 0.05, 0.002])
def test_what_may_not_be_named_is_not_and_as_many_others_are(graph, share):
    draw = np.random.default_rng(2)
    allowed, n = draw.random(len(graph.vectors)) < share, len(queries())
    allowed[7] = False
    had = sparse.random(n, len(graph.vectors), 0.3, format="csr", random_state=0)
    item, cosine = graph.ask(queries()).nearest(5, allowed=allowed, but=had)
    exact = ExactItems(graph.vectors).ask(queries()).nearest(5, allowed=allowed, but=had)
    assert ((item >= 0) == (exact[0] >= 0)).all()
    rows, ranks = np.nonzero(item >= 0)
    assert allowed[item[rows, ranks]].all()
    assert not had.toarray()[rows, item[rows, ranks]].any()
    least = np.where(np.isfinite(exact[1]), exact[1], np.inf).min(1, keepdims=True)
    assert (cosine >= least - 1e-6)[rows, ranks].mean() > 0.95


def test_where_few_may_be_named_all_of_those_are_looked_at(graph):
    far = np.argsort(graph.vectors @ queries()[0])[:4]
    assert graph.n_texts < DEEPEST
    allowed = np.isin(np.arange(len(graph.vectors)), far)
    item, cosine = graph.ask(queries()[:1]).nearest(10, allowed=allowed)
    assert set(item[0][:4]) == set(far)
    assert (item[0][4:] == -1).all()
    assert np.isneginf(cosine[0][4:]).all()


def test_cosines_are_those_of_the_vectors(graph):
    row, item = np.array([0, 0, 3]), np.array([5, 7, 9])
    expected = np.einsum("nd,nd->n", queries()[row], graph.vectors[item])
    np.testing.assert_allclose(graph.ask(queries()).cosines(row, item), expected, atol=1e-6)
    np.testing.assert_allclose(ExactItems(graph.vectors).ask(queries()).cosines(row, item), expected, atol=1e-6)


def test_the_same_vectors_make_the_same_files(graph, tmp_path):
    again = open_or_build(tmp_path, wares(), NOTHING)
    for file in graph.folder.iterdir():
        assert file.read_bytes() == (again.folder / file.name).read_bytes()
    assert open_or_build(tmp_path, wares(seed=3), NOTHING).folder.name != again.folder.name


def test_what_is_kept_is_not_made_again_unless_it_is_damaged(tmp_path):
    vectors = wares(400)
    first = open_or_build(tmp_path, vectors, NOTHING)
    file = first.folder / "graph.usearch"
    number, content = file.stat().st_ino, file.read_bytes()
    assert open_or_build(tmp_path, vectors, NOTHING).folder == first.folder
    assert file.stat().st_ino == number
    file.unlink()
    file.write_bytes(content[:-100] + bytes(100))
    assert open_or_build(tmp_path, vectors, NOTHING).told == first.told
    assert file.read_bytes() == content


def test_other_processes_and_threads_find_the_same(graph):
    asked = [queries(1, seed)[:1] for seed in range(64)]
    alone = [graph.ask(one).nearest(10)[0].tolist() for one in asked]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda one: graph.ask(one).nearest(10)[0].tolist(), asked)) == alone
    assert pickle.loads(pickle.dumps(graph)).ask(asked[0]).nearest(10)[0].tolist() == alone[0]


def test_a_machine_without_the_files_looks_at_all_vectors(tmp_path, caplog):
    sent = pickle.dumps(open_or_build(tmp_path / "here", wares(400), NOTHING))
    (tmp_path / "here").rename(tmp_path / "elsewhere")
    assert isinstance(pickle.loads(sent), ExactItems)
    assert "is not on this machine: all 400 vectors are looked at" in caplog.text


@given(seed=st.integers(0, 2**31), n=st.integers(1, 60))
@settings(deadline=None)
def test_every_item_that_was_read_stands_under_its_text(seed, n):
    draw = np.random.default_rng(seed)
    vectors = draw.integers(-1, 2, size=(n, 3)).astype(np.float32)
    first, items, begins = distinct(vectors)
    assert sorted(items.tolist()) == np.flatnonzero(vectors.any(1)).tolist()
    assert len(np.unique(vectors[first], axis=0)) == len(first)
    for text, place in enumerate(first):
        same = items[begins[text] : begins[text + 1]]
        assert same[0] == place
        assert (vectors[same] == vectors[place]).all()
        assert (np.diff(same) > 0).all()


def test_recall_counts_what_is_as_near_as_the_tenth():
    vectors = np.eye(12, dtype=np.float32)
    asked = unit(np.ones((1, 12)))
    assert recall_at_10(vectors, asked, [np.arange(2, 12)]) == 1.0  # all are as near
    asked = unit(np.arange(12, 0, -1.0)[None])
    assert recall_at_10(vectors, asked, [np.r_[np.arange(8), 11, 10]]) == pytest.approx(0.8)


def shop_with_texts():
    acts, of_items = crowd(n_items=200)
    text = unit(np.random.default_rng(0).normal(size=(acts.n_items, 24)))
    return Shop(acts, type(of_items)(of_items.classes, text))


def test_up_to_a_limit_all_vectors_are_looked_at(tmp_path):
    shop = shop_with_texts()
    assert with_graph(shop, tmp_path) is shop
    assert isinstance(shop.catalogue.by_text, ExactItems)
    assert not list(tmp_path.iterdir())


def test_above_the_limit_lists_hold_what_they_held(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "EXACT_UNTIL", 100)
    exact = shop_with_texts()
    shop = with_graph(exact, tmp_path)
    assert isinstance(shop.catalogue.by_text, ItemGraph)
    acts, visits = shop.acts, shop.acts.next_visits(60, 80)
    assert len(history_texts(shop)) == acts.n_users
    index = Index.fit(acts, 60, weighting=UNWEIGHTED, text=shop.catalogue.text)
    retrieval = Retrieval(n_own=10, n_together=5, n_popular=5, n_text=8)
    one, other = (
        joined(rows for _, rows in retrieve(acts, index, each.catalogue, visits, retrieval)) for each in (exact, shop)
    )
    pairs = [set(zip(rows.visit.tolist(), rows.item.tolist(), strict=True)) for rows in (one, other)]
    assert len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1]) > 0.97
    both = [[pair in pairs[0] & pairs[1] for pair in zip(r.visit, r.item, strict=True)] for r in (one, other)]
    np.testing.assert_allclose(one.known[both[0]], other.known[both[1]], atol=1e-6)


def test_above_the_limit_items_are_like_those_they_were_like(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "EXACT_UNTIL", 100)
    exact = shop_with_texts()
    few = exact.acts.only(exact.acts.item < 50)  # nobody took the others
    shop = with_graph(Shop(few, exact.catalogue), tmp_path)
    one, other = (similar_items(few, 200, by_text=each.catalogue.by_text, top=5) for each in (exact, shop))
    assert (one.channel == "text").sum() > 100
    pairs = [set(zip(rows["item"], rows.similar_item, strict=True)) for rows in (one, other)]
    assert len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1]) > 0.97
    assert not (other["item"] == other.similar_item).any()


def test_a_graph_that_finds_too_few_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "EXACT_UNTIL", 100)
    monkeypatch.setattr(item_graph, "LEAST_FOUND", 1.01)  # what no graph can
    shop = with_graph(shop_with_texts(), tmp_path)
    assert isinstance(shop.catalogue.by_text, ExactItems)
    (told,) = tmp_path.glob("*/graph.json")
    assert '"used": false' in told.read_text()


def test_nothing_asked_is_nothing_found(graph):
    assert graph.ask(NOTHING).nearest(10)[0].shape == (0, 10)
