"""Which purchases did not last: those of which every piece went back.

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
