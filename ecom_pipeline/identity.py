"""What makes two rows the same person, query, visit or sample: every such hash, as an SQL expression, once.

On the lowest floor. A hash is of JSON, which tells null from empty and shows where each field ends.
"""

_SESSION = "session:"


def fingerprint(*fields: str) -> str:
    """An SQL expression: 32 hexadecimal digits that tell the fields' texts apart, null from empty, and where each ends.

    Args:
        fields: SQL expressions.

    >>> fingerprint("a", "b")
    'md5(to_json([(a)::varchar, (b)::varchar])::varchar)'
    """
    return f"md5(to_json([{', '.join(f'({field})::varchar' for field in fields)}])::varchar)"


def actor(row: str) -> str:
    """An SQL expression: who acted, the user or, where nobody is known, the session, which says that it is one.

    Ids of users are keyed hashes, so none begins as a session's actor does.

    Args:
        row: name or alias of the relation that has `user_id` and `session_id`.

    >>> actor("e")
    "coalesce(e.user_id, 'session:' || e.session_id)"
    """
    return f"coalesce({row}.user_id, '{_SESSION}' || {row}.session_id)"


def actors_of(person: str) -> tuple[str, str]:
    """What an id may be as an actor: a user's, or a session's.

    >>> actors_of("77")
    ('77', 'session:77')
    """
    return person, _SESSION + person


def is_session(actor: str) -> bool:
    """Whether an actor is a session without a user.

    >>> is_session("session:77"), is_session("77")
    (True, False)
    """
    return actor.startswith(_SESSION)


def person_of(actor: str) -> tuple[str | None, str | None]:
    """The user and the session that an actor is, of which one is None.

    >>> person_of("77"), person_of("session:77")
    (('77', None), (None, '77'))
    """
    return (None, actor.removeprefix(_SESSION)) if is_session(actor) else (actor, None)


def query_key(query: str) -> str:
    """An SQL expression: what spellings of one query share; case and the making of accents do not count.

    Args:
        query: SQL expression for a query that `clean_text` has cleaned.
    """
    return f"lower(nfc_normalize({query}))"


def group_id(query: str) -> str:
    """An SQL expression: the group of a query, the same for each of its spellings."""
    return f"('query:' || md5({query_key(query)}))"


def visit_id(actor: str, query: str, day: str) -> str:
    """An SQL expression: what somebody did on one day for one query in any spelling, or for none."""
    return fingerprint(actor, query_key(query), day)


def search_sample_id(visit_id: str, item_id: str) -> str:
    """An SQL expression: the sample of an item that a search visit met."""
    return fingerprint("'search'", visit_id, item_id)


def judgment_sample_id(query: str, item_id: str) -> str:
    """An SQL expression: the sample of a judged pair, the same for each spelling of the query and whatever its id."""
    return fingerprint("'judgment'", query_key(query), item_id)
