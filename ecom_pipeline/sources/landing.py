"""A source's files land in the warehouse as they came: new and changed files are read, known ones are not.

A row's identity is its file and its place in it, so what lands does not depend on the order in which files arrive.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from duckdb import DuckDBPyConnection, Error

from ecom_pipeline import days, forms
from ecom_pipeline.errors import SourceError
from ecom_pipeline.files import stamp
from ecom_pipeline.forms import columns as file_forms
from ecom_pipeline.forms import times
from ecom_pipeline.quoting import literal, mapping, name
from ecom_pipeline.schema.inputs import COLUMNS, PERSONAL, REQUIRED
from ecom_pipeline.schema.relation import shape
from ecom_pipeline.sources import attributes, changes, people
from ecom_pipeline.sources import forgotten as gate
from ecom_pipeline.sources.forgotten import NOBODY, Forgotten
from ecom_pipeline.sources.source import MALFORMED, ROW_NUMBER, Part


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from and how they are read: what is read otherwise is read again.

    Attributes:
        source: the source's full name.
        folder: that holds its files.
        reader: version of the code that reads.
        hash_key: secret for ids of people, each key of at most 64 bytes.
        forgotten: people whose rows are left out.
    """

    source: str
    folder: Path
    reader: str
    hash_key: people.HashKey
    forgotten: Forgotten = NOBODY

    @property
    def key(self) -> str:
        """Tells one secret from another, and nothing more."""
        return people.key_name(self.hash_key)

    def place(self, file: Path) -> str:
        """What a file is called in the warehouse: its path, which tells of nobody who he is."""
        path, key = file.relative_to(self.folder), self.hash_key
        return people.masked_path(path, key, lambda raw: self.forgotten.find(raw, key))


@dataclass(frozen=True, slots=True)
class Landed:
    """What one landing of a table did.

    Attributes:
        n_rows: of the table now.
        n_files: that the table has rows of, or had when they were empty.
        n_files_read: new or changed.
        n_rows_read: of these files.
        n_files_gone: no more in the folder; their rows stay.
        n_rows_forgotten: of these files, left out as they are of people who were forgotten.
        unread: values of optional columns that could not be read and are null, by column: how many, and the first.
    """

    n_rows: int
    n_files: int
    n_files_read: int
    n_rows_read: int
    n_files_gone: int
    n_rows_forgotten: int
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Known:
    source: str
    stamp: str
    content: str
    reader: str
    key: str

    def is_read(self, origin: Origin, stamps: str | None = None) -> bool:
        """Whether the rows are as this origin reads them, and of the very file of a stamp."""
        return (self.reader, self.key) == (origin.reader, origin.key) and stamps in (None, self.stamp)


