"""Which parts of the language model learn, and how: its top layers, all of it, or adapters beside frozen layers.

On the floor of `ranking`.
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import Encoder, counts_positions, pool, positions
from ecom_pipeline.language.frozen import layer_stack
from ecom_pipeline.ranking.design import Learning, Method


class Tower(nn.Module):
    """The language model with the parts that learn; reads tokens, or goes on from frozen states."""

    def __init__(self, encoder: Encoder, learning: Learning, frozen: bool) -> None:
        """A copy of the encoder's upper layers beside its own lower ones.

        Args:
            encoder: is left as it is; frozen parts are shared with it, not copied.
            learning: what learns.
            frozen: whether `forward` is given states below the cut in place of tokens.

        Raises:
            ModelError: if the encoder has not so many layers, or everything learns and nothing can be frozen.
        """
        super().__init__()
        n_top = learning.n_learning(encoder)
        layers = layer_stack(encoder.model)
        cut = len(layers) - n_top
        if frozen and not cut:
            raise ModelError(
                f"frozen states: 0 of {len(layers)} layers lie below the cut under {learning}. At least one must be frozen"
                " for its states to be kept: lower `n_top`, or set `frozen_gib` to 0."
            )
        self.pooling, self.causal = encoder.pooling, encoder.causal
        self.compiled = False
        below = list(layers[:cut])
        if frozen:
            n_outputs = _n_outputs(encoder.model)
            below = [*(_Passed(layer, n_outputs) for layer in layers[: cut - 1]), _Given(layers[cut - 1], n_outputs)]
        model = _copied(encoder, layers[:cut], below, learning.method)
        self._given = below[-1] if frozen else None
        self._adalora = learning.method == "adalora"
        self.model = _LEARNING[learning.method](model, layer_stack(model)[cut:], learning.rank)
        self._learning = [model] if learning.method == "full" else list(layer_stack(model)[cut:])
        self._counts_positions = counts_positions(encoder)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Make one program of the model, as torch does; what replaces its products one by one must then stay away."""
        self.compiled = True
        super().compile(*args, **kwargs)

    def train(self, mode: bool = True) -> "Tower":
        """Frozen parts have no dropout: what they give for a text is then the same whether it is kept or not."""
        super().train(mode)
        self.model.eval()
        for part in self._learning:
            part.train(mode)
        return self

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(b, d) unit vectors of a batch of texts."""
        mask = inputs["attention_mask"]
        taken = {name: values for name, values in inputs.items() if name != "states"}
        if self._given is not None:
            self._given.state = taken["inputs_embeds"] = inputs["states"]
            if self._counts_positions:
                taken["position_ids"] = positions(mask)
        return pool(self.model(**taken).last_hidden_state, mask, self.pooling)

    def begin(self, n_steps: int) -> None:
        """Tell a method how long the training is: AdaLoRA halves its rank between a sixth and two thirds of it."""
        if self._adalora:
            config = self.model.peft_config["default"]
            config.total_step, config.tinit, config.tfinal = n_steps, n_steps // 6, n_steps // 3

    def after_step(self, step: int) -> None:
        """What a method does between the gradients and the next step: AdaLoRA moves rank to where it tells most."""
        if self._adalora:
            self.model.base_model.update_and_allocate(step)

    @property
    def resumable(self) -> bool:
        """Whether the parameters and the optimizer's moments are all that a training has to remember."""
        return not self._adalora

    def penalty(self) -> Tensor | None:
        """What a method adds to the loss: AdaLoRA keeps its directions apart. None where there is nothing to add."""
        if not self._adalora:
            return None
        weight = self.model.peft_config["default"].orth_reg_weight
        found = [
            torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device))
            for name, value in self.model.named_parameters()
            if "lora_A" in name or "lora_B" in name
            for gram in [value @ value.T if "lora_A" in name else value.T @ value]
        ]
        return weight * torch.stack(found).mean()


