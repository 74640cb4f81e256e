"""People are in the warehouse only as keyed hashes: nobody reads there who a user is."""

import hashlib
import hmac

from duckdb import DuckDBPyConnection

# HMAC-SHA256 (RFC 2104) of a text, cut to 128 bits; a blank id stays null
_MACRO = """
create or replace temp macro keyed_hash(id) as case when trim(id) <> '' then left(
    sha256(getvariable('outer_key') || unhex(sha256(getvariable('inner_key') || encode(id)))), 32) end
"""


def make_macro(db: DuckDBPyConnection, hash_key: bytes) -> None:
    """Give a connection the SQL macro `keyed_hash(id)`: as the function, for whole columns.

    Args:
        db: a connection.
        hash_key: secret, at most 64 bytes.
    """
    inner, outer = (bytes(byte ^ pad for byte in hash_key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    db.execute("set variable inner_key = ?", [inner])
    db.execute("set variable outer_key = ?", [outer])
    db.execute(_MACRO)


def keyed_hash(person: str, hash_key: bytes) -> str:
    """What is kept of an id of a user or a session: HMAC-SHA256, cut to 128 bits, as 32 hexadecimal digits."""
    return hmac.new(hash_key, person.encode(), hashlib.sha256).hexdigest()[:32]
