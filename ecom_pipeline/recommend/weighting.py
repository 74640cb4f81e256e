"""What a past act tells of its user today: its weight by age, kind, pieces, return, and how well others foretell it.

On a low floor of `recommend`. A weighting is a few numbers; the unweighted twin is the one in which every act counts 1.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Singles
from ecom_pipeline.recommend.interactions import KINDS, Interactions

IGNORED = 0.1  # a prior: how much less an act tells for each time that its item was shown since; too few shops log it
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
    """

    age_form: str = "none"
    half_life: float = 60.0
    light_act: float = 1.0
    quantity: float = 0.0
    returned: float = 1.0
    evidence: str = "none"
    evidence_strength: float = 0.0
    ignored: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether every act counts 1: the unweighted twin."""
        return self.reasons == ("none",)

    @property
    def asks_evidence(self) -> bool:
        """Whether an opinion of each pair is needed."""
        return self.evidence != "none" and self.evidence_strength != 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """What makes weights differ, for people."""
        differs = {
            "age": self.age_form != "none",
            "kind": self.light_act != 1,
            "quantity": self.quantity != 0,
            "return": self.returned != 1,
            f"{self.evidence} evidence": self.asks_evidence,
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