class _InLayersPlace(nn.Module):
    """Takes the place of a layer: looks to the model as the layer did."""

    def __init__(self, layer: nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        if hasattr(layer, "attention_type"):  # some models choose a layer's mask by it
            self.attention_type = layer.attention_type

    def give(self, hidden: Tensor) -> Any:
        """States alone, or first in a tuple where the model unpacks one."""
        return (hidden, *[None] * (self.n_outputs - 1)) if self.n_outputs else hidden


class _Passed(_InLayersPlace):
    """A frozen layer that is not computed."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.give(hidden)


class _Given(_InLayersPlace):
    """The last frozen layer: what it gave is known."""

    state: Tensor

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.give(self.state)


class _Bottlenecked(_InLayersPlace):
    """A layer, and a narrow network that begins as nothing and adds to what the layer gave."""

    def __init__(self, layer: nn.Module, n_outputs: int, n_dimensions: int, width: int) -> None:
        super().__init__(layer, n_outputs)
        self.layer = layer
        self.down, self.up = nn.Linear(n_dimensions, width), nn.Linear(width, n_dimensions)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = self.layer(*args, **kwargs)
        hidden = given[0] if self.n_outputs else given
        return self.give(hidden + self.up(nn.functional.gelu(self.down(hidden))))


def _n_outputs(model: Any) -> int:
    """Length of the tuple that a layer gives, 0 where it gives the states alone: asked of the layer itself."""
    given: list[Any] = []
    hook = layer_stack(model)[0].register_forward_hook(lambda layer, taken, output: given.append(output))
    try:
        with torch.inference_mode():
            one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
            model(input_ids=one, attention_mask=one + 1)
    finally:
        hook.remove()
    return len(given[0]) if isinstance(given[0], tuple) else 0


def _copied(encoder: Encoder, layers: nn.ModuleList, below: list[nn.Module], method: Method) -> Any:
    """The model with `below` in the place of its lower layers; what does not learn is shared."""
    if method == "full":
        return copy.deepcopy(encoder.model)
    shared = {id(layer): one for layer, one in zip(layers, below, strict=True)}
    embeddings = encoder.model.get_input_embeddings()
    return copy.deepcopy(encoder.model, {**shared, id(embeddings): embeddings})


def _layers(model: Any, top: nn.ModuleList, rank: int) -> Any:
    top.requires_grad_(True)
    return model


def _full(model: Any, top: nn.ModuleList, rank: int) -> Any:
    return model.requires_grad_(True)


def _matrices(model: Any, top: nn.ModuleList) -> dict[str, Any]:
    """The names of the top layers' matrices, as peft takes them."""
    from transformers.pytorch_utils import Conv1D

    inside = {id(module) for module in top.modules() if isinstance(module, (nn.Linear, Conv1D))}
    found = {name: module for name, module in model.named_modules() if id(module) in inside}
    return {"target_modules": list(found), "fan_in_fan_out": any(isinstance(one, Conv1D) for one in found.values())}


def _lora(model: Any, top: nn.ModuleList, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, **_matrices(model, top)))


def _prefix(model: Any, top: nn.ModuleList, rank: int) -> Any:
    from peft import PrefixTuningConfig, get_peft_model

    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ModelError(
            f"prefix: 1 method was asked for that a {type(model).__name__} cannot do, as its layers attend to nothing but"
            " the text. The model must take past keys, as BERT's and GPT's do: choose another method or model."
        )
    return get_peft_model(model, PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=rank))


def _bottleneck(model: Any, top: nn.ModuleList, rank: int) -> Any:
    # peft has no such adapter
    layers, n_outputs = layer_stack(model), _n_outputs(model)
    for place in range(len(layers) - len(top), len(layers)):
        layers[place] = _Bottlenecked(layers[place], n_outputs, model.config.hidden_size, rank)
    return model


def _adalora(model: Any, top: nn.ModuleList, rank: int) -> Any:
    from peft import AdaLoraConfig, get_peft_model

    # the number of steps is told later, see `Tower.begin`
    return get_peft_model(
        model,
        AdaLoraConfig(init_r=2 * rank, target_r=rank, lora_alpha=2 * rank, total_step=1, **_matrices(model, top)),
    )


_LEARNING = {
    "layers": _layers,
    "full": _full,
    "lora": _lora,
    "adalora": _adalora,
    "prefix": _prefix,
    "bottleneck": _bottleneck,
}
