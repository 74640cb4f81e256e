"""A user's history: what was published of it, and the events since, as one.

On the floor of `service`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from ecom_pipeline.arrays import Ints
from ecom_pipeline.feedback import DISMISS, RESTORE
from ecom_pipeline.recommend.circumstances import Circumstances
from ecom_pipeline.recommend.interactions import KINDS, NEVER, Interactions, day_of
from ecom_pipeline.service.journal.rows import Event
from ecom_pipeline.service.published import PublishedModel

LIKED = 3.0  # stars above which a review is of something taken
_NOTHING = 1e-6  # pieces, of sums of weights such as 0.1 kg


@dataclass(frozen=True, slots=True)
class History:
    """What somebody took.

    Attributes:
        acts: rows of one user.
        dismissed: rows that do not count, as somebody said so.
    """

    acts: Interactions
    dismissed: Interactions


def with_events(
    before: Interactions, code: int, events: Sequence[Event], model: PublishedModel, now: datetime
) -> History:
    """The published rows of a user and the events since, as one history in which an event of today is of yesterday.

    What a user did on the day of a visit was not known when rankers learnt, so the latest that can be is the day before.
    """
    last_day, said = model.told["day"] - 1, _said(events)
    left: dict[int, float] = {}
    rows: list[tuple] = []
    returned, shown = before.returned.copy(), []
    dismissed = np.zeros(len(before), bool)
    for item_id, event in said.items():
        since = datetime.fromisoformat(event.occurred_at).date() > day_of(last_day)
        until = last_day if since else _day(event, now, last_day)
        dismissed |= (before.item == model.place.get(item_id, -1)) & (before.day <= until)
    gone: list[bool] = []
    for event in events:
        item = model.place.get(event.item_id, -1)
        if not 0 <= item < before.n_items:
            continue
        day = _day(event, now, last_day)
        kind = _taken_as(event)
        if kind is not None:
            pieces = (event.quantity or 1.0) if event.action == "purchase" else 0.0
            price = np.nan if event.price is None else event.price
            rows.append((item, day, kind, pieces, price, NEVER, event.position, event.propensity))
            gone.append(event.item_id in said and event.occurred_at <= said[event.item_id].occurred_at)
        elif event.action == "return":
            back = item, event.quantity or 1.0, last_day
            _give_back(rows, before, returned, left=left, back=back)
        elif event.action == "impression" and event.query is None:
            shown.append(int(before.place_in_time(code, item, day)))
    before = replace(before, returned=returned, shown=_shown_to(before, code, shown))
    live = _rows(before, code, rows)
    out = np.array(gone, bool)
    return History(_joined(before.only(~dismissed), live.only(~out)), _joined(before.only(dismissed), live.only(out)))


def _day(event: Event, now: datetime, last_day: int) -> int:
    """Of an event: that of today is of the last day, one of yesterday of the day before."""
    return last_day - max((now.date() - datetime.fromisoformat(event.occurred_at).date()).days, 0)


def _shown_to(before: Interactions, code: int, since: Sequence[int]) -> Ints:
    """Places in time of what lists have shown to a user, before the model was made and since."""
    ends = [before.place_in_time(user, 0, 0) for user in (code, code + 1)]
    own = before.shown[slice(*np.searchsorted(before.shown, ends))]
    return np.sort(np.r_[own, np.array(since, np.int64)])


def _said(events: Sequence[Event]) -> Mapping[str, Event]:
    """Items that were dismissed and not restored, and the event that said so."""
    found: dict[str, Event] = {}
    for event in events:
        if event.action == DISMISS:
            found[event.item_id] = event
        elif event.action == RESTORE:
            found.pop(event.item_id, None)
    return found


def _taken_as(event: Event) -> int | None:
    if event.action not in KINDS or (event.action == "review" and (event.rating or 5) <= LIKED):
        return None
    return KINDS.index(event.action)


def _give_back(
    rows: list[tuple], before: Interactions, returned: Ints, *, left: dict[int, float], back: tuple[int, float, int]
) -> None:
    """Pieces go back of the latest purchase that has as many left; one of which none is left did not last.

    Args:
        rows: since the model was made.
        before: rows of the model.
        returned: of these rows.
        left: pieces, of purchases of which some went back: by place in `rows`, or -1 - place in `before`.
        back: item, pieces, day.
    """
    (item, pieces, day), bought = back, KINDS.index("purchase")
    for place in range(len(rows) - 1, -1, -1):
        if rows[place][0] == item and rows[place][2] == bought and left.get(place, rows[place][3]) >= pieces:
            left[place] = left.get(place, rows[place][3]) - pieces
            if left[place] < _NOTHING:
                rows[place] = (*rows[place][:5], day, *rows[place][6:])
            return
    n_bought = before.n_acts[:, bought]
    for place in np.flatnonzero((before.item == item) & (n_bought > 0) & (returned == NEVER))[::-1].tolist():
        had = left.get(-1 - place, float(before.quantity[place] or n_bought[place]))
        if had >= pieces:
            left[-1 - place] = had - pieces
            if left[-1 - place] < _NOTHING and n_bought[place] == before.n_acts[place].sum():
                returned[place] = day
            return


def _rows(before: Interactions, code: int, rows: Sequence[tuple]) -> Interactions:
    item, day, kind, pieces, price, returned, position, propensity = (
        (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.empty(0) for _ in range(8))
    )
    how = None
    if before.circumstances is not None:  # of what is promoted since the model was made nothing is known
        shown = (position.astype(np.float32), propensity.astype(np.float32))  # None becomes NaN
        how = Circumstances(*shown, np.full(len(rows), np.nan, np.float32))
    n_acts = np.zeros((len(rows), len(KINDS)), np.float32)
    n_acts[np.arange(len(rows)), kind.astype(np.int64)] = 1
    return replace(
        before,
        user=np.full(len(rows), code),
        item=item.astype(np.int64),
        day=day.astype(np.int64),
        n_acts=n_acts,
        quantity=pieces.astype(np.float32),
        returned=returned.astype(np.int64),
        price=price.astype(np.float32),
        circumstances=how,
    )


def _joined(first: Interactions, second: Interactions) -> Interactions:
    """One row an item and day again."""
    if not len(second):
        return first
    columns = {
        name: np.concatenate([getattr(part, name) for part in (first, second)])
        for name in ("user", "item", "day", "n_acts", "quantity", "returned", "price")
    }
    order = np.lexsort((columns["day"], columns["item"]))
    columns = {name: values[order] for name, values in columns.items()}
    key = columns["item"] * (1 << 20) + columns["day"]
    start = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    known = np.isfinite(columns["price"])
    paid = np.add.reduceat(np.where(known, columns["price"], 0), start)
    n_known = np.add.reduceat(known.astype(np.float32), start)
    hows = [part.circumstances for part in (first, second) if part.circumstances is not None]
    return replace(
        first,
        user=columns["user"][start],
        item=columns["item"][start],
        day=columns["day"][start],
        n_acts=np.add.reduceat(columns["n_acts"], start, axis=0),
        quantity=np.add.reduceat(columns["quantity"], start),
        returned=np.maximum.reduceat(columns["returned"], start),
        price=np.where(n_known > 0, paid / np.maximum(n_known, 1), np.nan).astype(np.float32),
        circumstances=Circumstances.joined(hows).only(order).means(start) if hows else None,
    )
