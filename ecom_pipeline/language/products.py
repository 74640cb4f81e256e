"""Matrix products of a model that only reads, by the fastest kernels that this processor has at the same precision.

On the floor of `language`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

FEW = 8  # texts for which packing the weights takes longer than it saves


@contextmanager
def fast_products(n_texts: int) -> Iterator[None]:
    """Inside, linear layers on a processor of the x86 family multiply with oneDNN, weights packed once.

    Torch takes Intel's MKL for products in fp32, which keeps its AVX-512 kernels for Intel's processors; oneDNN, which
    torch brings too, has them for all. The sums are the same in another order. Whatever learns, lies elsewhere or is
    of another type is left as it is, and so is every operation on other machines, or where oneDNN is turned off
    (`torch.backends.mkldnn.enabled = False`), and where few texts are read.

    Args:
        n_texts: that are read inside, about.

    Cost: a second copy of the linear layers' weights while it is open.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    if n_texts < FEW or not (onednn and torch.backends.cpu.get_cpu_capability().startswith("AVX")):
        yield
        return
    packed: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the weight too, so that its id stays its own

    def linear(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        still = (
            not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and values.numel()
            and type(weight) in (torch.Tensor, torch.nn.Parameter)
        )
        if not (still and {values.dtype, weight.dtype} == {torch.float32} and values.device.type == "cpu"):
            return torch.nn.functional.linear(values, weight, bias)
        if id(weight) not in packed:
            packed[id(weight)] = weight, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        return torch.ops.mkldnn._linear_pointwise(values, packed[id(weight)][1], bias, "none", [], "")

    class Products(TorchFunctionMode):
        def __torch_function__(
            self, function: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            chosen = linear if function is torch.nn.functional.linear else function
            return chosen(*args, **(kwargs or {}))

    with Products():
        yield
