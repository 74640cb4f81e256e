"""A weight for every act that was kept: what it tells of its user on a day, factor by factor, in SQL.

On the floor above `retrieval`. The weights of a user's acts on an item and a day add up to the row's weight in
`Weighting.as_of`.
"""

from datetime import date

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import feedback, identity
from ecom_pipeline.purchases import gone_back
from ecom_pipeline.recommend.circumstances import promoted, promotions_known
from ecom_pipeline.recommend.interactions import Interactions, day_of
from ecom_pipeline.recommend.retrieval import UNKNOWN, Index
from ecom_pipeline.recommend.weighting import MOST, Weighting
from ecom_pipeline.samples import TAKEN

_BY_AGE = {
    "none": "1.0",
    "exponential": "power(2.0, -{share})",
    "hyperbolic": "1.0 / (1.0 + {share})",
    "square_root": "sqrt(1.0 / (1.0 + {share}))",
}


def build_interaction_weights(
    db: DuckDBPyConnection, weighting: Weighting, day: int, opinions: pd.DataFrame | None
) -> dict[str, float]:
    """Write the relation `interaction_weights` as of a day.

    Args:
        db: a connection inside a transaction.
        weighting: the one to use.
        day: acts before it are weighed.
        opinions: as `opinions_of` gives them; None: the weighting asks for none.

    Returns:
        n_acts, effective_share (of the acts, by the weights).

    Cost: one scan, and a sort where pieces or returns count; DuckDB spills what does not fit.
    """
    now, opinion, joined = day_of(day), "1.0", ""
    before = f"day < '{now}'"
    if opinions is not None:
        db.register("opinions", opinions)
        joined = "left join opinions using (actor, item_id)"
        opinion = f"power(coalesce(opinion, {UNKNOWN}), {weighting.evidence_strength})"
    if weighting.promoted_act != 1:
        joined += f" left join ({promoted()}) using (item_id, day) cross join ({promotions_known()})"
    db.execute(f"""
        create or replace table interaction_weights as
        with back as (select event_id, day as back from ({gone_back(now)})),
        said as ({feedback.dismissed(before)}),
        taken as (
            select event_id, {identity.actor("e")} as actor, item_id, day, occurred_at, action, quantity,
                position, propensity
            from cleaned_interactions as e where {TAKEN} and {before}),
        shown as (
            select event_id, count(*) as times from taken join ({feedback.left_alone(before)}) as list
                on list.actor = taken.actor and list.item_id = taken.item_id and list.day > taken.day
            group by event_id),
        factors as (
            select event_id, {_by_age(weighting, now)} as age_factor,
                case when action = 'purchase' then 1.0 else {weighting.light_act} end as kind_factor,
                {_by_quantity(weighting)} as quantity_factor, {_by_return(weighting)} as return_factor,
                {opinion} as evidence_factor, {_by_position(weighting)} as position_factor,
                {_by_propensity(weighting)} as propensity_factor, {_by_promotion(weighting)} as promotion_factor,
                case when occurred_at <= dismissed_at then 0.0 else 1 / (1 + {weighting.ignored} * coalesce(times, 0)) end
                    as feedback_factor
            from taken left join back using (event_id) left join shown using (event_id)
                left join said using (actor, item_id) {joined}),
        valued as materialized (
            select *, age_factor * kind_factor * quantity_factor * return_factor * evidence_factor * feedback_factor
                * coalesce(position_factor, 1) * coalesce(propensity_factor, 1) * coalesce(promotion_factor, 1)
                as interaction_value
            from factors)
        select event_id, age_factor::double as age_factor, kind_factor::double as kind_factor,
            quantity_factor::double as quantity_factor, return_factor::double as return_factor,
            evidence_factor::double as evidence_factor, feedback_factor::double as feedback_factor,
            position_factor::double as position_factor, propensity_factor::double as propensity_factor,
            promotion_factor::double as promotion_factor,
            interaction_value::double as interaction_value,
            coalesce(interaction_value / nullif(mean, 0), 1)::double as interaction_weight
        from valued, (select sum(interaction_value::decimal(38, 15))::double / count(*) as mean from valued)""")
    if opinions is not None:
        db.unregister("opinions")
    n, share = db.execute(
        """select count(*), coalesce(power(sum(interaction_weight), 2) / nullif(sum(power(interaction_weight, 2)), 0)
            / nullif(count(*), 0), 1) from interaction_weights"""
    ).fetchall()[0]
    return {"n_acts": n, "effective_share": share}


def opinions_of(acts: Interactions, index: Index) -> pd.DataFrame | None:
    """actor, item_id, opinion: how well the rest of a user's history foretells each pair, if the index was asked.

    Args:
        acts: interactions that the index was made of.
        index: made with the weighting.
    """
    if index.opinion is None:
        return None
    user, item = index.pairs // acts.n_items, index.pairs % acts.n_items
    return pd.DataFrame({"actor": acts.user_ids[user], "item_id": acts.item_ids[item], "opinion": index.opinion})


def _by_age(weighting: Weighting, now: date) -> str:
    return _BY_AGE[weighting.age_form].format(share=f"((date '{now}' - day) / {weighting.half_life})")


_OF_THE_DAY = "over (partition by actor, item_id, day)"  # one row of `Interactions`


def _by_quantity(weighting: Weighting) -> str:
    if not weighting.quantity:
        return "1.0"
    return f"power(greatest(coalesce(sum(quantity) {_OF_THE_DAY}, 0), 1), {weighting.quantity})"


def _by_return(weighting: Weighting) -> str:
    if weighting.returned == 1:
        return "1.0"
    return f"case when count(back) {_OF_THE_DAY} = count(*) {_OF_THE_DAY} then {weighting.returned} else 1.0 end"


def _by_position(weighting: Weighting) -> str:
    return _within(f"avg(position) {_OF_THE_DAY} / {weighting.usual_position}", weighting.by_position)


def _by_propensity(weighting: Weighting) -> str:
    return _within(f"{weighting.usual_propensity} / avg(propensity) {_OF_THE_DAY}", weighting.by_propensity)


def _within(share: str, power: float) -> str:
    """Null where the share is: what is not known has no factor, and weighs 1."""
    if not power:
        return "1.0"
    bounded = f"least(greatest(power({share}, {power}), {1 / MOST}), {MOST})"
    return f"case when ({share}) is not null then {bounded} end"


def _by_promotion(weighting: Weighting) -> str:
    if weighting.promoted_act == 1:
        return "1.0"
    known = "day between known_from and known_to"
    return f"case when {known} then 1 + coalesce(promoted, 0) * ({weighting.promoted_act} - 1) end"
