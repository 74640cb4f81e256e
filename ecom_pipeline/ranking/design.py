"""What a ranker can be: names and choices, without the libraries that build it.

On the floor of `ranking`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import Encoder

Architecture = Literal["two_tower", "cross_encoder"]
Method = Literal["layers", "full", "lora", "adalora", "prefix", "bottleneck"]
LossName = Literal["pointwise", "pairwise", "listwise", "literal"]
Precision = Literal["auto", "fp32", "bf16"]
Choice = Literal["gap", "random", "balanced", "all"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Learning:
    """What learns.

    Attributes:
        method: "layers": the top layers' own parameters. "full": every parameter, embeddings too. "lora" (Hu et al.
            2021), "adalora" (Zhang et al. 2023): low-rank additions to the top layers' matrices. "prefix" (Li and
            Liang 2021): vectors that every layer attends to. "bottleneck" (Houlsby et al. 2019): a narrow network
            after each top layer.
        n_top: layers from the top that learn or carry adapters; "full" and "prefix" take all whatever is said here.
        rank: of low-rank additions; width of bottlenecks; number of prefix vectors.
    """

    method: Method = "layers"
    n_top: int = 2
    rank: int = 8

    @property
    def usual_rates(self) -> tuple[float, ...]:
        """Learning rates worth trying: what starts from nothing takes larger steps than what was learnt before."""
        if self.method in ("layers", "full"):
            return 3e-5, 1e-4
        return (3e-3, 3e-2) if self.method == "prefix" else (3e-4, 1e-3)

    def n_learning(self, encoder: Encoder) -> int:
        """Layers that learn.

        Raises:
            ModelError: if the encoder has not so many.
        """
        if self.method in ("full", "prefix"):
            return encoder.n_layers
        if not 1 <= self.n_top <= encoder.n_layers:
            raise ModelError(
                f"top layers: {self.n_top} were asked for, and {encoder.encoder_id} has {encoder.n_layers}. "
                f"The number must be in [1, {encoder.n_layers}]: lower it."
            )
        return self.n_top


@dataclass(frozen=True, slots=True)
class Design:
    """What kind of ranker it is.

    Attributes:
        architecture: whether context and item are read apart or as one text.
        learning: what of the language model learns.
        n_components: components of the head's projection.
        frozen_gib: of states that the frozen layers gave, kept on disk at most; more are computed in each epoch.
    """

    architecture: Architecture
    learning: Learning
    n_components: int
    frozen_gib: float
