"""What is known of a sample's item beside its text: popularity, category, price and picture, as of the sample's visit.

On the floor of `language`. Nothing is counted that happened when the visit began or later: what a sample is to teach is
never among what it is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from ecom_pipeline import identity, schema
from ecom_pipeline.arrays import Floats, Singles
from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.samples import TAKEN
from ecom_pipeline.schema.relation import tables

MODES = {
    "popularity": ("popularity", "taken_before"),
    "category": ("category_popularity", "category_taken_before"),
    "price": ("price_listed", "price", "price_in_category", "price_from_usual"),
    "image": ("image_similarity", "image"),
}
N_IMAGE_COMPONENTS = 16
NUMBERS = tuple(name for names in MODES.values() for name in names if name != "image")


def columns_of(mode: str, names: Sequence[str]) -> tuple[str, ...]:
    """Those of some columns that tell of a mode, with the marks of what is known.

    >>> columns_of("popularity", ["price", "taken_before", "taken_before_known"])
    ('taken_before', 'taken_before_known')
    """
    own = MODES[mode]
    return tuple(
        name
        for name in names
        if name.removesuffix("_known") in own or ("image" in own and name.startswith("image_component_"))
    )


def build_attributes(db: DuckDBPyConnection, modes: Sequence[str]) -> dict[str, object]:
    """Make `sample_attributes` from `training_samples`, `cleaned_interactions`, `items` and `image_embeddings`.

    A price is the catalogue's; where that has none, what was paid before, on average. A judged pair has no time: it is told
    what the time before the first held-out visit knew.

    Args:
        db: a connection inside a transaction.
        modes: which of `MODES` are told; the columns of others are null.

    Returns:
        Rows that know each column, for the metadata.

    Cost: one scan of `cleaned_interactions`, a sort of what was taken of the samples' items and categories, and a join of
    the samples with what their users took before.
    """
    for relation in (schema.CLEANED_INTERACTIONS, schema.IMAGE_EMBEDDINGS):
        relation.create(db)
    _ask(db, _ASKED)
    told = {name for mode in modes for name in MODES[mode]}
    # the last digits of a sum depend on the order of adding, which is not the same in each run
    shown = {name: f"round({name}, 6)" if name in told else "null" for name in NUMBERS} | {"sample_id": "sample_id"}
    columns = [f"{shown.get(one.name, 'null')}::{one.type} as {one.name}" for one in schema.SAMPLE_ATTRIBUTES.columns]
    db.execute(f"create or replace table sample_attributes as select {', '.join(columns)} from ({_ATTRIBUTES})")
    if "image" in told:
        _add_images(db)
    for name in ("asked", "takes", "usual"):
        db.execute(f"drop table {name}")
    names = [*NUMBERS, "image"]
    (counts,) = db.execute(f"select {', '.join(f'count({name})' for name in names)} from sample_attributes").fetchall()
    return {f"n_with_{name}": n for name, n in zip(names, counts, strict=True)}


def _ask(db: DuckDBPyConnection, asked: str) -> None:
    db.execute(f"create or replace temp table asked as {asked}")
    db.execute(f"create or replace temp table takes as {_TAKES}")
    db.execute(f"create or replace temp table usual as {_USUAL}")


# one row a sample: whose visit it is, and from when on nothing may be known
_CATEGORY = "case when items.category is not null then hash(items.category) end"  # numbers sort faster than paths
_ASKED = f"""
    with held_out as (
        select coalesce(min(occurred_at), 'infinity'::timestamp) as began from training_samples where split <> 'train'),
    acts as (
        select distinct {identity.actor("e")} as actor, query, day from cleaned_interactions as e
        where query is not null and action <> 'return' and day in (select distinct occurred_at::date from training_samples)),
    visits as (
        select distinct actor, day, {identity.group_id("query")} as group_id,
            {identity.visit_id("actor", "query", "day")} as visit_id from acts),
    actors as (
        select sample_id, actor from training_samples as s
        join visits on visits.group_id = s.group_id and visits.day = s.occurred_at::date
        where sample_id = {identity.search_sample_id("visit_id", "item_id")})
    select sample_id, item_id, coalesce(occurred_at, began) as began, actor, {_CATEGORY} as category,
        coalesce(items.currency, '') as currency, case when items.price > 0 then ln(items.price) end as log_price
    from training_samples cross join held_out join items using (item_id) left join actors using (sample_id)"""

_CATALOGUE = f"""
    select item_id as sample_id, item_id, 'infinity'::timestamp as began, null::varchar as actor, {_CATEGORY} as category,
        coalesce(items.currency, '') as currency, case when items.price > 0 then ln(items.price) end as log_price
    from items"""

_TAKES = f"""
    select item_id, occurred_at, {identity.actor("told")} as actor, {_CATEGORY} as category,
        coalesce(currency, '') as currency, case when items.price > 0 then ln(items.price) when told.price > 0 then ln(told.price) end as log_price
    from cleaned_interactions as told join items using (item_id) where {TAKEN}"""

# what the visit's user took before it
_USUAL = """
    select sample_id, count(*) filter (where takes.item_id = asked.item_id) as n_item,
        count(*) filter (where takes.category = asked.category) as n_category,
        avg(takes.log_price) filter (where takes.currency = asked.currency) as log_price
    from asked join takes on takes.actor = asked.actor and takes.occurred_at < asked.began group by sample_id"""


def _so_far(key: str, where: str) -> str:
    """A query: after each moment at which something was taken, how often so far and at what mean log price."""
    return f"""(
        select {key}, occurred_at, sum(count(*)) over so_far as n,
            sum(sum(log_price)) over so_far / sum(count(log_price)) over so_far as log_price
        from takes where {where} group by {key}, occurred_at
        window so_far as (partition by {key} order by occurred_at))"""


def _latest(name: str, key: str, where: str) -> str:
    keys = " and ".join(f"{name}.{one.strip()} = asked.{one.strip()}" for one in key.split(","))
    return f"asof left join {_so_far(key, where)} as {name} on {keys} and asked.began > {name}.occurred_at"


# the shares are of all that was taken; one more for each item, so that what was never taken has a share too. What is
# dear is told by the catalogue, and where that has no prices by what was paid before
_ATTRIBUTES = f"""
    with listed as (
        select {_CATEGORY} as category, coalesce(currency, '') as currency, avg(ln(price)) as log_price
        from items where price > 0 group by all),
    listed_in_all as (
        select coalesce(currency, '') as currency, avg(ln(price)) as log_price from items where price > 0 group by all),
    known as (
        select asked.*, coalesce(of_item.n, 0) as n_item, coalesce(of_category.n, 0) as n_category, of_shop.n as n_shop,
            coalesce(asked.log_price, of_item.log_price) as item_price, coalesce(listed.log_price, of_category.log_price) as category_price,
            coalesce(listed_in_all.log_price, of_shop.log_price) as shop_price, (select count(*) from items) as n_items
        from asked
        {_latest("of_item", "item_id", "item_id in (select item_id from asked)")}
        {_latest("of_category", "category, currency", "category in (select category from asked)")}
        {_latest("of_shop", "currency", "true")}
        left join listed on listed.category = asked.category and listed.currency = asked.currency
        left join listed_in_all on listed_in_all.currency = asked.currency)
    select sample_id, ln((known.n_item + 1) / (n_shop + n_items)) as popularity,
        case when actor is not null then ln(1 + coalesce(usual.n_item, 0)) end as taken_before,
        case when category is not null then ln((known.n_category + 1) / (n_shop + n_items)) end as category_popularity,
        case when actor is not null and category is not null then ln(1 + coalesce(usual.n_category, 0)) end
            as category_taken_before,
        (known.log_price is not null)::double as price_listed, item_price - shop_price as price,
        item_price - category_price as price_in_category, abs(item_price - usual.log_price) as price_from_usual,
        null as image_similarity, null as image
    from known left join usual using (sample_id)"""


def _add_images(db: DuckDBPyConnection) -> None:
    """Principal components of the items' pictures, and how like they are to the pictures of what the user took before."""
    found = _pictures_of(db)
    if found is None:
        return
    item_id, picture, component = found
    db.register("place", pd.DataFrame({"item_id": item_id, "place": np.arange(len(picture))}))
    places = db.execute(
        """select asked.sample_id, own.place, list(distinct earlier.place) as earlier
        from asked join place as own using (item_id)
        left join takes on takes.actor = asked.actor and takes.occurred_at < asked.began
        left join place as earlier on earlier.item_id = takes.item_id group by all"""
    ).df()
    rows = pd.DataFrame({"sample_id": places.sample_id, "image": list(component[places.place])})
    rows["similarity"] = [
        _to_centroid(picture[own], picture[np.array(earlier, np.int64)])
        for own, earlier in zip(places.place, places.earlier.map(_present), strict=True)
    ]
    db.register("found", rows)
    db.execute(
        """update sample_attributes set image = found.image, image_similarity = found.similarity
        from found where found.sample_id = sample_attributes.sample_id"""
    )
    db.unregister("place")
    db.unregister("found")


