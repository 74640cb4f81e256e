"""What was offered to whom: campaigns with their users and items, promotions, and arms of experiments."""

from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from ecom_pipeline import forms, identity, schema
from ecom_pipeline.cleaning.rules import MALFORMED, Rule, first_broken, number, sieve
from ecom_pipeline.forms import times
from ecom_pipeline.forms.columns import READ
from ecom_pipeline.schema import Relation
from ecom_pipeline.schema.inputs import OFFERS

_DAYS = [
    Rule("first_day_unreadable", "first_day is null", "first_day must be a day as 2017-03-01", "first_day_given"),
    Rule("last_day_unreadable", "last_day is null", "last_day must be a day as 2017-03-01", "last_day_given"),
    Rule(
        "days_reversed",
        "last_day < first_day",
        "last_day must not lie before first_day",
        "last_day || ' and ' || first_day",
    ),
]
_DAYS_READ = ", ".join(
    f"{times.inline(day)}::date as {day}, coalesce(filled({day}), 'nothing') as {day}_given"
    for day in ("first_day", "last_day")
)
_CAMPAIGN = [
    Rule("campaign_id_missing", "campaign_id is null", "campaign_id must be present", "'nothing'"),
]
_OF_CAMPAIGN = [
    *_CAMPAIGN,
    Rule("campaign_unknown", "not campaign_known", "campaign_id must be in campaigns", "campaign_id"),
]
_OF_ITEM = [
    Rule("item_id_missing", "item_id is null", "item_id must be present", "'nothing'"),
    Rule("item_unknown", "not item_known", "item_id must be in items", "item_id"),
]
_CAMPAIGN_KNOWN = "campaign_id in (select campaign_id from campaigns) as campaign_known"
_ITEM_KNOWN = "item_id in (select item_id from items) as item_known"


@dataclass(frozen=True, slots=True)
class _Sifting:
    """How a table is read and sifted.

    Attributes:
        kept: where sound rows go.
        typed: an SQL query for its rows, typed.
        rules: of single rows.
        same: columns, by which sound rows are the same: the first is kept.
        first: SQL order, in which they are looked at.
        repeated: rules for the others, over what `among` adds.
        among: more SQL columns, over all rows that are the same: windows named `same`.
    """

    kept: Relation
    typed: str
    rules: list[Rule]
    same: tuple[str, ...]
    repeated: list[Rule]
    first: str = "file, row_number"
    among: str = ""


