"""How good an order of users is: gain and lift, the smallest list that reaches a share, calibration, and Qini for uplift.

All figures are means over offers; intervals draw users within offers and offers together (Owen 2007, the pigeonhole
bootstrap), so they are wide where offers are few.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, summed

N_BOOTSTRAP = 500
SHARES = (0.05, 0.1, 0.2)
REACHES = (0.5, 0.8)

_AT_ONCE = 1 << 20  # weights of users that lie in memory at once, of all draws together

Figure = Callable[[Floats, Floats, Floats], Floats]
"""Takes (n,) scores and responses of one offer's users and (..., n) weights of theirs, one row a draw, and returns a figure a
row, (...,); NaN where it is none."""


def gain_curve(score: Floats, response: Floats, weight: Floats | None = None) -> tuple[Floats, Floats]:
    """Share of the users asked, best first, and share of the responses that they give; from (0, 0) to (1, 1).

    Users of one score come together, in no order; where nobody responds, the curve is that of an order by chance.
    """
    asked, reached = _gained(score, response, np.ones(len(score)) if weight is None else weight)
    asked = _ratio(asked, asked[..., -1:])
    return _from_zero(asked), _from_zero(np.where(reached[..., -1:] > 0, _ratio(reached, reached[..., -1:]), asked))


def area(score: Floats, response: Floats, weight: Floats) -> Floats:
    """Chance that one who responds stands above one who does not; ties count half.

    >>> float(area(np.array([3.0, 2, 1]), np.array([1.0, 0, 1]), np.ones(3)))
    0.5
    """
    order = np.argsort(score, kind="stable")
    begins = np.append(0, np.flatnonzero(np.diff(score[order])) + 1)
    yes = np.add.reduceat((weight * response)[..., order], begins, axis=-1)
    no = np.add.reduceat((weight * (1 - response))[..., order], begins, axis=-1)
    below = np.cumsum(no, axis=-1) - no
    return _ratio((yes * (below + no / 2)).sum(-1), yes.sum(-1) * no.sum(-1))


def average_precision(score: Floats, response: Floats, weight: Floats) -> Floats:
    """Mean precision at each response, users of one score together."""
    asked, reached = _gained(score, response, weight)
    precision = reached / np.maximum(asked, 1e-12)
    return _ratio((np.diff(reached, prepend=0) * precision).sum(-1), reached[..., -1])


def lift(share: float) -> Figure:
    """Responses of the best share of users, over those of as many at random."""

    def figure(score: Floats, response: Floats, weight: Floats) -> Floats:
        asked, reached = gain_curve(score, response, weight)
        after = np.minimum((asked <= share).sum(-1), asked.shape[-1] - 1)
        return np.where((weight * response).sum(-1) > 0, _between(asked, reached, after, share) / share, np.nan)[()]

    return figure


def reach(share: float) -> Figure:
    """Share of the users who must be asked for a share of the responses."""

    def figure(score: Floats, response: Floats, weight: Floats) -> Floats:
        asked, reached = gain_curve(score, response, weight)
        after = (reached < share - 1e-12).sum(-1)
        return np.where((weight * response).sum(-1) > 0, _between(reached, asked, after, share), np.nan)[()]

    return figure


def _gained(score: Floats, response: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """(..., k) users asked and responses got after each of the k different scores, best first."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    asked, reached = (np.cumsum(one[..., order], axis=-1)[..., ends] for one in (weight, weight * response))
    return asked, reached


