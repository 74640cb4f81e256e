"""A published model: all that serving needs in one folder, written from the warehouse and read without it.

On the floor of `service`.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.arrays import Bools, Ints, Singles
from ecom_pipeline.language.adapted import open_encoder
from ecom_pipeline.language.attributes import catalogue_attributes
from ecom_pipeline.language.encoder import Encoder, tokenize
from ecom_pipeline.language.frozen import TokenTexts
from ecom_pipeline.ranking.twins import UNWEIGHTED, WEIGHTED, load_ranker, read_design, read_manifest, read_projection
from ecom_pipeline.recommend.candidates import Catalogue, Market
from ecom_pipeline.recommend.catalogue import Shop, history_texts, read_text, read_withdrawn
from ecom_pipeline.recommend.interactions import Interactions
from ecom_pipeline.recommend.list_maker import ListMaker
from ecom_pipeline.recommend.lists import popular_list, similar_items
from ecom_pipeline.recommend.nearest_items import EXACT_UNTIL, ExactItems
from ecom_pipeline.recommend.private.head import PrivateRanker
from ecom_pipeline.recommend.retrieval import Index
from ecom_pipeline.recommend.saved import SavedRanker
from ecom_pipeline.schema import JOURNAL
from ecom_pipeline.service.doubtful import effect_of_answers, read_suspects, write_suspects
from ecom_pipeline.service.folders import verified
from ecom_pipeline.service.search import TOKEN_BUDGET, PairRanker, Search, Words, index_words
from ecom_pipeline.service.storage import (
    read_acts,
    read_array,
    read_arrays,
    read_item_item,
    read_lately,
    write_acts,
    write_arrays,
    write_item_item,
    write_lately,
)

if TYPE_CHECKING:
    from ecom_pipeline.recommend.item_graph import ItemGraph
    from ecom_pipeline.recommend.sequence import SequenceModel

N_POPULAR, N_SIMILAR = 200, 50
SYSTEMS = (WEIGHTED, UNWEIGHTED)


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a model is published from, beside the warehouse.

    Attributes:
        shop: what was taken, and of what.
        day: for which lists are made.
        rankers: of the catalogue, by system; empty where there were too few days to learn from.
        encoder: folder of the encoder in use; None where nothing was read.
        models: folder of the trained twins; None where nothing was judged or searched for.
        journal: the last event of the journal that is among what was taken.
        graphs: folder of the graphs by which near texts are found in large catalogues.
    """

    shop: Shop
    day: int
    rankers: Mapping[str, SavedRanker]
    encoder: Path | None
    models: Path | None
    journal: int
    graphs: Path


def write_model(folder: Path, db: DuckDBPyConnection, given: Ingredients) -> dict[str, object]:
    """Fill a folder with a model, and return what is told of it.

    Cost: as `Index.fit` for each system; of twins whose layers learnt, one reading of every item that was read.
    """
    acts, catalogue = given.shop.acts, given.shop.catalogue
    items = _items(db, acts)
    items.to_parquet(folder / "items.parquet", index=False)
    pd.DataFrame({"user_id": acts.user_ids}).to_parquet(folder / "users.parquet", index=False)
    write_acts(folder / "acts", acts)
    write_arrays(folder / "classes", {name: np.asarray(code) for name, code in catalogue.classes.items()})
    index_words(items.item_text, folder / "words")
    withdrawn = items.withdrawn.to_numpy()[: acts.n_items]
    _write_lists(folder, acts, given, withdrawn=withdrawn)
    told: dict[str, object] = {
        "day": given.day,
        "journal": given.journal,
        "n_items": len(items),
        "n_ranked": acts.n_items,
    }
    vectors = read_text(db, items.item_id.to_numpy(str)) if given.encoder else None
    if given.encoder and vectors is not None:
        write_arrays(folder, {"vectors": vectors})
        told["graphs"] = _write_graphs(folder / "graphs", db, given, vectors)
        shutil.copytree(given.encoder, folder / "encoder", copy_function=_linked)
    if given.models and vectors is not None:
        told["twins"] = _write_twins(folder, db, given.models, items)
    write_suspects(folder, db)
    told |= effect_of_answers(db)
    told["lists"] = {
        name: _write_maker(folder / name, ListMaker.fit(given.shop, saved, given.day, withdrawn=withdrawn), saved)
        for name, saved in given.rankers.items()
    }
    told["classes"] = list(catalogue.classes)
    return told | promises_of(given.rankers)


