"""Where the arithmetic is done."""

from typing import Literal

import dagster as dg
from pydantic import Field

from ecom_pipeline.errors import DeviceError


class Compute(dg.ConfigurableResource):
    """The device that was asked for, or an error: never another one in its place."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one.")

    def torch_device(self) -> str:
        """The device's name for torch.

        Raises:
            DeviceError: if cuda was asked for and is not there.
        """
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise DeviceError(
                "device: 1 was asked for, 'cuda', and torch sees none. The machine must have an NVIDIA GPU and torch a "
                "build for it: choose 'cpu' or 'auto', or install that build."
            )
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device
