"""What the language model learns from: texts of the catalogue, and pairs of texts that belong together.

On the floor of `language`. Nothing that is tested on is in it: behaviour is from the first half of the days and from before
the first held-out search visit, and queries that are held back are left out. Texts of the catalogue carry no label and are all allowed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity, schema
from ecom_pipeline.arrays import Ints
from ecom_pipeline.language.adaptation.settings import Adaptation
from ecom_pipeline.samples import TAKEN


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of texts, by their row among all texts.

    Attributes:
        left: (n,) queries, histories or titles.
        right: (n,) what belongs to each.
        refused: (m, 2) pairs that were judged not to belong together.
    """

    left: Ints
    right: Ints
    refused: Ints

    def __len__(self) -> int:
        return len(self.left)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything that is read.

    Attributes:
        texts: distinct texts.
        language: (n,) rows of texts whose words are guessed.
        pairs: objective to its pairs.
        catalogue: (n,) rows of texts of items, that hard negatives are looked for among.
        keys: (n,) sorted hashes of everything that is learnt from: what is new since last time is told by them.
    """

    texts: tuple[str, ...]
    language: Ints
    pairs: dict[str, Pairs]
    catalogue: Ints
    keys: Ints

    @property
    def digest(self) -> str:
        """Changes when any of it does."""
        return hashlib.sha256(self.keys.tobytes()).hexdigest()[:16]

    def new_share(self, earlier: Ints) -> float:
        """Share of it that was not there earlier; 0 where there is nothing at all."""
        return float(np.isin(self.keys, earlier, invert=True).mean()) if len(self.keys) else 0.0

    def size(self, objective: str) -> int:
        """Ints that an objective has."""
        return len(self.language) if objective == "language" else len(self.pairs[objective])

    def shares(self, settings: Adaptation) -> dict[str, float]:
        """Objective to share of the steps, of those that are asked for and have something to learn from."""
        return {name: share for name, share in settings.shares.items() if share and self.size(name) >= 2}


def read_corpus(db: DuckDBPyConnection, settings: Adaptation) -> Corpus:
    """What can be learnt from now, at most as much as the steps can read.

    Args:
        db: a connection to the warehouse; temporary tables are made and dropped.
        settings: how many rows each objective reads, and whether training samples are among them.

    Cost: one scan of `cleaned_interactions`, and a join of the visits kept with the history of their users. Not random:
    rows are those with the lowest hash, so that new data is added to old in proportion.
    """
    if not settings.n_steps:
        none = pd.DataFrame({"first": [], "second": [], "refused": []})
        return gather([], dict.fromkeys(("query", "history", "attribute"), none), [])
    for relation in (schema.JUDGMENTS, schema.CLEANED_INTERACTIONS):
        relation.create(db)
    told = {name: _rows(db, query) for name, query in _queries(db, settings).items()}
    db.execute("drop table visited; drop table told")
    return gather(told["language"].second.tolist(), told, told["catalogue"].second.tolist())


def gather(language: Sequence[str], told: dict[str, pd.DataFrame], catalogue: Sequence[str]) -> Corpus:
    """A corpus of texts and of frames with the columns first, second and refused, one a pair objective."""
    objectives = ("query", "history", "attribute")
    columns = [told[name][side] for name in objectives for side in ("first", "second")]
    texts = sorted(set(language) | set(catalogue) | {text for column in columns for text in column})
    place = {text: row for row, text in enumerate(texts)}

    def rows(column: Sequence[str]) -> Ints:
        return np.array([place[text] for text in column], np.int64)

    def pairs(frame: pd.DataFrame) -> Pairs:
        kept, refused = (frame[frame.refused.astype(bool) == side] for side in (False, True))
        both = np.column_stack([rows(refused["first"]), rows(refused["second"])])
        return Pairs(rows(kept["first"]), rows(kept["second"]), both.reshape(-1, 2))

    keys = [_key(("language", text)) for text in language]
    for name in objectives:
        keys += [_key((name, *row)) for row in told[name].itertuples(index=False)]
    found = {name: pairs(told[name]) for name in objectives}
    return Corpus(tuple(texts), rows(language), found, rows(catalogue), np.unique(np.array(keys, np.int64)))


def _key(row: tuple) -> int:
    return int.from_bytes(hashlib.md5("\x1f".join(map(str, row)).encode()).digest()[:8], "big", signed=True)


def _rows(db: DuckDBPyConnection, query: str) -> pd.DataFrame:
    found = db.execute(query).df()
    return found.assign(refused=found.refused.astype(bool))


def _queries(db: DuckDBPyConnection, settings: Adaptation) -> dict[str, str]:
    """Name to a query for its rows: first, second, and whether the pair was judged not to belong together."""
    _behaviour(db, settings)
    own = "split = 'train'" if settings.from_samples else "false"
    attribute = "concat_ws('. ', brand, category)"
    return {
        "language": f"""
            select '' as first, text as second, false as refused from (
                select distinct item_text as text from items union select distinct query from visited
                where query is not null)
            order by md5(text) limit {settings.needs("language")}""",
        "query": f"""
            select distinct first, second, refused from (
                select query as first, item_text as second, false as refused from visited join items using (item_id)
                where query is not null
                union all
                select context_text, item_text, label < 0.5 from training_samples
                where {own} and (origin = 'judgment' or label >= 0.5))
            order by md5(first || second), refused limit {4 * settings.needs("query")}""",
        "history": f"""
            select distinct context_text as first, item_text as second, false as refused
            from visited join told using (visit_id) join items using (item_id)
            order by md5(first || second) limit {settings.needs("history")}""",
        "attribute": f"""
            select distinct title as first, {attribute} as second, false as refused from items where {attribute} <> ''
            order by md5(first || second) limit {settings.needs("attribute")}""",
        "catalogue": f"""
            select distinct '' as first, item_text as second, false as refused from items
            order by md5(second) limit {settings.pool_items if settings.hard_negatives else 0}""",
    }


def _behaviour(db: DuckDBPyConnection, settings: Adaptation) -> None:
    """Temporary tables: `visited`, what was taken in the days that may be learnt from; `told`, its histories.

    Twice as many as are read: first visits have no history, and pairs come again.
    """
    held = "split <> 'train'" if settings.from_samples else "true"
    db.execute(
        f"""create or replace temp table visited as
        with taken as (
            select *, {identity.actor("e")} as actor, {identity.group_id("query")} as group_id
            from cleaned_interactions as e where {TAKEN} and day < {_UNTIL}),
        visits as (
            select {identity.visit_id("actor", "query", "day")} as visit_id, actor, query, item_id, group_id,
                min(min(occurred_at)) over (partition by actor, group_id, day) as started_at
            from taken group by actor, day, query, group_id, item_id),
        placed as (
            select *, row_number() over (partition by query is null order by md5(visit_id || item_id)) as place from visits
            where query is null or group_id not in (select group_id from training_samples where {held}))
        select * from placed
        where place <= 2 * case when query is null then {settings.needs("history")} else {settings.needs("query")} end"""
    )
    db.execute(f"create or replace temp table told as {_histories(settings.history_items)}")


# before the first held-out search visit; and the first half of all days, as the last of them are what lists are tested on
_UNTIL = """(
    select least(min(occurred_at)::date, (select min(day) + ((max(day) - min(day) + 1) // 2)::int from cleaned_interactions))
    from training_samples where split <> 'train')"""


def _histories(n_items: int) -> str:
    """A query: what users took before each visit without a query began, as distinct titles, the latest first."""
    return f"""
        with before as (
            select v.visit_id, e.item_id, max(e.occurred_at) as last_at
            from (select distinct visit_id, actor, started_at from visited where query is null) as v
                join cleaned_interactions as e
                on {identity.actor("e")} = v.actor and e.occurred_at < v.started_at
            where {TAKEN} group by v.visit_id, e.item_id),
        ranked as (
            select *, row_number() over (partition by visit_id order by last_at desc, item_id) as nth from before)
        select visit_id, string_agg(title, '; ' order by nth) as context_text
        from ranked join items using (item_id) where nth <= {n_items} group by visit_id"""
