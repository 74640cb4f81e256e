"""Settings of assets as a file of Dagster's run configuration, for commands and for what runs by itself alike."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from ecom_pipeline.errors import InputError

CONFIG = "ECOM_CONFIG"  # environment variable that names the file


def read_config(path: Path | None, options: Mapping[str, Mapping[str, object]] = MappingProxyType({})) -> dict:
    """The file's configuration, with what options of the command line say of assets; those that are None say nothing.

    Raises:
        InputError: if there is no such file, it is no YAML, or not of the form `ops: {asset: {config: {...}}}`.
    """
    if path is not None and not path.is_file():
        raise InputError(
            f"--config or {CONFIG}: 1 file is missing: {str(path)!r}. It must be a YAML file: check the path."
        )
    try:
        given = yaml.safe_load(path.read_text()) if path else {}
    except yaml.YAMLError as error:
        raise InputError(
            f"--config or {CONFIG}: {str(path)!r} is no YAML: {error}. It must be: correct the file."
        ) from error
    if not isinstance(given or {}, dict):
        raise InputError(
            f"--config or {CONFIG}: {str(path)!r} holds a {type(given).__name__}. It must be a mapping that begins with `ops:`."
        )
    given = given or {}
    ops = given.setdefault("ops", {})
    wrong = [ops] if not isinstance(ops, dict) else [name for name, one in ops.items() if not isinstance(one, dict)]
    if wrong:
        raise InputError(
            f"--config or {CONFIG}: {len(wrong)} parts of `ops` in {str(path)!r} are no settings; first: {wrong[0]!r}. It must be a mapping of assets to "
            "`{config: {...}}`: correct the file."
        )
    for asset, settings in options.items():
        told = {name: value for name, value in settings.items() if value is not None}
        if told:
            given.setdefault("ops", {}).setdefault(asset, {}).setdefault("config", {}).update(told)
    return given