def _write_graphs(folder: Path, db: DuckDBPyConnection, given: Ingredients, vectors: Singles) -> dict[str, Any]:
    """What lists, and what searches find near texts by, where there are so many items; and what is told of each."""
    from ecom_pipeline.recommend.item_graph import open_or_build

    n_ranked, found = given.shop.acts.n_items, {}
    if n_ranked > EXACT_UNTIL and vectors[:n_ranked].any():
        found["lists"] = open_or_build(given.graphs, vectors[:n_ranked], history_texts(given.shop))
    if len(vectors) > EXACT_UNTIL:
        found["search"] = open_or_build(given.graphs, vectors, _queries(db, vectors))
    for name, graph in found.items():
        graph.copy_to(folder / name)
    return {name: dict(graph.told) for name, graph in found.items()}


def _queries(db: DuckDBPyConnection, vectors: Singles, n: int = 500) -> Singles:
    """(k, d) what people searched for, as it was read; k may be 0."""
    asked = db.execute(
        """select embedding from embeddings semi join (
            select md5(context_text) as text_hash from training_samples) using (text_hash) order by text_hash limit ?""",
        [n],
    ).fetchnumpy()["embedding"]
    return np.stack(list(asked)) if len(asked) else np.empty((0, vectors.shape[1]), np.float32)


def promises_of(rankers: Mapping[str, SavedRanker]) -> dict[str, object]:
    """What was promised of the users' privacy, under `private` by system; nothing where rankers learnt without."""
    private = {name: one.ranker for name, one in rankers.items() if isinstance(one.ranker, PrivateRanker)}
    return {"private": {name: one.promise.to_json() for name, one in private.items()}} if private else {}


def journal_until(db: DuckDBPyConnection) -> int:
    """The last place of the journal up to which every event was cleaned or rejected; 0 where none was."""
    place = "regexp_extract(file, 'events-([0-9]+)-([0-9]+)', {})::bigint".format
    of_journal = f"relation = 'events' and starts_with(file, '{JOURNAL}')"
    (last,) = db.execute(f"select coalesce(max({place(2)}), 0) from landed_files where {of_journal}").fetchall()[0]
    (waiting,) = db.execute(
        f"""select min({place(1)}) from raw_events as r where starts_with(file, '{JOURNAL}')
            and event_id not in (select event_id from cleaned_interactions)
            and (file, row_number) not in (select (file, row_number) from rejected_rows where source = 'events')"""
    ).fetchall()[0]
    return last if waiting is None else min(last, waiting - 1)


def _items(db: DuckDBPyConnection, acts: Interactions) -> pd.DataFrame:
    """Every item, those that are ranked first and in their order."""
    frame = db.execute(
        "select item_id, title, brand, category, price, currency, image_uri, item_text from items order by item_id"
    ).df()
    ranked = pd.Index(acts.item_ids)
    place = ranked.get_indexer(pd.Index(frame.item_id))
    order = np.lexsort((np.arange(len(frame)), np.where(place < 0, len(ranked), place)))
    frame = frame.iloc[order].reset_index(drop=True)
    return frame.assign(withdrawn=read_withdrawn(db, frame.item_id.to_numpy(str)))


def _write_lists(folder: Path, acts: Interactions, given: Ingredients, *, withdrawn: Bools) -> None:
    popular = popular_list(acts, given.day, top=N_POPULAR, withdrawn=withdrawn)
    write_arrays(folder / "popular", {name: popular[name].to_numpy() for name in ("item", "score", "popular")})
    alike = similar_items(acts, given.day, by_text=given.shop.catalogue.by_text, top=N_SIMILAR)
    alike = alike.assign(by_text=alike.channel == "text")
    columns = ("item", "similar_item", "score", "by_text")
    write_arrays(folder / "similar", {name: alike[name].to_numpy() for name in columns})


