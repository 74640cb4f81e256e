"""Writes docs/licences.md: what `pip install ecom-pipeline` brings, and under which licence each says it is.

    python docs/list_licences.py

Names and licences are those of the packages' own metadata in this environment; nothing is looked up elsewhere.
"""

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

HEAD = """# Licences

What an installation brings, and the licence that each package states in its own metadata; written by `python docs/list_licences.py`
from an environment on Linux. Optional extras are not in it. No known vulnerability is looked up here: run `pip-audit` against your
own environment, as its data base changes daily. All are permissive, but for parts under the Mozilla Public License, which asks for
changes of its own files alone.

| package | version | licence |
|---|---|---|
"""


def required(name: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """The packages that a package needs here, all the way down."""
    found: dict[str, Distribution] = {}
    going = [(name, extras)]
    seen = set()
    while going:
        name, extras = going.pop()
        try:
            one = distribution(name)
        except PackageNotFoundError:
            continue  # needed on other platforms only
        found[one.metadata["Name"].lower()] = one
        for text in one.requires or []:
            need = Requirement(text)
            asked = [{"extra": extra} for extra in extras or ("",)]
            key = (need.name.lower(), frozenset(need.extras))
            if key not in seen and (not need.marker or any(need.marker.evaluate(one) for one in asked)):
                seen.add(key)
                going.append(key)
    return found


def licence(one: Distribution) -> str:
    """As the package states it: an SPDX expression, else its classifiers, else its first words."""
    told = one.metadata
    if told.get("License-Expression"):
        return told["License-Expression"]
    classifiers = [
        text.rsplit(" :: ", 1)[1] for text in told.get_all("Classifier") or [] if text.startswith("License ::")
    ]
    classifiers = [text for text in classifiers if text != "OSI Approved"]
    if classifiers:
        return ", ".join(classifiers)
    words = (told.get("License") or "not stated").strip().splitlines()
    return words[0][:60] if words else "not stated"


def main() -> None:
    """Write the page beside this file."""
    packages = required("ecom-pipeline")
    packages.pop("ecom-pipeline")
    rows = [f"| {name} | {one.version} | {licence(one)} |" for name, one in sorted(packages.items())]
    Path(__file__).with_name("licences.md").write_text(HEAD + "\n".join(rows) + "\n")
    print(f"{len(rows)} packages")


if __name__ == "__main__":
    main()
