"""Which purchases lasted, and how much of each: pieces that went back are taken off their purchase, at its own time.

On the lowest floor. A purchase of which some pieces went back is still one.
"""

from datetime import date

_ROUNDING = 1e-9  # of sums of weights such as 0.1 kg


def gone_back(until: date | None = None) -> str:
    """A query on `cleaned_interactions`: event_id of such a purchase, and the day on which the last piece went back.

    Args:
        until: first day whose returns are not looked at; None: all are.
    """
    seen = f"back.day < '{until}'" if until else "true"
    return f"""
        select bought.event_id, max(back.day) as day
        from cleaned_interactions as back join cleaned_interactions as bought on bought.event_id = back.return_of
        where back.action = 'return' and {seen}
        group by bought.event_id, bought.quantity
        having sum(coalesce(back.quantity, 1)) >= coalesce(bought.quantity, 1) - {_ROUNDING}"""


# a query on `cleaned_interactions`: each purchase, whatever is left of it, with the pieces that were kept
KEPT = """
    select e.event_id, e.user_id, e.session_id, e.item_id, e.occurred_at, e.day, e.price,
        greatest(coalesce(e.quantity, 1) - coalesce(back.pieces, 0), 0) as pieces
    from cleaned_interactions as e left join (
        select return_of as event_id, sum(coalesce(quantity, 1)) as pieces from cleaned_interactions
        where action = 'return' group by return_of) as back using (event_id)
    where e.action = 'purchase'"""
