"""An encoder that computes with fewer bits where that is faster: its products in bfloat16, by OpenVINO.

On the floor of `language`. OpenVINO is the optional extra `fast`, imported when an encoder is converted. int8 is not
offered: it was faster still, and lost more of the ranking than could be allowed.
"""

import sys
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ecom_pipeline.errors import DeviceError, ModelError
from ecom_pipeline.language.encoder import Encoder, encode, padded, tokenize

if TYPE_CHECKING:
    import torch

PRECISION = "bf16"
MAX_DIFFERENCE = 0.01  # of a number in a unit vector; correct conversions stay below 0.005, wrong ones are above 0.05
_TRACED = ("red mug", "a longer text about a desk lamp")
# of several lengths and in a batch of another shape than the one that is traced
_PROBES = ("mug", "a red mug", "dimmable led desk lamp with a usb port and a very long cable " * 4, "跑鞋")


def quantised(encoder: Encoder) -> Encoder:
    """The same encoder with its products in bfloat16: faster on processors that have them, and not quite the same.

    Its `encoder_id` is another, so that vectors of two precisions never meet. It reads; it cannot learn or be saved.
    Models of BERT's family are taken (BERT, RoBERTa, XLM-RoBERTa, DistilBERT, MPNet, ELECTRA, ALBERT and ModernBERT were
    tried), and whatever else OpenVINO can trace and compute: the vectors of a few probes must stay close to those of
    the encoder, where padding that moved a token, or a length that was fixed in tracing, would show. Decoders are
    refused: of batches that are padded on the left OpenVINO's attention makes no number.

    Args:
        encoder: on the CPU, in fp32.

    Raises:
        ModelError: if OpenVINO is not installed, the model is a decoder or cannot be converted, or its vectors are others.
        DeviceError: if the encoder is not on a CPU, or the CPU has no products in bfloat16.

    Cost: traces the model once, seconds; holds a second copy of the weights. Not random.
    """
    _check_kind(encoder)
    converted = replace(encoder, encoder_id=f"{encoder.encoder_id}-{PRECISION}", model=_compiled(encoder))
    _check_vectors(encoder, converted)
    return converted


@dataclass(frozen=True, slots=True)
class _States:
    last_hidden_state: "torch.Tensor"


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A model as `encode` calls it, computed by OpenVINO."""

    request: Any
    config: Any

    def __call__(self, **inputs: "torch.Tensor") -> _States:
        import torch

        values = [inputs[name].numpy() for name in sorted(inputs)]
        return _States(torch.from_numpy(self.request(values)[0]))


def _compiled(encoder: Encoder) -> _Compiled:
    """The model traced and compiled; inputs are taken in the order of their names."""
    import torch

    openvino, threads = _openvino(), torch.get_num_threads()
    example = padded(encoder, tokenize(encoder, _TRACED))

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = encoder.model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return self.model(**dict(zip(sorted(example), values, strict=True))).last_hidden_state

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what tracing fixes; the probes tell whether it matters
            graph = openvino.convert_model(
                Traced().eval(), example_input=tuple(example[name] for name in sorted(example))
            )
    except (RuntimeError, openvino.frontend.OpConversionFailure) as error:
        raise ModelError(
            f"precision: 1 model cannot be converted: {encoder.encoder_id!r}, {str(error).splitlines()[0][:200]}. OpenVINO "
            "must be able to trace it: read it in fp32, or choose another model."
        ) from error
    settings = {"INFERENCE_PRECISION_HINT": PRECISION, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(graph, "CPU", settings)
    return _Compiled(request, encoder.model.config)


def _openvino() -> Any:
    # it reports its use to its maker when it is imported, unless the package that does so cannot be had
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be had
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            f"precision: 1 package is missing: 'openvino'. {PRECISION} is computed by it: install the extra with pip "
            "install --constraint constraints.txt --editable '.[fast]', or read in fp32."
        ) from error
    return openvino


def _check_kind(encoder: Encoder) -> None:
    if encoder.causal:
        raise ModelError(
            f"precision: 1 model is of another kind: {encoder.encoder_id!r} is a decoder. For {PRECISION} a model must read "
            "in both directions, as BERT's family does: read it in fp32, or choose another model."
        )
    if encoder.device.type != "cpu":
        raise DeviceError(
            f"precision: 1 encoder lies elsewhere: {str(encoder.device)!r}. {PRECISION} is for processors: load it on the "
            "CPU, or read in fp32."
        )
    able = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in able:
        raise DeviceError(
            f"precision: 1 processor has no products in {PRECISION}: it has {', '.join(able)!r}. It must have them, or "
            "nothing is gained: read in fp32."
        )


def _check_vectors(encoder: Encoder, converted: Encoder) -> None:
    budget = encoder.max_tokens * len(_PROBES)  # all in one batch, so that there is padding
    difference = abs(encode(encoder, _PROBES, budget).embedding - encode(converted, _PROBES, budget).embedding).max(1)
    wrong = [text for text, far in zip(_PROBES, difference, strict=True) if not far <= MAX_DIFFERENCE]
    if wrong:
        raise ModelError(
            f"precision: {len(wrong)} of {len(_PROBES)} probes have other vectors in {PRECISION}; first: "
            f"{wrong[0][:60]!r}, by up to {difference.max():.3f}. No number may differ by more than {MAX_DIFFERENCE}: "
            "read this model in fp32."
        )
