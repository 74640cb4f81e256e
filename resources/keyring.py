"""Earlier keys, locked with the newest one: whoever has that has all, and whoever has an earlier one alone has nothing."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from ecom_pipeline.errors import HomeError


def lock(earlier: Sequence[bytes], newest: bytes) -> str:
    """Earlier keys as a text that the newest one opens.

    Each is combined with a stream that the newest key and a nonce of its own give, HMAC-SHA256 of both, which is used once;
    another HMAC-SHA256 of all tells a wrong key and a changed text.

    Args:
        earlier: 32 bytes each, in their order.
        newest: 32 bytes.
    """
    rows = []
    for key in earlier:
        nonce = secrets.token_bytes(32)
        rows.append([nonce.hex(), _combined(key, _stream(newest, nonce)).hex()])
    return json.dumps({"keys": rows, "seal": _seal(newest, rows)})


def unlock(file: Path, newest: bytes) -> tuple[bytes, ...]:
    """The earlier keys in a file that `lock` has made the text of.

    Raises:
        HomeError: if it is damaged, or locked with another key.
    """
    try:
        told = json.loads(file.read_text())
        rows = [(str(nonce), str(locked)) for nonce, locked in told["keys"]]
        right = hmac.compare_digest(told["seal"], _seal(newest, [list(row) for row in rows]))
        keys = tuple(_combined(bytes.fromhex(b), _stream(newest, bytes.fromhex(a))) for a, b in rows) if right else ()
    except (ValueError, LookupError, TypeError) as error:
        raise HomeError(
            f"hash.chain: 1 file is damaged: {str(file)!r}: {error}. It must hold the earlier keys of this home, or nobody can "
            "be hashed as before: restore it from a copy."
        ) from error
    if not right:
        raise HomeError(
            f"hash.chain: 1 key is not the one that this home was changed to last: {str(file)!r} is locked with another. "
            "ECOM_HASH_KEY must be what ECOM_HASH_KEY_NEW was then: set it."
        )
    return keys


def _stream(key: bytes, nonce: bytes) -> bytes:
    return hmac.digest(key, b"lock" + nonce, hashlib.sha256)


def _seal(key: bytes, rows: object) -> str:
    return hmac.new(key, b"seal" + json.dumps(rows).encode(), hashlib.sha256).hexdigest()


def _combined(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