def land(db: DuckDBPyConnection, table: str, parts: Sequence[Part], origin: Origin, now: datetime) -> Landed:
    """Bring `raw_<table>` up to a source's files: values as text as they came, people only as keyed hashes.

    Ids lose the blanks at their ends. Missing columns become null, unknown ones are kept as JSON under `attributes`; of
    events, those that tell who somebody is are hashed or masked. Events also get `instant`, UTC, null
    where it cannot be read, and `day`, null where the instant cannot be true. A file that is gone keeps its rows; a file
    that was renamed is known by its content.

    Args:
        db: a connection inside a transaction.
        table: one of `schema.inputs.COLUMNS`.
        parts: what the source's files hold, of this table and of others.
        origin: whose files, and how they are read.
        now: UTC, without zone; what happens later is not yet of any day.

    Returns:
        What was done.

    Raises:
        SourceError: if a file cannot be read, a required column is missing, or rows of files that are gone would have to
            be read again.

    Cost: one scan of new and changed files, and one of their ids through the events that are there.
    """
    parts = [part for part in parts if part.table == table]
    files = {part.name or origin.place(part.file): part for part in parts}
    _prepare(db, table, files, origin)
    known = {
        file: _Known(*rest) for file, *rest in _landed(db, table, "file, source, stamp, content, reader, read_key")
    }
    forms.make_macros(db, table)
    people.make_macro(db, origin.hash_key)
    gate.make_gate(db, origin.forgotten, origin.hash_key)
    db.execute("create or replace temp table read_files (file varchar)")
    if table == "events":
        changes.begin(db)
    n_before = _count(db, table)
    stamps = {file: " ".join(stamp(one) for one in (part.file, *part.also)) for file, part in files.items()}
    doubtful = [file for file in files if file not in known or not known[file].is_read(origin, stamps[file])]
    digests = {file: _digest(files[file]) for file in doubtful}
    _rename(db, table, known, _moved(known, digests, set(files)))
    for file in [file for file in known if file not in files and known[file].source != origin.source]:
        _take_out(db, table, file)
    for file, digest in digests.items():
        read = _bring(
            db, file, files[file], known.get(file), origin=origin, now=now, stamps=stamps[file], digest=digest
        )
        if (
            read and n_before and table == "events"
        ):  # into an empty table all comes, and no day is cleaned that reads it
            changes.note(db, f"file = {literal(file)}", came=True)
    db.execute("update landed_files set source = ? where relation = ?", [origin.source, table])
    if table == "events":
        days.record(db, "select file from read_files")
        if n_before:
            changes.touch(db)
    db.execute("update landed_files set gone = not list_contains(?, file) where relation = ?", [list(files), table])
    (n_read, n_rows_read), (n_files, n_gone) = (
        db.execute(query, [table]).fetchall()[0]
        for query in (
            "select count(*), coalesce(sum(n_rows), 0) from landed_files semi join read_files using (file) "
            "where relation = ?",
            "select count(*), count(*) filter (where gone) from landed_files where relation = ?",
        )
    )
    n_forgotten = gate.n_gone(db)
    return Landed(_count(db, table), n_files, n_read, n_rows_read, n_gone, n_forgotten, file_forms.unread(db, table))


def content(db: DuckDBPyConnection, tables: Sequence[str]) -> tuple[str, int]:
    """A hash of what landed of some tables, and their rows; reads none of them."""
    told = "string_agg(file || content || reader || read_key || n_rows, ',' order by relation, file)"
    query = f"select md5({told}), sum(n_rows)::bigint from landed_files where list_contains(?, relation)"
    found, n_rows = db.execute(query, [list(tables)]).fetchall()[0]
    return found or "", n_rows or 0


def forget(db: DuckDBPyConnection, file: str) -> dict[str, int]:
    """Take the rows of a file that is gone out of the raw tables, for good.

    Args:
        db: a connection inside a transaction.
        file: its path below the source's folder.

    Returns:
        Rows that went, by table.

    Raises:
        SourceError: if no such file ever landed, or if it is still there and would land again.
    """
    found = db.execute("select relation, n_rows, gone from landed_files where file = ?", [file]).fetchall()
    if not found or not all(gone for *_, gone in found):
        gone = [f for (f,) in db.execute("select file from landed_files where gone order by all").fetchall()]
        raise SourceError(
            f"forget-file: 1 file {'is still in the source' if found else 'never landed'}: {file!r}. It must be one of the "
            f"{len(gone)} that landed and are gone from the source since; first: {(gone or ['none'])[0]!r}. Name one of "
            "them, or take the file out of the folder first."
        )
    for table, _, _ in found:
        db.execute("create or replace temp table read_files (file varchar)")
        if table == "events":
            changes.begin(db)
        _take_out(db, table, file)
        if table == "events":
            days.record(db, "select file from read_files")
            changes.touch(db)
    return {table: n_rows for table, n_rows, _ in found}