def _pictures_of(db: DuckDBPyConnection) -> tuple[NDArray, Floats, Singles] | None:
    """Items, their pictures' vectors and the components of these; None where training items have fewer than two."""
    rows = db.execute("select item_id, embedding from image_embeddings where embedding is not null").fetchnumpy()
    train = db.execute("select distinct item_id from training_samples where split = 'train'").fetchnumpy()["item_id"]
    seen = np.isin(rows["item_id"].astype(str), train.astype(str))
    if seen.sum() < 2:
        return None
    picture = np.stack(list(rows["embedding"])).astype(np.float64)
    centre = picture[seen].mean(0)
    variance, directions = np.linalg.eigh(np.cov(picture[seen], rowvar=False))
    kept = slice(-1, -1 - min(N_IMAGE_COMPONENTS, int(seen.sum()) - 1, len(variance)), -1)
    scale = np.sqrt(max(variance[kept].mean(), 1e-12))
    return rows["item_id"].astype(str), picture, ((picture - centre) @ directions[:, kept] / scale).astype(np.float32)


def _present(places: NDArray | None) -> list[int]:
    """A list of DuckDB without its nulls."""
    return [] if places is None else [int(place) for place in places if place is not None and place == place]


def _to_centroid(own: Floats, earlier: Floats) -> float | None:
    if not len(earlier):
        return None
    centroid = earlier.mean(0)
    return float(own @ centroid / max(np.linalg.norm(own) * np.linalg.norm(centroid), 1e-12))


