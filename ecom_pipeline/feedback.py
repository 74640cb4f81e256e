"""What users said of what was shown to them: shown by a list and left, or not to be counted any more.

On the lowest floor. A list shows without a query; what a search shows is judged by the search.
"""

from ecom_pipeline import identity

DISMISS, RESTORE = "dismiss", "restore"


def left_alone(until: str = "true") -> str:
    """A query on `cleaned_interactions`: actor, item_id and day of each showing by a list.

    Args:
        until: SQL condition on `day`.
    """
    return f"""
        select {identity.actor("shown")} as actor, item_id, day from cleaned_interactions as shown
        where action = 'impression' and query is null and {until}"""


def dismissed(until: str = "true") -> str:
    """A query on `cleaned_interactions`: actor, item_id, and until when what was taken of it does not count.

    A pair that was restored after it was dismissed is not among them.

    Args:
        until: SQL condition on `day`.
    """
    return f"""
        select {identity.actor("said")} as actor, item_id, max(occurred_at) as dismissed_at from cleaned_interactions as said
        where action in ('{DISMISS}', '{RESTORE}') and {until}
        group by all having max_by(action, (occurred_at, event_id)) = '{DISMISS}'"""