def _prepare(db: DuckDBPyConnection, table: str, files: Mapping[str, Part], origin: Origin) -> None:
    """Tables to land in, in the shape of this version. Rows that would have to be read again and cannot be are refused."""
    db.execute(
        "create table if not exists landed_files (relation varchar, source varchar, file varchar, stamp varchar, "
        "content varchar, reader varchar, read_key varchar, n_rows bigint, gone boolean)"
    )
    days.create(db)
    columns = {"file": "varchar", "row_number": "bigint"} | dict.fromkeys(COLUMNS[table], "varchar")
    columns |= {"attributes": "varchar", "malformed": "varchar"}
    columns |= {"instant": "timestamp", "day": "date"} if table == "events" else {}
    foreign = [row for row in _landed(db, table, "file, source, read_key") if row[1:] != (origin.source, origin.key)]
    # whether the files of another source are still there was seen when it was landed last
    away = {file for (file,) in _landed(db, table, "file", "gone")}
    gone = {file for file, source, _ in foreign if (file in away if source != origin.source else file not in files)}
    if gone:
        raise SourceError(
            f"{table}: rows of {len(gone)} files that are gone from the source were landed from another source or with "
            f"another hash key; first: {min(gone)!r}. They cannot be read again as {origin.source!r} with this key: choose "
            "another --home, restore the key, or give them up by `ecom forget-file`."
        )
    if db.execute(_HAS_FILES, [f"raw_{table}"]).fetchall() == [(False,)]:
        db.execute(f"drop table raw_{table}")  # rows that do not say of which file they are can only be read again
    shape(db, f"raw_{table}", columns)


_HAS_FILES = """select bool_or(column_name = 'file') from duckdb_columns()
    where table_name = ? and database_name = current_database() having count(*) > 0"""


def _landed(db: DuckDBPyConnection, table: str, columns: str, where: str = "true") -> list[tuple]:
    return db.execute(f"select {columns} from landed_files where relation = ? and {where}", [table]).fetchall()


def _moved(known: Mapping[str, _Known], digests: Mapping[str, str], files: set[str]) -> dict[str, str]:
    """The name that each file has now which had another, by the former: also where names are handed on or exchanged."""
    left: dict[str, list[str]] = {}
    for name_, was in sorted(known.items()):
        if name_ not in files or digests.get(name_, was.content) != was.content:
            left.setdefault(was.content, []).append(name_)
    moved = {}
    for file, digest in sorted(digests.items()):
        if (file not in known or known[file].content != digest) and left.get(digest):
            moved[left[digest].pop(0)] = file
    return moved


def _rename(db: DuckDBPyConnection, table: str, known: dict[str, _Known], moves: dict[str, str]) -> None:
    """Give files their present names, all at once; what stood under a name that is taken now, and has none, goes."""
    for file in {*moves.values()} & (known.keys() - moves.keys()):
        _take_out(db, table, file)
    if not moves:
        return
    names = mapping(moves)
    renamed = f"set file = map_extract_value({names}, file) where map_contains({names}, file)"
    for one in (f"raw_{table}", *(("event_days",) if table == "events" else ())):
        db.execute(f"update {one} {renamed}")
    db.execute(f"update landed_files {renamed} and relation = ?", [table])
    file_forms.rename(db, table, moves)
    if table == "events":  # what was rejected names its file
        days.touch(db, f"select day from event_days where list_contains({sorted(moves.values())}, file)")
    found = {file: known[former] for former, file in moves.items()}
    for file in {*moves, *moves.values()}:
        known.pop(file, None)
    known.update(found)


def _take_out(db: DuckDBPyConnection, table: str, file: str) -> None:
    """Take a file's rows out of its raw table, and note that they went."""
    if table == "events":
        changes.note(db, f"file = {literal(file)}", came=False)
    db.execute(f"delete from raw_{table} where file = ?", [file])
    db.execute("delete from landed_files where relation = ? and file = ?", [table, file])
    db.execute("insert into read_files values (?)", [file])
    file_forms.forget(db, table, file)