_SIFTINGS = {
    "campaigns": _Sifting(
        schema.CAMPAIGNS,
        f"select file, row_number, malformed, campaign_id, filled_text(kind) as kind, {_DAYS_READ} from raw_campaigns",
        [*_CAMPAIGN, *_DAYS],
        ("campaign_id",),
        [Rule("campaign_id_repeated", "nth > 1", "campaign_id must be unique; the first row is kept", "campaign_id")],
    ),
    "campaign_users": _Sifting(
        schema.CAMPAIGN_USERS,
        f"""select file, row_number, malformed, campaign_id, user_id, {_CAMPAIGN_KNOWN}, filled(held_out) as held_out_given,
            case when held_out_given is null then false else try_cast(held_out_given as boolean) end as held_out,
            {READ["campaign_users"]["redeemed_at"]} as redeemed_at_given
        from raw_campaign_users""",
        [
            *_OF_CAMPAIGN,
            Rule("user_missing", "user_id is null", "user_id must be present", "'nothing'"),
            Rule("held_out_unreadable", "held_out is null", "held_out must be true or false", "held_out_given"),
        ],
        ("campaign_id", "user_id"),
        [
            Rule(
                "held_out_conflicts",
                "nth > 1 and held_out <> first_held_out",
                "a user either gets a campaign or is held out from it; the first row is kept",
                "held_out || ' after ' || first_held_out",
            ),
            Rule(
                "campaign_user_repeated",
                "nth > 1",
                "a user stands once under a campaign; the first row is kept, with the first redemption of all",
                "user_id || ' again under ' || campaign_id",
            ),
        ],
        among="min(redeemed_at_given) over same_all as redeemed_at, first_value(held_out) over same as first_held_out",
    ),
    "campaign_items": _Sifting(
        schema.CAMPAIGN_ITEMS,
        f"select file, row_number, malformed, campaign_id, item_id, {_CAMPAIGN_KNOWN}, {_ITEM_KNOWN} from raw_campaign_items",
        [*_OF_CAMPAIGN, *_OF_ITEM],
        ("campaign_id", "item_id"),
        [
            Rule(
                "campaign_item_repeated",
                "nth > 1",
                "an item stands once under a campaign",
                "item_id || ' again under ' || campaign_id",
            )
        ],
    ),
    "promotions": _Sifting(
        schema.PROMOTIONS,
        f"""select file, row_number, malformed, item_id, {_ITEM_KNOWN}, lower(filled_text(kind)) as kind, {_DAYS_READ},
            filled(reach) as reach_given, case when reach_given is null then 1 else {READ["promotions"]["reach"]} end as reach
        from raw_promotions""",
        [
            *_OF_ITEM,
            Rule("kind_missing", "kind is null", "kind must say how the item is promoted", "'nothing'"),
            *_DAYS,
            number("reach", "reach > 1", "reach must be a share in [0, 1]"),
        ],
        ("item_id", "kind", "first_day"),
        [
            Rule(
                "promotion_repeated",
                "nth > 1",
                "an item is promoted once in a way from a day on; the first row is kept",
                "kind || ' of ' || item_id || ' from ' || first_day",
            )
        ],
    ),
    "exposures": _Sifting(
        schema.EXPOSURES,
        f"""select file, row_number, malformed, filled(experiment) as experiment, filled(arm) as arm,
            {identity.actor("e")} as unit_id, filled(cluster_id) as cluster_id, {times.inline("exposed_at")} as exposed_at
        from raw_exposures as e""",
        [
            Rule("experiment_missing", "experiment is null", "experiment must be named", "'nothing'"),
            Rule("arm_missing", "arm is null", "arm must be named", "'nothing'"),
            Rule("unit_missing", "unit_id is null", "user_id or session_id must be present", "'neither'"),
            Rule(
                "exposed_at_unreadable",
                "exposed_at is null",
                "exposed_at must be a time as 2017-03-01T08:00:00Z",
                "'no time'",
            ),
        ],
        ("experiment", "arm", "unit_id"),
        [
            Rule(
                "exposed_again",
                "nth > 1",
                "a unit is exposed to an arm once; the first time holds",
                "exposed_at || ' in ' || arm || ' of ' || experiment",
            )
        ],
        first="exposed_at, file, row_number",
    ),
}


def clean_offers(db: DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """Make `campaigns`, `campaign_users`, `campaign_items` and `promotions` from what landed of them, for known items.

    Returns:
        By table: rows kept under "kept", and rows rejected by the name of the rule.

    Cost: a sort of each table.
    """
    return {table: _sift(db, table) for table in OFFERS}


def clean_exposures(db: DuckDBPyConnection) -> dict[str, int]:
    """Make `exposures` from `raw_exposures`; of several times that a unit saw an arm, the first holds.

    Returns:
        Rows kept under "kept", and rows rejected by the name of the rule.

    Cost: a sort of the table.
    """
    return _sift(db, "exposures")


def _sift(db: DuckDBPyConnection, table: str) -> dict[str, int]:
    forms.make_macros(db, table)
    how = _SIFTINGS[table]
    rules = [MALFORMED, *how.rules]
    same = f"partition by {', '.join(how.same)}, row_rule is null"
    more = f", {how.among}" if how.among else ""
    db.execute(
        f"""create or replace temp table checked as
        select *, row_number() over same as nth{more}
        from (select *, {first_broken(rules)} as row_rule from ({how.typed}))
        window same as ({same} order by {how.first}), same_all as ({same})"""
    )
    counts = sieve(db, table, prepared="from checked", rules=[*rules, *how.repeated], kept=how.kept)
    db.execute("drop table checked")
    return counts
