"""What a training needs to go on after a kill, in one safe file that is replaced at once.

On the floor of `language`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW


def save(
    file: Path,
    learning: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Tensor],
    told: Mapping[str, object],
) -> None:
    """Write parameters, the optimizer's moments, other tensors and plain values.

    Args:
        file: safetensors; made with its folder, or replaced.
        learning: parameters by name.
        optimizer: AdamW over them; a parameter that has had no step yet has no moments.
        others: further tensors by name.
        told: whatever JSON can hold.
    """
    tensors = {f"other.{name}": value for name, value in others.items()}
    for name, value in learning.items():
        tensors[f"now.{name}"] = value.detach()
        if value in optimizer.state:
            tensors |= {f"{key}.{name}": optimizer.state[value][key] for key in _MOMENTS}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, part, {"run": json.dumps(told)})
    os.replace(part, file)


def told(file: Path) -> dict:
    """The plain values of a checkpoint; empty where there is none."""
    if not file.is_file():
        return {}
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["run"])


def restore(file: Path, learning: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Put parameters and moments back where they were; the other tensors by name."""
    with safe_open(file, "pt") as opened:
        names = set(opened.keys())
        for name, value in learning.items():
            value.data.copy_(opened.get_tensor(f"now.{name}"))
            if f"step.{name}" in names:
                optimizer.state[value] = {
                    key: opened.get_tensor(f"{key}.{name}").to("cpu" if key == "step" else value.device)
                    for key in _MOMENTS
                }
        return {name.removeprefix("other."): opened.get_tensor(name) for name in names if name.startswith("other.")}
