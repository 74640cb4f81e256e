"""All that can be set about how both twins learn, as one object.

On the floor of `ranking`, without the libraries that learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ecom_pipeline.ranking.design import Architecture, Choice, Design, Learning, LossName, Method, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How both twins learn; what each setting means stands where it is used.

    Attributes:
        architecture: as in `Design`; n_components and frozen_gib too.
        method: as in `Learning`; n_top and rank too.
        choice: as in `keep_rows`; n_rows too.
        n_validation_rows: in whole groups, that decide when to stop; 0: all.
        penalties: as in `twins.Search`; weight_decays and n_seeds too.
        learning_rates: as in `twins.Search`; none: those usual for the method.
        loss: as in `TrainingSettings`; max_epochs, patience, batch_pairs, part_pairs, warmup_share, token_budget,
            precision and compiled too.
        n_processes: that train together, one a GPU.
        seed: first seed.
    """

    architecture: Architecture
    method: Method
    choice: Choice
    n_rows: int
    n_validation_rows: int
    n_top: int
    rank: int
    frozen_gib: float
    n_components: int
    penalties: Sequence[float]
    learning_rates: Sequence[float]
    weight_decays: Sequence[float]
    n_seeds: int
    loss: LossName
    max_epochs: int
    patience: int
    batch_pairs: int
    part_pairs: int
    warmup_share: float
    token_budget: int
    precision: Precision
    compiled: bool
    n_processes: int
    seed: int

    @property
    def design(self) -> Design:
        """What kind of ranker."""
        learning = Learning(self.method, self.n_top, self.rank)
        return Design(self.architecture, learning, self.n_components, self.frozen_gib)
