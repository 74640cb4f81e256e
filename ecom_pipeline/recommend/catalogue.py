"""What the warehouse knows of a shop: what users took, and of the items their classes, texts and whether they can be had.

On the floor above `candidates`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from ecom_pipeline import schema
from ecom_pipeline.arrays import Bools, Ints, Singles
from ecom_pipeline.recommend.candidates import Catalogue
from ecom_pipeline.recommend.interactions import Interactions, day_of, read_interactions
from ecom_pipeline.recommend.nearest_items import EXACT_UNTIL

# letters of an item's `availability`, as shops and schema.org write it
WITHDRAWN = ("outofstock", "soldout", "discontinued", "withdrawn", "unavailable")
_AVAILABLE = (
    "instock",
    "available",
    "preorder",
    "backorder",
    "limitedavailability",
    "onlineonly",
    "instoreonly",
    "presale",
)


@dataclass(frozen=True, slots=True)
class Shop:
    """What users took, and of what."""

    acts: Interactions
    catalogue: Catalogue


def read_shop(
    db: DuckDBPyConnection,
    n_items: int,
    *,
    until: int | None = None,
    divisions: Collection[str] | None = None,
    circumstances: bool = False,
) -> Shop:
    """Interactions and the catalogue that is ranked.

    Args:
        db: a connection to the warehouse.
        n_items: that are ranked, at most; with `until` None those that nobody took are among them where there is room.
        until: the first day that is not read, as days since 1970; None: all days are.
        divisions: as in `read_catalogue`.
        circumstances: whether it is read how acts came about.

    Cost: as `read_interactions` and `read_catalogue`.
    """
    end = None if until is None else day_of(until)
    acts = read_interactions(db, n_items, end, untaken=until is None, circumstances=circumstances)
    return Shop(acts, read_catalogue(db, acts.item_ids, divisions))


def with_graph(shop: Shop, kept: Path) -> Shop:
    """The shop, whose items are found by a graph of their texts where there are more than `EXACT_UNTIL`.

    Args:
        shop: what was taken, and of what.
        kept: folder of graphs.

    Returns:
        The same shop where it has fewer items, or no text was read, or the graph finds too few of the nearest.

    Cost: as `open_or_build`, where there are so many.
    """
    text = shop.catalogue.text
    if text is None or len(text) <= EXACT_UNTIL:
        return shop
    from ecom_pipeline.recommend.item_graph import open_or_build

    graph = open_or_build(kept, text, history_texts(shop))
    return replace(shop, catalogue=replace(shop.catalogue, graph=graph)) if graph.used else shop


def history_texts(shop: Shop, n: int = 500) -> Singles:
    """(k,) unit vectors, the mean of the texts of what a user took, of some users: what lists ask."""
    text, acts = shop.catalogue.text, shop.acts
    assert text is not None
    users = np.unique(np.linspace(0, max(acts.n_users - 1, 0), min(n, acts.n_users)).astype(int))
    mean = np.asarray(acts.matrix(np.ones(len(acts), np.float32))[users] @ text, np.float32)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    return (mean / np.maximum(length, 1e-9))[length.ravel() > 0]


def read_catalogue(db: DuckDBPyConnection, item_ids: NDArray, divisions: Collection[str] | None = None) -> Catalogue:
    """Classes of items, and the vectors of their texts where any text was read.

    Args:
        db: a connection to the warehouse.
        item_ids: sorted; of an item whose text was not read the vector is 0, so it is like nothing.
        divisions: names of those that a ranker knows; None: all that divide.

    Cost: one join; 4 d bytes an item.
    """
    frame = _of(db, item_ids, "items.category, items.brand", "left join items using (item_id)")
    category = frame.category.fillna("")
    parts = category.str.split(" > ")
    every = {
        "top": parts.str[0],
        "middle": parts.str[:2].str.join(" > "),
        "category": category,
        "brand": frame.brand.fillna(""),
    }
    codes = {name: np.unique(values.to_numpy(str), return_inverse=True)[1] for name, values in every.items()}
    return Catalogue(
        {name: codes[name] for name in (dividing(codes) if divisions is None else divisions)}, read_text(db, item_ids)
    )


def dividing(codes: Mapping[str, Ints]) -> list[str]:
    """Names of the divisions that tell items apart, and not just as one before them does.

    >>> dividing({"top": np.array([0, 0]), "category": np.array([0, 1]), "brand": np.array([0, 1])})
    ['category']
    """
    found: list[str] = []
    for name, code in codes.items():
        if code.max(initial=0) > 0 and not any(np.array_equal(code, codes[other]) for other in found):
            found.append(name)
    return found


def read_availability(db: DuckDBPyConnection, item_ids: NDArray) -> NDArray[np.str_]:
    """(items,) "withdrawn" where the source says so in a column `availability`, "available", "unknown", or what it says else.

    Of an address, such as those of schema.org, the last part counts; of that the letters alone.
    """
    said = " , ".join(
        f"json_extract_string(items.attributes, '$.{name}')"
        for name in ("availability", "Availability", "AVAILABILITY")
    )
    letters = f"regexp_replace(regexp_replace(lower(coalesce({said}, '')), '.*/', ''), '[^a-z0-9]', '', 'g')"
    frame = _of(db, item_ids, f"{letters} as said", "left join items using (item_id)")
    found = frame.said.where(~frame.said.isin(WITHDRAWN), "withdrawn")
    return found.where(~found.isin(_AVAILABLE), "available").where(found != "", "unknown").to_numpy(str)


def read_withdrawn(db: DuckDBPyConnection, item_ids: NDArray) -> Bools:
    """(items,) whether the source says of an item that it cannot be had."""
    return read_availability(db, item_ids) == "withdrawn"


def read_titles(db: DuckDBPyConnection, item_ids: NDArray) -> NDArray:
    """(items,) titles."""
    return _of(db, item_ids, "items.title", "join items using (item_id)").title.to_numpy(str)


def read_text(db: DuckDBPyConnection, item_ids: NDArray) -> Singles | None:
    """(items, d) vectors of the items' texts, 0 where a text was not read; None where none was."""
    schema.EMBEDDINGS.create(db)
    read_by = "left join items using (item_id) left join embeddings on text_hash = md5(item_text)"
    rows = _of(db, item_ids, "embedding", read_by).embedding
    read = rows.notna().to_numpy()
    if not read.any():
        return None
    vectors = np.zeros((len(rows), len(rows[read.argmax()])), np.float32)
    vectors[read] = np.stack(rows[read].to_numpy())
    return vectors


def _of(db: DuckDBPyConnection, item_ids: NDArray, columns: str, joined: str) -> pd.DataFrame:
    """Columns of items, in the order of the ids."""
    db.register("wanted", pd.DataFrame({"item_id": item_ids.astype(str), "code": np.arange(len(item_ids))}))
    try:
        return db.execute(f"select {columns} from wanted {joined} order by code").df()
    finally:
        db.unregister("wanted")
