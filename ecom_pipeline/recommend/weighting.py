"""What a past act tells of its user today: its weight by age, kind, pieces, return, how it came about, and how well others foretell it.

On a low floor of `recommend`. A weighting is a few numbers; the unweighted twin is the one in which every act counts 1.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Singles
from ecom_pipeline.recommend.circumstances import Circumstances
from ecom_pipeline.recommend.interactions import KINDS, Interactions

IGNORED = 0.1  # a prior: how much less an act tells for each time that its item was shown since; too few shops log it
MOST = 10.0  # times as much, or as little, that an act may weigh by its rank, and by its chance of being shown
AGE_FORMS = ("none", "exponential", "hyperbolic", "square_root")


@dataclass(frozen=True, slots=True)
class Weighting:
    """How an act is weighed.

    Attributes:
        age_form: "exponential": 0.5 ** (age / half_life). "hyperbolic": 1 / (1 + age / half_life). "square_root": the
            root of that. All but "none" are 1 at age 0.
        half_life: days.
        light_act: weight of a click, a cart or a review beside a purchase, which weighs 1.
        quantity: power of the pieces bought.
        returned: weight of what went back.
        evidence: whose opinion of the pair counts: "behaviour": how strongly what the user took else foretells the item,
            by an item-item model (`retrieval.evidence` says what that model has seen of the pair). "text": how like the item's text is to the rest.
        evidence_strength: power of that opinion's rank share.
        ignored: an act weighs 1 / (1 + ignored x times) where a list has shown its item so many times since.
        by_position: power of the rank at which the item was shown, beside `usual_position`: who takes what stands far
            down has looked for it. A rank k is looked at about 1 / k as often as the first, so 1 undoes that wholly.
        usual_position: rank at which an act weighs 1, as it does where no rank is known.
        by_propensity: power of one over the logged chance of showing the item, beside `usual_propensity`: what was
            hardly ever shown and yet taken tells more. 1 is inverse propensity weighting.
        usual_propensity: chance at which an act weighs 1, as it does where none is known.
        promoted_act: weight of an act whose item was promoted in all of the shop's places on that day; where it was so
            in a share of them, in between; 1 where it is not known. Below 1: the offer was taken, not the item.

    Source: Joachims, Swaminathan and Schnabel 2017 for ranks, whose propensity is (1 / k) ** power; Horvitz and Thompson
    1952 for chances, here as a power and within `MOST`, as a mean of a few clicks weighed by 1 / p is of the rarest alone.
    A weight beside a usual value is not in either: so that 1 stays the weight of an act of which nothing is known.
    """

    age_form: str = "none"
    half_life: float = 60.0
    light_act: float = 1.0
    quantity: float = 0.0
    returned: float = 1.0
    evidence: str = "none"
    evidence_strength: float = 0.0
    ignored: float = 0.0
    by_position: float = 0.0
    usual_position: float = 1.0
    by_propensity: float = 0.0
    usual_propensity: float = 1.0
    promoted_act: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether every act counts 1: the unweighted twin."""
        return self.reasons == ("none",)

    @property
    def asks_evidence(self) -> bool:
        """Whether an opinion of each pair is needed."""
        return self.evidence != "none" and self.evidence_strength != 0

    @property
    def asks_circumstances(self) -> bool:
        """Whether it must be known how acts came about."""
        return bool(self.by_position or self.by_propensity or self.promoted_act != 1)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What makes weights differ, for people."""
        differs = {
            "age": self.age_form != "none",
            "kind": self.light_act != 1,
            "quantity": self.quantity != 0,
            "return": self.returned != 1,
            f"{self.evidence} evidence": self.asks_evidence,
            "position": self.by_position != 0,
            "propensity": self.by_propensity != 0,
            "promotion": self.promoted_act != 1,
        }
        return tuple(name for name, does in differs.items() if does) or ("none",)

    def by_age(self, age: NDArray) -> Singles:
        """(n,) factor of acts that are so many days old.

        >>> Weighting("exponential", half_life=10).by_age(np.array([0, 10, 20])).tolist()
        [1.0, 0.5, 0.25]
        """
        if self.age_form == "none":
            return np.ones(len(age), np.float32)
        share = age / self.half_life
        if self.age_form == "exponential":
            return np.exp2(-share).astype(np.float32)
        factor = 1 / (1 + share)
        return (np.sqrt(factor) if self.age_form == "square_root" else factor).astype(np.float32)

    def by_circumstances(self, how: Circumstances) -> Singles:
        """(n,) factor of acts that came about in some way; 1 for what is not known of one, and where it is not asked.

        >>> how = Circumstances(np.array([1.0, 4.0, np.nan]), np.array([0.1, np.nan, 0.4]), np.array([0.5, 0, np.nan]))
        >>> Weighting(by_position=0.5, usual_position=4.0).by_circumstances(how).tolist()
        [0.5, 1.0, 1.0]
        >>> Weighting(by_propensity=1.0, usual_propensity=0.2).by_circumstances(how).tolist()
        [2.0, 1.0, 0.5]
        >>> Weighting(promoted_act=0.0).by_circumstances(how).tolist()
        [0.5, 1.0, 1.0]
        """
        factor = np.ones(len(how.position), np.float64)
        for share, power in (
            (how.position / self.usual_position, self.by_position),
            (self.usual_propensity / how.propensity, self.by_propensity),
        ):
            if power:
                factor *= np.where(np.isfinite(share), np.clip(share**power, 1 / MOST, MOST), 1)
        if self.promoted_act != 1:
            factor *= 1 + np.nan_to_num(how.promotion) * (self.promoted_act - 1)
        return factor.astype(np.float32)

    def at_once(self, acts: Interactions, opinion: Singles | None = None) -> Singles:
        """(n,) weight of each row of interactions at age 0, all its acts together.

        Args:
            acts: the rows.
            opinion: (n,) rank share of the evidence, in (0, 1]; None where there is none.
        """
        kind = np.array([1.0 if name == "purchase" else self.light_act for name in KINDS], np.float32)
        weight = acts.n_acts @ kind
        if self.quantity:
            weight = weight * np.maximum(acts.quantity, 1.0) ** self.quantity
        if self.evidence_strength and opinion is not None:
            weight = weight * opinion**self.evidence_strength
        if self.asks_circumstances and acts.circumstances is not None:
            weight = weight * self.by_circumstances(acts.circumstances)
        return weight.astype(np.float32)

    def as_of(self, acts: Interactions, day: NDArray | int, opinion: Singles | None = None) -> Singles:
        """(n,) weight of each row when a day begins: at its age then, knowing what was returned and shown until then.

        Args:
            acts: rows, all of earlier days.
            day: (n,) or one day.
            opinion: as in `at_once`.
        """
        weight = self.at_once(acts, opinion) * self.by_age(day - acts.day)
        if self.ignored and len(acts.shown):
            weight = weight / (1 + np.float32(self.ignored) * acts.times_shown(day))
        return np.where(acts.returned < day, weight * np.float32(self.returned), weight)

    def settings(self) -> dict[str, object]:
        """Plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


UNWEIGHTED = Weighting()


def rank_share(value: NDArray) -> Singles:
    """(n,) share of the rows that are not above each one, in (0, 1].

    >>> rank_share(np.array([3.0, 1.0, 2.0, 2.0])).tolist()
    [1.0, 0.25, 0.75, 0.75]
    """
    ordered = np.sort(value)
    return (np.searchsorted(ordered, value, side="right") / max(len(value), 1)).astype(np.float32)