@dataclass(frozen=True, slots=True)
class Attributes:
    """What samples know of their items beside the texts.

    Attributes:
        names: (a,) of the columns.
        value: (n, a) where not known the mean of what is known of training samples, which says neither much nor little.
            Whether a number or a picture is known has a column of its own, `<name>_known`.
    """

    names: tuple[str, ...]
    value: Singles


def read_attributes(db: DuckDBPyConnection, sample_id: Sequence[str]) -> Attributes:
    """The columns that tell samples of the relation apart, for some of them, in their order.

    Raises:
        WarehouseError: if a sample has no row, and others have.
    """
    frame = db.sql("from sample_attributes").df() if "sample_attributes" in tables(db) else pd.DataFrame()
    if frame.empty:
        return Attributes((), np.zeros((len(sample_id), 0), np.float32))
    place = pd.Index(frame.sample_id).get_indexer(pd.Index(sample_id))
    if (place < 0).any():
        first = next(name for name, row in zip(sample_id, place, strict=True) if row < 0)
        raise WarehouseError(
            f"sample_attributes: {int((place < 0).sum())} of {len(place)} samples have no row; first: {first!r}. Every "
            "sample must have one: materialise `sample_attributes` after `training_samples`."
        )
    columns = _columns(frame, _neutral(db, frame))
    told = {name: values[place] for name, values in columns.items() if values.min() < values.max()}
    value = np.column_stack(list(told.values())) if told else np.zeros((len(place), 0), np.float32)
    return Attributes(tuple(told), value)


def catalogue_attributes(db: DuckDBPyConnection, item_ids: Sequence[str]) -> Attributes:
    """What a ranker would be told today of items, in the columns of its samples, for somebody of whom nothing is known.

    Args:
        db: a connection to a warehouse with `sample_attributes`.
        item_ids: of the catalogue.

    Cost: as `build_attributes`, with every item for a sample.
    """
    samples = db.sql("from sample_attributes").df()
    names = read_attributes(db, samples.sample_id).names
    if not names:
        return Attributes((), np.zeros((len(item_ids), 0), np.float32))
    _ask(db, _CATALOGUE)
    frame = db.sql(f"select sample_id, {', '.join(NUMBERS)}, image from ({_ATTRIBUTES})").df().set_index("sample_id")
    frame = frame.loc[list(item_ids)]
    untold = [name for name in NUMBERS if samples[name].isna().all()]
    frame[untold] = np.nan
    pictures = _pictures_of(db) if "image_known" in names else None
    if pictures is not None:
        frame["image"] = pd.Series(list(pictures[2]), index=pictures[0]).reindex(frame.index)
    columns = _columns(frame, _neutral(db, samples))
    for name in ("asked", "takes", "usual"):
        db.execute(f"drop table {name}")
    return Attributes(names, np.column_stack([columns[name] for name in names]))


def _neutral(db: DuckDBPyConnection, samples: pd.DataFrame) -> dict[str, float]:
    """Of each number the mean of what training samples know."""
    trained = db.sql("select sample_id from training_samples where split = 'train'").df().sample_id
    means = samples.loc[samples.sample_id.isin(trained), list(NUMBERS)].astype(np.float64).mean()
    return means.fillna(0).to_dict()


def _columns(frame: pd.DataFrame, neutral: Mapping[str, float]) -> dict[str, Singles]:
    columns: dict[str, Singles] = {}
    for name in NUMBERS:
        known, values = frame[name].notna(), frame[name].astype(np.float64)
        columns[name] = values.fillna(neutral[name]).to_numpy(np.float32)
        columns[f"{name}_known"] = known.to_numpy(np.float32)
    return columns | _pictures(frame.image)


def _pictures(image: pd.Series) -> dict[str, Singles]:
    """A column whether there is a picture, and one a component."""
    known = image.notna().to_numpy()
    if not known.any():
        return {}
    component = np.zeros((len(image), len(image[known].iloc[0])), np.float32)
    component[known] = np.stack(image[known])
    return {"image_known": known.astype(np.float32)} | {
        f"image_component_{place}": values for place, values in enumerate(component.T)
    }
