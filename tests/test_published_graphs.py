"""A publication of more items than all of which are looked at: found by a graph, in lists and in searches."""

from dataclasses import replace

import dagster as dg
import numpy as np
import pytest
from fastapi.testclient import TestClient
from models import write_model as write_language_model
from published import DAY, make_published_shop, serve

from assets.checks import graphs_find_the_nearest_items
from ecom_pipeline import schema
from ecom_pipeline.language.adapted import Named, as_named, open_encoder
from ecom_pipeline.language.encoder import encode
from ecom_pipeline.recommend import catalogue, item_graph
from ecom_pipeline.recommend.catalogue import read_shop, read_titles, read_withdrawn, with_graph
from ecom_pipeline.recommend.item_graph import ItemGraph
from ecom_pipeline.recommend.list_maker import ListRules
from ecom_pipeline.recommend.lists import make
from ecom_pipeline.recommend.nearest_items import LEAST_FOUND, ExactItems
from ecom_pipeline.service import folders, published
from ecom_pipeline.service.published import PublishedModel
from resources.home import Home


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The published shop, whose texts are read, and in which a mug was searched for."""
    work = tmp_path_factory.mktemp("work")
    shop = make_published_shop()
    folder = as_named(Named(write_language_model("bert", work / "bert"), 32), work / "encoders")
    encoder = open_encoder(folder, "cpu")
    texts = [text for (text,) in shop.db.execute("select item_text from items order by item_id").fetchall()]
    vectors = encode(encoder, texts, 1024).embedding
    for relation in schema.RELATIONS.values():
        relation.create(shop.db)
    shop.db.execute(
        "insert into training_samples by name select 's' as sample_id, ? as context_text", ["a mug of kind i7"]
    )
    for text, vector in zip(texts, vectors, strict=True):
        row = [encoder.encoder_id, text, vector.tolist()]
        shop.db.execute(
            "insert into embeddings by name select ? as encoder_id, md5(?) as text_hash, ?::float[] as embedding", row
        )
    saved = shop.given.rankers["weighted"]
    known = read_shop(shop.db, 100, divisions=saved.divisions)
    ids = known.acts.item_ids
    told = {"titles": read_titles(shop.db, ids), "withdrawn": read_withdrawn(shop.db, ids)}
    shop.listed = make(known, saved, DAY, rules=ListRules(5), n_users=40, **told)[["user_id", "item_id"]]
    shop.given = replace(shop.given, shop=known, encoder=folder)
    return shop


@pytest.fixture
def many(monkeypatch):
    """Of ten items on there are too many to look at all."""
    monkeypatch.setattr(catalogue, "EXACT_UNTIL", 10)
    monkeypatch.setattr(published, "EXACT_UNTIL", 10)


def publish(shop, home):
    kept = home / "graphs"
    return shop.publish(home / "published", shop=with_graph(shop.given.shop, kept), graphs=kept)


def test_few_items_are_all_looked_at(shop, tmp_path):
    name = publish(shop, tmp_path)
    model = PublishedModel.read(tmp_path / "published" / name)
    assert isinstance(model.search.by_meaning, ExactItems)
    assert model.told["graphs"] == {}
    assert not (tmp_path / "graphs").exists()


def test_many_items_are_found_by_a_graph_in_lists_and_searches(shop, tmp_path, many):
    name = publish(shop, tmp_path)
    folder = tmp_path / "published" / name
    model = PublishedModel.read(folder)
    assert set(model.told["graphs"]) == {"lists", "search"}
    assert isinstance(model.search.by_meaning, ItemGraph)
    assert isinstance(model.makers["weighted"].catalogue.by_text, ItemGraph)
    told = folders.pointer(tmp_path / "published")["measured"]
    assert min(told["recall_at_10_of_search"], told["recall_at_10_of_lists"]) >= LEAST_FOUND
    app, serving = serve(tmp_path)
    with TestClient(app) as client:
        found = client.post("/search", json={"query": "a mug of kind i7", "top": 3, "explain": True}).json()["results"]
        assert found[0]["item_id"] == "i7"
        assert found[0]["explain"]["cosine"] == pytest.approx(1, abs=1e-5)
        alike = client.post("/similar", json={"text": "a mug of kind i9", "top": 5}).json()["results"]
        assert alike[0]["item_id"] == "i9"
        assert "i3" not in {one["item_id"] for one in alike}  # withdrawn
    serving.close()


def test_the_same_model_has_the_same_name_and_a_graph_that_was_changed_does_not_serve(shop, tmp_path, many):
    names = {publish(shop, tmp_path / place) for place in ("here", "there")}
    assert len(names) == 1
    folder = tmp_path / "here" / "published" / names.pop()
    file = folder / "graphs" / "search" / "graph.usearch"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    file.write_bytes(content)
    assert not folders.whole(folder)


def test_a_graph_that_finds_too_few_is_told_and_all_items_are_looked_at(shop, tmp_path, many, monkeypatch):
    home = Home(path=str(tmp_path))
    name = publish(shop, tmp_path)
    passed = graphs_find_the_nearest_items(home)
    assert passed.passed
    assert passed.metadata["n_graphs"].value == 2
    monkeypatch.setattr(item_graph, "recall_at_10", lambda *_: 0.9)
    worse = publish(shop, tmp_path / "worse")
    model = PublishedModel.read(tmp_path / "worse" / "published" / worse)
    assert worse != name
    assert isinstance(model.search.by_meaning, ExactItems)
    assert isinstance(model.makers["weighted"].catalogue.by_text, ExactItems)
    failed = graphs_find_the_nearest_items(Home(path=str(tmp_path / "worse")))
    assert not failed.passed
    assert failed.severity == dg.AssetCheckSeverity.WARN
    assert "2 of 2 find too few of the ten nearest; first: recall_at_10_of_" in failed.description
    assert np.isclose(failed.metadata["recall_at_10_of_search"].value, 0.9)