def _between(x: Floats, y: Floats, after: Ints, at: float) -> Floats:
    """(...,) y on the line from the place before to the place `after`, where x is so much."""
    places = np.maximum(np.stack([after - 1, after], axis=-1), 0)
    (low, high), (bottom, top) = (np.moveaxis(np.take_along_axis(one, places, axis=-1), -1, 0) for one in (x, y))
    return bottom + np.where(high > low, (at - low) / np.where(high > low, high - low, 1), 0) * (top - bottom)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """NaN where the whole is nothing."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)[()]


def _from_zero(curve: Floats) -> Floats:
    return np.concatenate([np.zeros((*curve.shape[:-1], 1)), curve], axis=-1)


def smallest_list(probability: Floats, share: float) -> int:
    """How many users, best first, are expected to give a share of all expected responses.

    >>> smallest_list(np.array([0.5, 0.3, 0.2]), 0.8)
    2
    """
    reached = np.cumsum(np.sort(probability)[::-1])
    return int(np.searchsorted(reached, share * reached[-1] - 1e-12) + 1) if len(reached) and reached[-1] else 0


def calibration_error(score: Floats, response: Floats, weight: Floats) -> Floats:
    """Mean distance of expected and seen share of responses, over ten groups of users by score."""
    expected, seen = _by_tenth(score, weight, weight * score), _by_tenth(score, weight, weight * response)
    return np.abs(expected - seen).sum(-1) / np.maximum(weight.sum(-1), 1e-12)


def calibration_noise(score: Floats, _: Floats, weight: Floats) -> Floats:
    """The calibration error that is to be expected where all scores are right, since so few users are in a group."""
    variance = _by_tenth(score, weight, weight**2 * score * (1 - score))
    return np.sqrt(2 / np.pi * variance).sum(-1) / np.maximum(weight.sum(-1), 1e-12)


def _by_tenth(score: Floats, weight: Floats, what: Floats) -> Floats:
    """(..., 10) sums over the users of each tenth of the weight, by score."""
    order, shape = np.argsort(score, kind="stable"), weight.shape[:-1]
    weight, what = (one[..., order].reshape(-1, len(score)) for one in (weight, what))
    place = (np.cumsum(weight, axis=-1) - weight / 2) / np.maximum(weight.sum(-1, keepdims=True), 1e-12)
    tenth = np.minimum(place * 10, 9).astype(np.int64) + 10 * np.arange(len(weight))[:, None]
    return summed(tenth.ravel(), what.ravel(), 10 * len(weight)).reshape(*shape, 10)


def qini(score: Floats, effect: Floats, weight: Floats) -> Floats:
    """Area between the curve of effect gained and that of an order by chance, a user: above 0, the order finds uplift.

    Args:
        score: (n,) by which users are ordered.
        effect: (n,) an unbiased score of each user's own effect, as `uplift.effect_scores` makes; of a drawn comparison the
            weighted outcome.
        weight: (..., n) of users.

    Source: Radcliffe 2007, with doubly robust scores in place of the arms' sums.
    """
    asked, gained = (_from_zero(_ratio(one, weight.sum(-1, keepdims=True))) for one in _gained(score, effect, weight))
    over = gained - asked * gained[..., -1:]
    return ((over[..., 1:] + over[..., :-1]) / 2 * np.diff(asked)).sum(-1)  # trapezoids


FIGURES: Mapping[str, Figure] = {
    "AUC": area,
    "average precision": average_precision,
    **{f"lift at {share:.0%}": lift(share) for share in SHARES},
    **{f"users asked for {share:.0%} of the responses": reach(share) for share in REACHES},
}


def judged(
    figure: Figure, score: Floats, response: Floats, offer: np.ndarray, user: np.ndarray, *, seed: int = 0
) -> tuple[float, Floats]:
    """Mean of a figure over offers, and (`N_BOOTSTRAP`,) the same with users and offers drawn anew.

    The draws are the same for every score that is judged with the same offers, users and seed, so differences are paired.

    Args:
        figure: of one offer.
        score: (n,).
        response: (n,).
        offer: (n,) name.
        user: (n,) id.
        seed: of the draws.
    """
    names, place = np.unique(offer, return_inverse=True)
    people, who = np.unique(user, return_inverse=True)
    by_score = np.argsort(-score, kind="stable")  # sorted once: figures sort again what is in order
    rows: Sequence[Ints] = [by_score[place[by_score] == n] for n in range(len(names))]
    draw = np.random.default_rng(seed)

    def drawn_anew(n: int) -> Floats:
        return np.bincount(draw.integers(0, n, n), minlength=n).astype(float)

    def means(of_user: Floats, of_offer: Floats) -> Floats:
        values = np.stack([figure(score[part], response[part], of_user[:, who[part]]) for part in rows], axis=-1)
        kept = np.where(np.isfinite(values), of_offer, 0.0)
        return _ratio((np.where(kept > 0, values, 0) * kept).sum(-1), kept.sum(-1))

    (value,) = means(np.ones((1, len(people))), np.ones((1, len(names))))
    at_once = max(1, _AT_ONCE // len(score))
    drawn: list[Floats] = []
    for first in range(0, N_BOOTSTRAP, at_once):
        pairs = [(drawn_anew(len(people)), drawn_anew(len(names))) for _ in range(min(at_once, N_BOOTSTRAP - first))]
        drawn.append(means(*map(np.stack, zip(*pairs, strict=True))))
    return float(value), np.concatenate(drawn)
