"""Who acts as no person does, and which acts a tracker told twice: by hours, gaps, breadth and pieces, in SQL.

On the floor above `interactions`.
"""

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.samples import TAKEN

FEW = 20  # acts of somebody whose rhythm says nothing
USUAL = 4.0  # robust standard deviations from the crowd that are nothing yet
AGAIN = 600  # seconds in which the same act may be told again
ONE_MONTH = 0.01  # share of acts that are told again, where there is no other month to compare with

_RHYTHMS = f"""
    with acts as (
        select {identity.actor("e")} as actor, item_id, day, occurred_at, hour(occurred_at) as hour,
            coalesce(quantity, 1) as quantity
        from cleaned_interactions as e where {TAKEN}),
    days as (select distinct actor, day, hour from acts),
    shop as (select hour, count(*) / (select count(*) from days) as share from days group by hour),
    hours as (
        select actor, hour, count(*) as n, sum(count(*)) over (partition by actor) as n_all from days group by actor, hour),
    peaks as (
        select actor, max((n - n_all * share) / sqrt(n_all * share * (1 - share) + 1)) as peak,
            max_by(hour, (n - n_all * share) / sqrt(n_all * share * (1 - share) + 1)) as peak_hour
        from hours join shop using (hour) group by actor),
    gaps as (
        select actor, occurred_at - lag(occurred_at) over (partition by actor order by occurred_at) as gap
        from (select distinct actor, occurred_at from acts)),
    steady as (
        select actor, max(n) / sum(n) as steadiness, sum(n) as n_gaps from (
            select actor, count(*) as n from gaps where gap is not null group by actor, gap) group by actor)
    select actor, count(*) as n_acts, count(distinct day) as n_days, count(distinct item_id) as n_items,
        avg(quantity) as pieces, any_value(peak) as peak, any_value(peak_hour) as peak_hour,
        coalesce(any_value(case when n_gaps >= {FEW} then steadiness end), 0) as steadiness
    from acts left join peaks using (actor) left join steady using (actor) group by actor order by actor"""


def doubt_actors(db: DuckDBPyConnection) -> pd.DataFrame:
    """How far each actor's rhythm is from the crowd's.

    Five measures, each in robust standard deviations (median and MAD of the logs) above the crowd: acts a day, items, pieces an act,
    how much an hour of the day stands out against the shop's, and the share of the commonest gap. The largest counts,
    less what is usual. Hours and gaps say nothing where events have no time of day.

    Args:
        db: a connection to the warehouse.

    Returns:
        actor, n_acts, n_days, n_items, pieces, peak, peak_hour, steadiness, doubt in [0, 1), and what stands out.

    Cost: a few sorts of the acts; DuckDB spills what does not fit.
    """
    frame = db.execute(_RHYTHMS).df()
    measures = {
        "acts a day": np.log(frame.n_acts / frame.n_days),
        "items": np.log(frame.n_items),
        "pieces": np.log(np.maximum(frame.pieces, 1e-9)),
        "hour": np.log1p(np.maximum(frame.peak.fillna(0), 0)),
        "gaps": 10 * frame.steadiness,
    }
    known = (frame.n_acts >= FEW).to_numpy()
    beyond = np.column_stack([_beyond(values.to_numpy(float), known) for values in measures.values()])
    largest = np.where(known, beyond.max(1, initial=0), 0)
    return frame.assign(
        doubt=np.maximum(largest - USUAL, 0) / (largest + USUAL),
        stands_out=np.array(list(measures))[beyond.argmax(1)] if len(frame) else "",
    )


def _beyond(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    if not known.any():
        return np.zeros(len(values))
    middle = np.median(values[known])
    spread = max(1.4826 * float(np.median(np.abs(values[known] - middle))), 0.1)
    return (values - middle) / spread


def doubt_repeats(db: DuckDBPyConnection) -> pd.DataFrame:
    """Acts that were told again within ten minutes, and how much more often that happened in their month than in others.

    Args:
        db: a connection to the warehouse.

    Returns:
        event_id, month, seconds after the act before, rate (share of the month's acts that are told again) and doubt: the
        share of such acts that is beyond the median rate of the other months; with one month alone, all but one in a hundred.

    Cost: one sort of the acts.
    """
    db.execute(f"""
        create or replace temp table after_the_same as
        select event_id, date_trunc('month', day) as month, epoch(occurred_at - lag(occurred_at) over (
            partition by {identity.actor("e")}, item_id, action order by occurred_at, event_id)) as seconds
        from cleaned_interactions as e where {TAKEN}""")
    again = f"coalesce(seconds, {AGAIN}) < {AGAIN}"
    rates = db.execute(f"select month, avg(({again})::int) as rate from after_the_same group by month").df()
    frame = db.execute(f"select event_id, month, seconds from after_the_same where {again} order by event_id").df()
    db.execute("drop table after_the_same")
    usual = [rates.rate[rates.month != one].median() if len(rates) > 1 else ONE_MONTH for one in rates.month]
    frame = frame.merge(rates.assign(usual=usual), on="month", how="left")
    return frame.assign(doubt=np.clip(1 - frame.usual / frame.rate, 0, 1)).drop(columns="usual")