def _write_maker(folder: Path, maker: ListMaker, saved: SavedRanker) -> dict[str, Any]:
    index = maker.index
    saved.write(folder / "ranker", {})
    told = write_item_item(folder / "together", index.together)
    columns = ("opinion", "pairs", "n_users", "repeat_share", "usual_gap")
    write_arrays(folder / "index", {name: getattr(index, name) for name in columns})
    if index.sequence:
        index.sequence.write(folder / "sequence")
    write_lately(folder / "lately", maker.market.lately)
    write_arrays(
        folder / "maker", {"prices": maker.market.prices, "soonest": maker.soonest, "co_taken": maker.co_taken}
    )
    return {"together": told}


def _write_twins(folder: Path, db: DuckDBPyConnection, models: Path, items: pd.DataFrame) -> dict[str, Any]:
    """Both twins' first rankers, and the items as their own towers read them."""
    known = catalogue_attributes(db, items.item_id.tolist())
    place = folder / "twins"
    write_arrays(place / "attributes", {"value": known.value})
    manifest = read_manifest(models)
    names = [f"{name}-{manifest['twins'][name]['seeds'][0]['seed']}.safetensors" for name in SYSTEMS]
    for name in ("manifest.json", "projection.safetensors", *names):
        _linked(models / name, place / name)
    if read_design(models).architecture == "two_tower":
        vectors = read_array(folder / "vectors.npy")
        for name in SYSTEMS:
            seed = manifest["twins"][name]["seeds"][0]
            if seed["best_epoch"]:  # its layers have learnt: they read otherwise than the encoder
                encoder = open_encoder(folder / "encoder", "cpu")
                own = _read_by(
                    encoder, models, name, seed["seed"], items.item_text.tolist(), np.flatnonzero(vectors.any(1))
                )
                write_arrays(place / "vectors", {name: own})
    return {"attributes": list(known.names)}


def _read_by(encoder: Encoder, models: Path, name: str, seed: int, texts: list[str], rows: Ints) -> np.ndarray:
    tokens = TokenTexts(encoder, tokenize(encoder, [texts[row] for row in rows]))
    found = load_ranker(encoder, models, name, seed, tokens).encode(tokens, np.arange(len(rows)), TOKEN_BUDGET)
    vectors = np.zeros((len(texts), found.shape[1]), np.float32)
    vectors[rows] = found.cpu().numpy()
    return vectors


def _linked(source: str | Path, target: str | Path) -> None:
    """The same file under another name where that can be: models are not written to."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@dataclass(frozen=True)
class PublishedModel:
    """A model as it is asked.

    Attributes:
        name: hash of its files.
        told: its manifest.
        items: every item: item_id, title, brand, category, price, currency, image_uri, item_text, withdrawn; those that
            are ranked first.
        acts: histories.
        makers: of lists, by system.
        search: answers queries.
        popular: item (code), score, popular: what is shown to those of whom nothing is known.
        similar: item, similar_item (codes), score, by_text; by item, the most alike first.
        suspects: samples that are probably mislabelled, as `write_suspects` has them.
        grades: that a rater may give.
    """

    name: str
    told: Mapping[str, Any]
    items: pd.DataFrame
    acts: Interactions
    makers: Mapping[str, ListMaker]
    search: Search
    popular: pd.DataFrame
    similar: pd.DataFrame
    suspects: pd.DataFrame
    grades: list[float]

    @classmethod
    def read(cls, folder: Path) -> "PublishedModel":
        """A model that was published.

        Raises:
            PublicationError: if a file is missing or was changed.

        Cost: every file is read once for its hash; arrays are memory-mapped then.
        """
        told = verified(folder)
        items = pd.read_parquet(folder / "items.parquet")
        n_ranked = told["n_ranked"]
        users = pd.read_parquet(folder / "users.parquet").user_id.to_numpy(str)
        acts = read_acts(folder / "acts", users, items.item_id.to_numpy(str)[:n_ranked])
        vectors = read_array(folder / "vectors.npy") if (folder / "vectors.npy").is_file() else None
        classes = read_arrays(folder / "classes")
        text = None if vectors is None or not vectors[:n_ranked].any() else vectors[:n_ranked]
        graph = None if text is None else _read_graph(folder / "graphs" / "lists", text)
        catalogue = Catalogue({name: classes[name] for name in told["classes"]}, text, graph)
        withdrawn = items.withdrawn.to_numpy()[:n_ranked]
        suspects, grades = read_suspects(folder)
        makers = {
            name: _read_maker(folder / name, one, catalogue, told["day"], withdrawn=withdrawn)
            for name, one in told["lists"].items()
        }
        return cls(
            name=told["name"],
            told=told,
            items=items,
            acts=acts,
            makers=makers,
            search=_read_search(folder, told, items, vectors),
            popular=pd.DataFrame({name: np.array(values) for name, values in read_arrays(folder / "popular").items()}),
            similar=pd.DataFrame({name: np.array(values) for name, values in read_arrays(folder / "similar").items()}),
            suspects=suspects,
            grades=grades,
        )

    @cached_property
    def place(self) -> dict[str, int]:
        """Place of each item among `items`."""
        return {item_id: place for place, item_id in enumerate(self.items.item_id)}

    @cached_property
    def user(self) -> dict[str, int]:
        """Code of each user among `acts.user_ids`."""
        return {user_id: code for code, user_id in enumerate(self.acts.user_ids)}

    @cached_property
    def first_similar(self) -> Ints:
        """(ranked + 1,) where each item's rows of `similar` begin."""
        return np.searchsorted(self.similar.item, np.arange(self.acts.n_items + 1))


