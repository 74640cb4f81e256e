"""API keys: who may read, send events, or judge samples; only hashes of them are kept.

On the floor of `service`.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ecom_pipeline.errors import InputError

SCOPES = ("read", "events", "label")
_PREFIX = "ecom_"


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without its secret.

    Attributes:
        name: for people.
        scopes: of `SCOPES`.
        digest: SHA-256 of the secret, which is random and long: it needs no salt and no slow hash.
        made_at: UTC.
    """

    name: str
    scopes: tuple[str, ...]
    digest: str
    made_at: str


def read_keys(file: Path) -> list[Key]:
    """All keys; none where there is no file.

    Raises:
        InputError: if the file is damaged.
    """
    if not file.is_file():
        return []
    try:
        return [Key(**{**one, "scopes": tuple(one["scopes"])}) for one in json.loads(file.read_text())]
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"keys: 1 file is damaged: {str(file)!r}: {error}. It must be as `ecom keys` wrote it: delete it, and make the keys"
            " again."
        ) from error


def add_key(file: Path, name: str, scopes: Sequence[str]) -> str:
    """Make a key, and return its secret, which is not kept.

    Raises:
        InputError: if the name is taken or a scope unknown.
    """
    keys = read_keys(file)
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise InputError(
            f"--scope: {len(unknown)} of {len(scopes)} scopes are unknown; first: {(unknown or ['nothing'])[0]!r}. They must be "
            f"some of {', '.join(SCOPES)}: choose of these."
        )
    if any(key.name == name for key in keys):
        raise InputError(
            f"keys: 1 name is taken: {name!r}. A name must be of one key: choose another, or revoke that one."
        )
    secret = _PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _write(file, [*keys, Key(name, tuple(scopes), _digest(secret), now)])
    return secret


def revoke_key(file: Path, name: str) -> None:
    """Make a key worthless.

    Raises:
        InputError: if there is none of that name.
    """
    keys = read_keys(file)
    if all(key.name != name for key in keys):
        known = ", ".join(key.name for key in keys) or "none"
        raise InputError(f"keys: 1 name is unknown: {name!r}. It must be one of {known}: choose of these.")
    _write(file, [key for key in keys if key.name != name])


def find_key(keys: Sequence[Key], secret: str) -> Key | None:
    """The key that a secret is of; takes as long for one that is of none."""
    digest, found = _digest(secret), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _write(file: Path, keys: Sequence[Key]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        json.dump([asdict(key) for key in keys], opened, indent=1)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(part, file)
