"""Files of documents: JSON lines, zipped or not, JSON arrays, dumps and bulk files of a search engine, nested Parquet.

An adapter reads one document a row and takes fields out of it, whatever the file is; a document lies in the file itself
or under `_source`, as dumps write it.
"""

import json
import re
from pathlib import Path
from typing import Any

from pyarrow import ArrowInvalid
from pyarrow.parquet import read_schema

from ecom_pipeline.quoting import literal, name
from ecom_pipeline.sources.flat import head
from ecom_pipeline.sources.source import matching, quoted

_ENDINGS = (".ndjson", ".jsonl", ".json", ".ndjson.gz", ".jsonl.gz", ".json.gz", ".parquet")
_HEADS = (2**14, 2**20)  # characters: first documents are short, as a rule
_LONGEST = 2**24  # bytes of a line
# all that a bulk file's line may say of the document that follows it
_OF_ACTIONS = (
    "_index",
    "_id",
    "_type",
    "_routing",
    "routing",
    "_version",
    "version",
    "version_type",
    "if_seq_no",
    "if_primary_term",
    "pipeline",
    "dynamic_templates",
    "require_alias",
    "list_executed_pipelines",
)


def document_files(folder: Path, *stems: str) -> list[Path]:
    """The files of documents in a folder whose names without endings match any of some patterns, in order."""
    return matching(folder, *(f"{stem}{ending}" for stem in stems for ending in _ENDINGS))


def first_fields(path: Path) -> set[str]:
    """The names in the first document of a file, or of its columns; empty where there is none or it cannot be read.

    Cost: the first 16 KiB are read, or the first mebibyte where no document ends in them; of Parquet the footer.
    """
    if path.suffix == ".parquet":
        try:
            return set(read_schema(path).names)
        except (ArrowInvalid, OSError):
            return set()
    return next((found for size in _HEADS if (found := _first_names(head(path, size)))), set())


def _first_names(text: str) -> set[str]:
    for start in re.finditer(r"^[\s\[]*(?=\{)", text, re.MULTILINE):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start.end())
        except (json.JSONDecodeError, RecursionError):
            continue
        source = found.get("_source", found)
        return set(source) if isinstance(source, dict) else set(found)
    return set()


def documents(path: Path, *columns: str) -> str:
    """An SQL query: one row a document of a file, or a line that should be one.

    Empty lines, and the lines of a bulk file that say where the next document goes, are no documents and yield no row.

    Args:
        path: the file.
        columns: of Parquet, those to make documents of; none: all. The other kinds are read whole.

    Returns:
        SQL with the columns `row_number` (line or place in the array, from 1), `document` (JSON, null where malformed)
        and `malformed` (why there is none, else null).

    Cost: one scan in DuckDB; a line may have 16 MiB.
    """
    if path.suffix == ".parquet":
        chosen = ", ".join(name(column) for column in columns if column in first_fields(path)) or "*"
        rows = f"(select {chosen} from read_parquet({quoted(path)}))"
        return f"select row_number() over () as row_number, to_json(r) as document, null as malformed from {rows} as r"
    source = _array(path) if _is_array(path) else _lines(path)
    return f"""
        with valid as (select row_number, text, case when json_valid(text) then text::json end as document from ({source})),
            typed as (select *, coalesce(json_type(document), '') as type from valid)
        select row_number,
            case when type = 'OBJECT' then coalesce(case when json_type(document, '$._source') = 'OBJECT'
                then document -> '$._source' end, document) end as document,
            case when type = '' then 'the line is no JSON' when type <> 'OBJECT' then 'it is JSON, but no object'
                when {_changes("text")} then 'it asks a search engine to change a document' end as malformed
        from typed where not coalesce({_action("text")}, false)"""


def field(path: str, of: str = "document") -> str:
    """An SQL expression: a document's field as text, null where it is absent; parts of the path are joined by dots."""
    return f"json_extract_string({of}, {literal('$.' + path)})"


def elements(of: str) -> str:
    """An SQL expression: the elements of a JSON array as a list; empty where there is none."""
    return f"from_json(coalesce({of}, '[]'), '[\"json\"]')"


def records(of: str, *names: str) -> str:
    """An SQL expression: the elements of a JSON array as a list of structs, these fields of each as text.

    Some writers of Parquet wrap lists as {"list": [{"element": ...}]}: these are unwrapped. A name with a dot is the name
    of a record in which the rest is.
    """
    shape: dict[str, Any] = {}
    for path in names:
        *outer, last = path.split(".")
        inner = shape
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[last] = "varchar"
    inside = f"{of} -> '$.list'"
    wrapped = f"[e -> '$.element' for e in {elements(inside)}]"
    plain = f"case when json_type({of}) = 'OBJECT' then to_json({wrapped}) else {of} end"
    return f"from_json(coalesce({plain}, '[]'), {literal(json.dumps([shape]))})"


def _is_array(path: Path) -> bool:
    first, _, rest = head(path, _HEADS[-1]).lstrip().partition("\n")
    return first.startswith("[") and not (rest.strip() and _is_json(first))  # else each line stands for itself


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _array(path: Path) -> str:
    objects = f"read_json_objects({quoted(path)}, format = 'array', maximum_object_size = {_LONGEST})"
    return f"select row_number() over () as row_number, json::varchar as text from {objects}"


def _lines(path: Path) -> str:
    # a line is a column: no delimiter or quote can be in it
    lines = (
        f"read_csv({quoted(path)}, columns = {{text: 'VARCHAR'}}, header = false, auto_detect = false, delim = '\x01', "
        f"quote = '', escape = '', comment = '', max_line_size = {_LONGEST}, strict_mode = false)"
    )
    return f"select * from (select row_number() over () as row_number, text from {lines}) where trim(text) <> ''"


def _action(text: str) -> str:
    """Whether a line only says where the next line's document goes."""
    verb = f"regexp_extract({text}, '^\\s*\\{{\\s*\"(index|create)\"\\s*:', 1)"
    known = f"len(list_filter(json_keys({text}, '$.' || {verb}), lambda k: k not in {_OF_ACTIONS})) = 0"
    one = f"len(json_keys({text})) = 1 and json_type({text}, '$.' || {verb}) = 'OBJECT'"
    return f"case when {verb} <> '' and json_valid({text}) then {one} and {known} else false end"


def _changes(text: str) -> str:
    verb = f"regexp_extract({text}, '^\\s*\\{{\\s*\"(delete|update|doc)\"\\s*:', 1)"
    return f"{verb} <> '' and len(json_keys({text})) = 1"
