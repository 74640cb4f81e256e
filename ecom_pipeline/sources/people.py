"""People are in the warehouse only as keyed hashes: nobody reads there who a user is.

A source may have more columns of persons than we know. What their names or their values give away is hashed or masked.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from pathlib import PurePath
from urllib.parse import unquote

import pyarrow as pa
from duckdb import DuckDBPyConnection
from duckdb.func import PythonUDFType

from ecom_pipeline.forms.texts import knows
from ecom_pipeline.quoting import literal
from ecom_pipeline.sources.masking import MASK, MAY_TELL, mask_text

# a secret; or, where it was changed, all in their order: each hashes what the one before it gave
HashKey = bytes | tuple[bytes, ...]
# HMAC-SHA256 (RFC 2104) of a text under the nth key, cut to 128 bits
_MACRO = """
create or replace temp macro hashed_{n}(t) as
    left(sha256(getvariable('outer_key_{n}') || unhex(sha256(getvariable('inner_key_{n}') || encode(t)))), 32)
"""

_PERSON = (
    "account|address|birth|cardholder|cellphone|city|client|contact|cookie|customer|device|email|e_mail|fingerprint|guest|"
    "household|iban|idfa|imei|ip|ipv4|ipv6|kunde|login|mail|member|mobile|msisdn|passport|patient|person|phone|postal|"
    "postcode|profile|ssn|street|subscriber|surname|telephone|tel|uid|user|username|useragent|visitor|zip|zipcode|gaid|aaid|"
    "gclid|fbclid|latitude|longitude|lat|lon|lng|geo|buyer|shopper|reviewer|rater|cust|owner|recipient|employee|voter|loyalty"
)
_OF_PERSONS = re.compile(
    rf"(^|_)({_PERSON})s?\d*(_|$)|^(full|first|last|family|given|middle|maiden|nick|real|display)_?names?$|^names?$|^(client|customer|user|account|visitor|member)(id|key|no|nr)$"
)
# a key of JSON that names a person; and with its value, where the text around is no JSON
_KEY = re.compile(rf"(?i)^(?:.*[_.-])?(?:{_PERSON})s?(?:[_.-].*|id|key|name)?$")
_KEYED = rf"""(?i)("(?:[^"]*[_.-])?(?:{_PERSON})s?(?:[_.-][^"]*|id|key|name)?"\s*:\s*)("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*)"""
_VALUE = '\\1"' + MASK + '"'


def are_of_persons(column: str) -> bool:
    """Whether a column's name says that it tells who somebody is.

    >>> [are_of_persons(name) for name in ("customer_id", "customerId", "E-Mail", "ip", "shelf", "product_name")]
    [True, True, True, True, False, False]
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)
    return bool(_OF_PERSONS.search(re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")))


def masked_json(text: str) -> str:
    """A text without what JSON in it says under keys that name persons, whatever it is, and however deep.

    >>> masked_json('{"user": {"id": 7}, "page": 3}')
    '{"user":"(masked)","page":3}'
    >>> masked_json('seen {"user": "ann"}')
    'seen {"user": "(masked)"}'
    """
    try:
        return json.dumps(_without_persons(json.loads(text)), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return re.sub(_KEYED, _VALUE, text)


def _without_persons(value: object) -> object:
    if isinstance(value, dict):
        return {key: MASK if _KEY.match(key) else _without_persons(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_without_persons(inside) for inside in value]
    return masked_json(value) if isinstance(value, str) and "{" in value else value


# of the module: other connections to the same database call it when the one that brought it is closed
def _mask_column(column: pa.Array) -> pa.Array:
    return pa.array([None if one is None else masked(one) for one in column.to_pylist()], pa.string())


def masked_path(path: PurePath, hash_key: HashKey, tombstone: Callable[[str], str | None] = lambda person: None) -> str:
    """A path whose folders `name=value` do not tell who somebody is.

    Args:
        path: below the source's folder.
        hash_key: secret.
        tombstone: of somebody who was forgotten, which stands there in place of the hash; None of anybody else.

    >>> masked_path(PurePath("events/shelf=7/day.csv"), b"key")
    'events/shelf=7/day.csv'
    >>> masked_path(PurePath("events/user_id=ann/day.csv"), b"key")
    'events/user_id=9d77c3180ff81edfbc099a7e91843e41/day.csv'
    """
    parts = [part.partition("=") for part in path.parts]
    kept = [
        f"{name}={tombstone(unquote(value)) or keyed_hash(unquote(value), hash_key)}"
        if mark and are_of_persons(name)
        else name + mark + value
        for name, mark, value in parts
    ]
    return "/".join(kept)


def keys_of(hash_key: HashKey) -> tuple[bytes, ...]:
    """All keys of a secret, in the order in which they hash."""
    return (hash_key,) if isinstance(hash_key, bytes) else hash_key


def key_name(hash_key: HashKey) -> str:
    """Eight digits that tell one secret from another, and nothing more."""
    return hashlib.sha256(b"".join(keys_of(hash_key))).hexdigest()[:8]


def hash_sql(text: str, first: int, last: int) -> str:
    """An SQL expression: a text under the keys from one place to another, both with it, after `make_macro`.

    >>> hash_sql("t", 0, 1)
    'hashed_1(hashed_0(t))'
    """
    for n in range(first, last + 1):
        text = f"hashed_{n}({text})"
    return text


def make_macro(db: DuckDBPyConnection, hash_key: HashKey) -> None:
    """Give a connection the SQL macros `keyed_hash(id)`, as the function, and `masked(t)`: for whole columns.

    A blank id, or a word for nothing, stays null.

    Args:
        db: a connection with the macros of `forms.texts`.
        hash_key: secret, each key of at most 64 bytes.
    """
    keys = keys_of(hash_key)
    for n, key in enumerate(keys):
        for name, pad in (("inner", 0x36), ("outer", 0x5C)):
            db.execute(f"set variable {name}_key_{n} = ?", [bytes(byte ^ pad for byte in key.ljust(64, b"\0"))])
        db.execute(_MACRO.format(n=n))
    whole = hash_sql("trimmed(id)", 0, len(keys) - 1)
    db.execute(f"create or replace temp macro keyed_hash(id) as case when filled(id) is not null then {whole} end")
    if not knows(db, "masked_text(null)"):
        db.create_function("masked_text", _mask_column, ["VARCHAR"], "VARCHAR", type=PythonUDFType.ARROW)
    # most texts tell nothing, and never leave DuckDB
    db.execute(
        f"create or replace temp macro masked(t) as case when regexp_matches(t, {literal(MAY_TELL)}) then masked_text(t) else t end"
    )


def masked(text: str) -> str:
    """A text without what tells who somebody is: as the macro of this name.

    >>> masked("write to jane@example.org")
    'write to (masked)'
    """
    return mask_text(masked_json(text) if "{" in text else text)


def keyed_hash(person: str, hash_key: HashKey) -> str:
    """What is kept of an id of a user or a session: HMAC-SHA256, cut to 128 bits, as 32 hexadecimal digits.

    Of several keys each hashes what the one before it gave.
    """
    for key in keys_of(hash_key):
        person = hmac.new(key, person.encode(), hashlib.sha256).hexdigest()[:32]
    return person