def _bring(
    db: DuckDBPyConnection,
    file: str,
    part: Part,
    was: _Known | None,
    *,
    origin: Origin,
    now: datetime,
    stamps: str,
    digest: str,
) -> bool:
    """One file: written again as it was, or to be read. Whether it was read."""
    table = part.table
    if was and was.content == digest and was.is_read(origin):
        db.execute("update landed_files set stamp = ? where relation = ? and file = ?", [stamps, table, file])
        return False
    former = file_forms.of_file(db, table, file)
    if was:
        _take_out(db, table, file)
    n_rows = _read(db, file, part, origin, now)
    db.execute("insert into read_files values (?)", [file])
    db.execute(
        "insert into landed_files values (?, ?, ?, ?, ?, ?, ?, ?, false)",
        [table, origin.source, file, stamps, digest, origin.reader, origin.key, n_rows],
    )
    if table == "events" and was and file_forms.of_file(db, table, file) != former:
        # rows that stayed are read otherwise now
        days.touch(db, f"select day from event_days where file = {literal(file)}")
    return True


def _digest(part: Part) -> str:
    found = hashlib.sha256()
    for file in (part.file, *part.also):
        with file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()[:32]


def _read(db: DuckDBPyConnection, file: str, part: Part, origin: Origin, now: datetime) -> int:
    """Put a file's rows into its raw table, without those of people who were forgotten, and return their number."""
    table = part.table
    try:
        db.execute(f"create or replace temp view landing as {part.query(db)}")
        present = {row[0].lower(): row[0] for row in db.execute("describe landing").fetchall()}
        _require(table, file, set(present) - {ROW_NUMBER, MALFORMED})
        known = [_known(column, present.get(column), hashed=part.hashed) for column in COLUMNS[table]]
        others = attributes.expression(table, file, db.sql("from landing"))
        instant = times.inline("occurred_at")
        possible = f"instant between '{days.FIRST_DAY}' and '{now}'"
        dated = f", {instant} as instant, case when {possible} then instant::date end" if table == "events" else ""
        (n_rows,) = db.execute(
            f"insert into raw_{table} select * exclude (is_gone) from (select {literal(file)}, "
            f"{present.get('row_number', 'row_number() over ()')}, {', '.join(known)}, {others}, "
            f"{present.get('malformed', 'null')}::varchar{dated}, {_gone(part, present, origin)} as is_gone from landing) "
            "where not is_gone"
        ).fetchall()[0]
        file_forms.settle(db, table, file, now)
    except Error as error:
        raise SourceError(
            f"{table}: 1 file cannot be read, {file!r}: {str(error).splitlines()[0]}. It must be what its ending says: "
            "write it again, or give it its true ending."
        ) from error
    return n_rows


def _require(table: str, file: str, present: set[str]) -> None:
    missing = [" or ".join(names) for names in REQUIRED[table] if not present & set(names)]
    if missing:
        raise SourceError(
            f"{table}: {len(missing)} required columns are missing in {file!r}; first: {missing[0]!r}. "
            f"The table has {', '.join(sorted(present))}; it must have "
            f"{', '.join(' or '.join(names) for names in REQUIRED[table])}. Rename or add the columns."
        )


_FREE = ("query",)  # what people write
_IDS = ("item_id", "event_id", "query_id", "campaign_id", "cluster_id", "experiment", "arm")


def _known(column: str, given: str | None, *, hashed: bool) -> str:
    if given is None:
        return f"null as {column}"
    text = f"{name(given)}::varchar"
    if column in PERSONAL and not hashed:
        return f"keyed_hash({text}) as {column}"
    if column in _FREE and not hashed:  # the service has masked its own
        return f"masked({text}) as {column}"
    return f"trimmed({text}) as {column}" if column in _IDS else f"{text} as {column}"


def _gone(part: Part, present: Mapping[str, str], origin: Origin) -> str:
    """An SQL condition: whether a row names somebody who was forgotten, in a column of ids or in one that we do not know."""
    more = [] if part.hashed else attributes.of_persons(part.table, list(present.values()))
    user, session = (name(present[column]) if column in present else None for column in PERSONAL)
    return gate.is_gone(
        *(origin.forgotten, origin.hash_key),
        user=user,
        session=session,
        others=[name(column) for column in more],
        hashed=part.hashed,
    )


def _count(db: DuckDBPyConnection, table: str) -> int:
    return db.execute(f"select count(*) from raw_{table}").fetchall()[0][0]
