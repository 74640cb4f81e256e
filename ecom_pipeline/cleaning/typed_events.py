"""Events with values instead of texts, and the rules that each event must keep by itself."""

from ecom_pipeline import identity
from ecom_pipeline.cleaning.rules import Rule, first_broken, number
from ecom_pipeline.forms.columns import READ
from ecom_pipeline.schema import ACTIONS

ROW_RULES = [
    Rule("user_and_session_missing", "actor is null", "user_id or session_id must be present", "'neither'"),
    Rule("action_unknown", f"action not in {ACTIONS}", f"action must be one of {', '.join(ACTIONS)}", "action"),
    Rule("action_missing", "action is null", f"action must be one of {', '.join(ACTIONS)}", "'nothing'"),
    Rule("item_id_missing", "item_id is null", "item_id must be present", "'nothing'"),
    Rule("item_unknown", "not known", "item_id must be in items", "item_id"),
    number("position", "position < 1", "position must be a whole number >= 1"),
    number("propensity", "propensity <= 0 or propensity > 1", "propensity must be in (0, 1]"),
    number("rating", "rating < 1 or rating > 5", "rating must be in [1, 5]"),
    Rule("quantity_out_of_range", "quantity < 0", "quantity must be a number >= 0", "quantity::varchar"),
]
# numbers that would teach something wrong cost their row; of the others, what cannot be read is no value
_STRICT = {"position": "whole(read_number(r.position))"} | {
    name: f"read_number(r.{name})" for name in ("propensity", "rating")
}
_CASTS = ", ".join(
    f"case when {reading} is null then filled(r.{name}) else r.{name} end as {name}_given, {reading} as {name}"
    for name, reading in _STRICT.items()
) + "".join(f", {reading} as {name}" for name, reading in READ["events"].items())
# what makes two events the same, besides the id that a source may give
_CONTENT = (
    "user_id",
    "session_id",
    "action",
    "item_id",
    "query",
    "instant",
    "position",
    "rating",
    "quantity",
    "price",
)


def typed(which: str) -> str:
    """A query: some raw events, cast, each with its id, a hash of its content and `row_rule`, the first that it breaks.

    Args:
        which: SQL condition on `raw_events`, called r.
    """
    return f"""
        with cast_events as (
            select r.file, r.row_number, r.instant, r.day, r.event_id as given_id,
                r.user_id, r.session_id, {identity.actor("r")} as actor,
                nullif(lower(trim(r.action)), '') as action, r.item_id,
                filled_text(r.query) as query, {_CASTS}, r.attributes
            from raw_events as r where {which}),
        identified as (
            select cast_events.*, listed is not null as known, hash({", ".join(_CONTENT)}) as content,
                coalesce(given_id, {identity.fingerprint(*_CONTENT)}) as event_id
            from cast_events left join (select item_id, true as listed from items) using (item_id))
        select *, {first_broken(ROW_RULES)} as row_rule from identified"""


def repeated_ids(days: str) -> str:
    """A query: file and row_number of the second and later sound rows of an id, over all days.

    Args:
        days: SQL condition for the days whose events are asked about.
    """
    twice = f"""
        select event_id from raw_events
        where day is not null and event_id in (select event_id from raw_events where {days})
        group by event_id having count(*) > 1"""
    return f"""
        select file, row_number from ({typed(f"r.day is not null and r.event_id in ({twice})")})
        where row_rule is null
        qualify row_number() over (partition by event_id order by instant, content, file, row_number) > 1"""
