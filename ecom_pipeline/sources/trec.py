"""TREC collections: qrels with documents and topics, in TREC's own layout or in BEIR's.

Documents are JSON lines (`_id`, `title`, `text`) or lines parted by tabs (id and text; id, title and text; or id,
address, title and text); topics are the same, with an id and a text. A qrels file has four fields a line, or three under
a header. Grades stay as they are, but a negative one becomes 0, as evaluation reads it. The name of a qrels file may say
`train`, `dev` or `test`: that is the split.
"""

import re
from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.quoting import literal
from ecom_pipeline.sources.documents import documents, field
from ecom_pipeline.sources.flat import first_line, plain_table
from ecom_pipeline.sources.source import Adapter, Part, matching

_JSON = (".jsonl", ".jsonl.gz")
_TABS = (".tsv", ".tsv.gz", ".txt")
_DOCUMENTS = ("corpus", "docs", "documents", "collection")
_TOPICS = ("queries", "topics")
_SPLITS = {"train": "train", "dev": "validation", "valid": "validation", "val": "validation", "test": "test"}
_LAYOUTS = {2: ("id", "text"), 3: ("id", "title", "text"), 4: ("id", "url", "title", "text")}
_HEADS = ("id", "_id", "docid", "doc_id", "docno", "pid", "qid", "query_id", "query-id", "topic")  # of a first line
_TAB = "\t"
_BLANKS = r"\s+"
_ID = "coalesce(" + ", ".join(field(key) for key in ("_id", "id", "docid", "doc_id", "docno", "qid", "query_id")) + ")"
_TEXT = "coalesce(" + ", ".join(field(key) for key in ("text", "contents", "body", "query", "title")) + ")"


def _named(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    return matching(folder, *(f"*{stem}*{ending}" for stem in stems for ending in (*_JSON, *_TABS)))


def _qrels(folder: Path) -> list[Path]:
    return matching(folder, "qrels/*.tsv", "qrels/*.txt", "*.qrels", "*qrels*.tsv", "*qrels*.txt", "qrels")


def _qrels_files(folder: Path) -> list[Path]:
    return [path for path in _qrels(folder) if path.is_file()]


def _topics(folder: Path) -> list[Path]:
    return [path for path in _named(folder, _TOPICS) if path not in _qrels_files(folder)]


def _collection(folder: Path) -> list[Path]:
    taken = {*_qrels_files(folder), *_topics(folder)}
    return [path for path in _named(folder, _DOCUMENTS) if path not in taken]


def _recognises(folder: Path) -> bool:
    return bool(_qrels_files(folder) and _topics(folder) and _collection(folder))


def _parts(folder: Path) -> list[Part]:
    topics = tuple(_topics(folder))
    items = [Part("items", path, partial(_items, path)) for path in _collection(folder)]
    return [*items, *(Part("judgments", path, partial(_pairs, path, topics), topics) for path in _qrels_files(folder))]


def _items(path: Path, db: DuckDBPyConnection) -> str:
    return f"""
        select row_number, malformed, id as item_id, coalesce(nullif(trim(title), ''), text) as title,
            case when trim(title) <> '' then text end as description
        from ({_texts(path)})"""


def _pairs(path: Path, topics: tuple[Path, ...], db: DuckDBPyConnection) -> str:
    asked = " union all ".join(f"(select id, text from ({_texts(one)}))" for one in topics)
    fields = re.split(r"\s+", first_line(path).strip())
    names = ("query_id", "run", "item_id", "grade") if len(fields) == 4 else ("query_id", "item_id", "grade")
    headed = len(fields) == 3 and not _is_number(fields[2])
    split = next((split for word, split in _SPLITS.items() if word in re.split(r"[^a-z]+", path.name.lower())), None)
    given = literal(split) if split else "null"
    grade = "try_cast(grade as double)"
    return f"""
        with topics as (select id as query_id, min(text) as query from ({asked}) group by all)
        select row_number, malformed, query_id, query, item_id, case when {grade} < 0 then '0' else grade end as relevance,
            {given} as split
        from ({plain_table(path, names, _BLANKS, skip=int(headed))}) left join topics using (query_id)"""


def _texts(path: Path) -> str:
    """An SQL query: documents or topics with their id, title (null where there is none) and text."""
    if path.name.endswith(_JSON):
        texts = f"{_ID} as id, {field('title')} as title, {_TEXT} as text"
        return f"select row_number, malformed, {texts} from ({documents(path)})"
    fields = first_line(path).split(_TAB)
    names = _LAYOUTS.get(len(fields), _LAYOUTS[2])
    title = "title" if "title" in names else "null as title"
    rows = plain_table(path, names, _TAB, skip=int(fields[0].strip().lower() in _HEADS))
    return f"select row_number, malformed, id, {title}, text from ({rows})"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


ADAPTER = Adapter("trec", _recognises, _parts)
