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

Figure = Callable[[Floats, Floats, Floats], float]
"""Takes (n,) scores, responses and weights of one offer's users, and returns a figure; NaN where it is none."""


def gain_curve(score: Floats, response: Floats, weight: Floats | None = None) -> tuple[Floats, Floats]:
    """Share of the users asked, best first, and share of the responses that they give; from (0, 0) to (1, 1).

    Users of one score come together, in no order.
    """
    weight = np.ones(len(score)) if weight is None else weight
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    asked = np.cumsum(weight[order])[ends]
    reached = np.cumsum((weight * response)[order])[ends]
    if not len(score) or not reached[-1]:
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    return np.append(0, asked / asked[-1]), np.append(0, reached / reached[-1])


def area(score: Floats, response: Floats, weight: Floats) -> float:
    """Chance that one who responds stands above one who does not; ties count half.

    >>> area(np.array([3.0, 2, 1]), np.array([1.0, 0, 1]), np.ones(3))
    0.5
    """
    order = np.argsort(score, kind="stable")
    _, group = np.unique(score[order], return_inverse=True)
    yes = np.bincount(group, (weight * response)[order])
    no = np.bincount(group, (weight * (1 - response))[order])
    if not yes.sum() or not no.sum():
        return float("nan")
    below = np.cumsum(no) - no
    return float((yes * (below + no / 2)).sum() / (yes.sum() * no.sum()))


def average_precision(score: Floats, response: Floats, weight: Floats) -> float:
    """Mean precision at each response, users of one score together."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    asked, reached = np.cumsum(weight[order])[ends], np.cumsum((weight * response)[order])[ends]
    if not len(score) or not reached[-1]:
        return float("nan")
    precision = reached / np.maximum(asked, 1e-12)
    return float((np.diff(reached, prepend=0) * precision).sum() / reached[-1])


def lift(share: float) -> Figure:
    """Responses of the best share of users, over those of as many at random."""

    def figure(score: Floats, response: Floats, weight: Floats) -> float:
        if not (weight * response).sum():
            return float("nan")
        asked, reached = gain_curve(score, response, weight)
        return float(np.interp(share, asked, reached) / share)

    return figure


def reach(share: float) -> Figure:
    """Share of the users who must be asked for a share of the responses."""

    def figure(score: Floats, response: Floats, weight: Floats) -> float:
        if not (weight * response).sum():
            return float("nan")
        asked, reached = gain_curve(score, response, weight)
        place = int(np.searchsorted(reached, share - 1e-12))
        low, high = reached[max(place - 1, 0)], reached[place]
        part = 0.0 if high == low else (share - low) / (high - low)
        return float(asked[max(place - 1, 0)] + part * (asked[place] - asked[max(place - 1, 0)]))

    return figure


def smallest_list(probability: Floats, share: float) -> int:
    """How many users, best first, are expected to give a share of all expected responses.

    >>> smallest_list(np.array([0.5, 0.3, 0.2]), 0.8)
    2
    """
    reached = np.cumsum(np.sort(probability)[::-1])
    return int(np.searchsorted(reached, share * reached[-1] - 1e-12) + 1) if len(reached) and reached[-1] else 0


def calibration_error(score: Floats, response: Floats, weight: Floats) -> float:
    """Mean distance of expected and seen share of responses, over ten groups of users by score."""
    expected, seen = _by_tenth(score, weight, weight * score), _by_tenth(score, weight, weight * response)
    return float(np.abs(expected - seen).sum() / max(weight.sum(), 1e-12))


def calibration_noise(score: Floats, _: Floats, weight: Floats) -> float:
    """The calibration error that is to be expected where all scores are right, since so few users are in a group."""
    variance = _by_tenth(score, weight, weight**2 * score * (1 - score))
    return float(np.sqrt(2 / np.pi * variance).sum() / max(weight.sum(), 1e-12))


def _by_tenth(score: Floats, weight: Floats, what: Floats) -> Floats:
    """(10,) sums over the users of each tenth of the weight, by score."""
    order = np.argsort(score, kind="stable")
    place = (np.cumsum(weight[order]) - weight[order] / 2) / max(weight.sum(), 1e-12)
    return summed(np.minimum(place * 10, 9).astype(np.int64), what[order], 10)


def qini(score: Floats, effect: Floats, weight: Floats) -> float:
    """Area between the curve of effect gained and that of an order by chance, a user: above 0, the order finds uplift.

    Args:
        score: (n,) by which users are ordered.
        effect: (n,) an unbiased score of each user's own effect, as `uplift.effect_scores` makes; of a drawn comparison the
            weighted outcome.
        weight: (n,) of users.

    Source: Radcliffe 2007, with doubly robust scores in place of the arms' sums.
    """
    if not weight.sum():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    asked = np.append(0, np.cumsum(weight[order])[ends]) / weight.sum()
    gained = np.append(0, np.cumsum((weight * effect)[order])[ends]) / weight.sum()
    return float(np.trapezoid(gained - asked * gained[-1], asked))


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

    def mean(of_user: Floats, of_offer: Floats) -> float:
        found = [
            (figure(score[part], response[part], of_user[who[part]]), of_offer[n])
            for n, part in enumerate(rows)
            if of_offer[n]
        ]
        kept = [(value, n) for value, n in found if np.isfinite(value)]
        return float(np.average([v for v, _ in kept], weights=[n for _, n in kept])) if kept else float("nan")

    value = mean(np.ones(len(people)), np.ones(len(names)))
    drawn = np.array(
        [
            mean(
                np.bincount(draw.integers(0, len(people), len(people)), minlength=len(people)).astype(float),
                np.bincount(draw.integers(0, len(names), len(names)), minlength=len(names)).astype(float),
            )
            for _ in range(N_BOOTSTRAP)
        ]
    )
    return value, drawn
