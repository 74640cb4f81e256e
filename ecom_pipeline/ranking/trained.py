"""Whether a folder of trained twins can be opened, told in no time and without torch.

On the floor of `ranking`.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open


def can_be_opened(folder: Path) -> bool:
    """Whether the manifest can be read, and each file beside it is as long as its own header says.

    Tensors that are others than were written are not seen: who loads them compares their hash.

    Cost: reads no tensor.
    """
    try:
        twins = json.loads((folder / "manifest.json").read_text())["twins"]
        names = [f"{name}-{one['seed']}" for name, twin in twins.items() for one in twin["seeds"]]
        for name in ("projection", *names):
            with safe_open(folder / f"{name}.safetensors", "numpy"):
                pass
    except (OSError, SafetensorError, ValueError, LookupError, TypeError):
        return False
    return True
