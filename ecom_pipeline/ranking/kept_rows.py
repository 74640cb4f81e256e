"""Which training rows the language model's layers read, where there are more than time allows.

On the floor of `ranking`. Heads read no text and learn from every row; layers learn from rows that teach them something.
"""

from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.sample_choice import Acceptance
from ecom_pipeline.ranking.design import Choice


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows to learn from, and what makes up for the choice.

    With m(x) the logit of a model of kept rows, m(x) + offset is that of a model of all rows (Bayes). A ranker's logit is
    that sum from the first step on: while it learns, each row's offset is taken off before the loss sees it, so the loss
    is the plain loss of the model of kept rows, and what the ranker answers, in validation and later, carries the offset
    without asking the pilot again. Each row's offset is that of the very chance with which it was kept.

    Exact for pointwise loss. For pairwise loss too: of two kept rows of which one is relevant, the odds that it is the
    first are those of all rows times the ratio of both rows' corrections. For listwise loss it is where a list has one
    relevant row. Rows are drawn one by one for every loss, so a group may keep one label alone: it then adds nothing to
    pairwise loss, and to listwise loss only where it keeps a relevant row.

    Attributes:
        rows: (k,) places among the training rows, in order.
        offset: (k,) logits; 0 where every row is as likely to be kept whatever its label.
    """

    rows: Ints
    offset: Floats

    def weights(self, weight: Floats) -> Floats:
        """(k,) of (n,) weights, again with mean 1; a factor common to all moves no optimum."""
        if len(self.rows) == len(weight):
            return weight
        own = weight[self.rows]
        return own / (own.mean() or 1.0)


def keep_rows(choice: Choice, pilot: Floats, label: Floats, *, n_rows: int, seed: int) -> Kept:
    """The rows kept by a choice and a budget; all where there are not more than the budget.

    Args:
        choice: "gap", "random", "balanced" or "all", as for `Acceptance`.
        pilot: (n,) probability of label 1 by a model that saw neither the row nor its group.
        label: (n,) 0 or 1.
        n_rows: budget; about so many are kept, as each row has a coin of its own.
        seed: of the coins.

    Raises:
        SampleError: if choice or budget are not valid, or no row is drawn.

    Cost: O(n). Random under the seed.

    >>> keep_rows("gap", np.array([0.2, 0.9]), np.array([0.0, 1.0]), n_rows=2, seed=0).rows.tolist()
    [0, 1]
    """
    acceptance = Acceptance.fit(choice, pilot, label, n_rows=n_rows)
    rows = acceptance.draw(pilot, label, np.random.default_rng(seed).random(len(label)))
    if not len(rows):
        raise SampleError(
            f"kept rows: 0 of {len(label)} were drawn with a budget of {n_rows}; first: None. At least 1 must be: raise "
            "`n_rows`, or choose 'all'."
        )
    return Kept(rows, acceptance.offset(pilot[rows]))