def _read_maker(
    folder: Path, told: Mapping[str, Any], catalogue: Catalogue, day: int, *, withdrawn: Bools
) -> ListMaker:
    saved, index, kept = (
        SavedRanker.read(folder / "ranker"),
        read_arrays(folder / "index"),
        read_arrays(folder / "maker"),
    )
    together = read_item_item(folder / "together", told["together"])
    opinion = index.pop("opinion", None)
    sequence = _read_sequence(folder / "sequence")
    known = Index(day, saved.weighting, together, opinion, text=catalogue.text, sequence=sequence, **index)
    market = Market(read_lately(folder / "lately"), kept["prices"])
    return ListMaker(
        *(known, catalogue, market, saved.retrieval, saved.ranker),
        soonest=kept["soonest"],
        co_taken=kept["co_taken"],
        withdrawn=withdrawn,
    )


def _read_sequence(folder: Path) -> "SequenceModel | None":
    if not folder.is_dir():
        return None
    from ecom_pipeline.recommend.sequence import SequenceModel

    return SequenceModel.read(folder)


def _read_graph(folder: Path, vectors: Singles) -> "ItemGraph | None":
    """The graph that was published of some vectors; None where there is none, or it finds too few."""
    if not folder.is_dir():
        return None
    from ecom_pipeline.recommend.item_graph import ItemGraph

    graph = ItemGraph(vectors, folder)
    return graph if graph.used else None


def _read_search(folder: Path, told: Mapping[str, Any], items: pd.DataFrame, vectors: np.ndarray | None) -> Search:
    encoder = open_encoder(folder / "encoder", "cpu") if vectors is not None else None
    rankers = {}
    if encoder is not None and vectors is not None and "twins" in told:
        place = folder / "twins"
        manifest, own = read_manifest(place), read_arrays(place / "vectors")
        given = read_arrays(place / "attributes")["value"]
        for name in SYSTEMS:
            seed = manifest["twins"][name]["seeds"][0]["seed"]
            ranker = load_ranker(encoder, place, name, seed, TokenTexts(encoder, []))
            rankers[name] = PairRanker(
                ranker=ranker,
                architecture=read_design(place).architecture,
                projection=read_projection(place),
                vectors=own.get(name, vectors),
                given=given,
                names=tuple(told["twins"]["attributes"]),
            )
    words, by_meaning = Words.read(folder / "words"), None
    if vectors is not None:
        by_meaning = _read_graph(folder / "graphs" / "search", vectors) or ExactItems(vectors)
    return Search(words, by_meaning, encoder, rankers, items.title.to_numpy(str), items.item_text.to_numpy(str))
