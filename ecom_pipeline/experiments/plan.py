"""What an experiment is, and who gets which arm: a pure function that a front end in any language can repeat.

A unit's place in [0, 1) is the first 13 hexadecimal digits of SHA-256 of `salt:unit`, over 16^13. Its place in the layer says
which experiment of the layer it is in; its place under the experiment's salt says which arm.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

from ecom_pipeline.errors import ExperimentError

FILE = "experiments.yaml"
Unit = Literal["user", "session", "cluster"]
Place = Literal["lists", "search", "elsewhere"]
System = Literal["weighted", "unweighted"]
_DIGITS = 13  # of a hash: as many as a double holds


def place(salt: str, unit_id: str) -> float:
    """Where a unit falls in [0, 1).

    >>> round(place("lists", "2a42358a7678017ed2792dcadbe5169c"), 6)
    0.643558
    """
    return int(hashlib.sha256(f"{salt}:{unit_id}".encode()).hexdigest()[:_DIGITS], 16) / 16**_DIGITS


@dataclass(frozen=True, slots=True)
class Arm:
    """What a part of the units gets.

    Attributes:
        name: of the arm.
        share: of the experiment's units, in (0, 1].
        system: whose answers the service gives; None: as without the experiment.
    """

    name: str
    share: float
    system: System | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment; its first arm is the control.

    Attributes:
        name: unique.
        arms: two or more, whose shares sum to 1.
        first_day: UTC, on which units begin to be exposed.
        last_day: UTC, whose acts still count.
        unit: what is assigned and compared; a cluster is assigned as one and may hold many users.
        changes: what of the service an arm's system is used for; elsewhere: nothing, a front end asks `assign` itself.
        layer: units are divided once a layer: two experiments of a layer at one time share no unit.
        traffic: the part of the layer's [0, 1) whose units are in.
        salt: of the arms; another one draws the arms anew.
        days_before: how far back from a unit's first exposure its own past is read, to take out of what came after.
    """

    name: str
    arms: tuple[Arm, ...]
    first_day: date
    last_day: date
    unit: Unit = "user"
    changes: Place = "elsewhere"
    layer: str = "default"
    traffic: tuple[float, float] = (0.0, 1.0)
    salt: str = ""
    days_before: int = 28

    @property
    def control(self) -> Arm:
        """What the others are compared with."""
        return self.arms[0]

    @property
    def arms_salt(self) -> str:
        """What the arms are drawn with."""
        return self.salt or self.name

    def runs_on(self, day: date) -> bool:
        """Whether units are exposed on a day."""
        return self.first_day <= day <= self.last_day

    def assign(self, unit_id: str) -> Arm | None:
        """The arm of a unit; None: it is not in the experiment. Always the same, and nothing is kept.

        Args:
            unit_id: as `exposures` has it: the keyed hash of a user, 'session:' and that of a session, or a cluster's id.
        """
        if not self.traffic[0] <= place(f"layer:{self.layer}", unit_id) < self.traffic[1]:
            return None
        at, reached = place(f"arms:{self.arms_salt}", unit_id), 0.0
        for arm in self.arms:
            reached += arm.share
            if at < reached:
                return arm
        return self.arms[-1]  # shares are rounded


def read_experiments(path: Path) -> tuple[Experiment, ...]:
    """The experiments of a file; none where there is no file.

    Raises:
        ExperimentError: if the file is not as it must be.
    """
    if not path.is_file():
        return ()
    import yaml

    try:
        told = yaml.load(path.read_text(encoding="utf-8"), _once_each()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExperimentError(
            f"{path.name}: 1 file cannot be read: {' '.join(str(error).split())}. It must be YAML: mend what is named."
        ) from error
    if not isinstance(told, dict):
        raise _wrong(path.name, "the file", repr(told)[:80], "names of experiments with their settings", "write it so")
    found = tuple(_experiment(str(name), settings) for name, settings in told.items())
    _refuse_shared_units(found)
    return found


def _once_each() -> type:
    """A reader of YAML to which a name that stands twice is an error: the first of the two would be lost unseen."""
    import yaml

    class Reader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            names = [key.value for key, _ in node.value]
            for name in names:
                if names.count(name) > 1:
                    raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", node.start_mark)
            return super().construct_mapping(node, deep)

    return Reader


def named(experiments: Iterable[Experiment], name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ExperimentError: if there is none.
    """
    known = {one.name: one for one in experiments}
    if name not in known:
        first = min(known, default="none")
        raise ExperimentError(
            f"experiment: 1 name is unknown: {name!r}. It must be one of the {len(known)} in {FILE} of the home, the first "
            f"{first!r}: name one of them, or write it there."
        )
    return known[name]


_SETTINGS = {"arms", "first_day", "last_day", "unit", "changes", "layer", "traffic", "salt", "days_before"}


def _experiment(name: str, told: Any) -> Experiment:
    if not isinstance(told, Mapping) or not {"arms", "first_day", "last_day"} <= told.keys():
        raise _wrong(name, "settings", repr(told)[:80], "arms, first_day, last_day and more", "write all three")
    if unknown := sorted(map(str, told.keys() - _SETTINGS)):
        raise _wrong(name, "setting", repr(unknown[0]), f"one of {', '.join(sorted(_SETTINGS))}", "rename it")
    for setting, kinds in (("unit", Unit), ("changes", Place)):
        if told.get(setting, get_args(kinds)[0]) not in get_args(kinds):
            raise _wrong(name, setting, repr(told[setting]), f"one of {', '.join(get_args(kinds))}", "choose one")
    arms = tuple(_arm(name, str(arm), settings) for arm, settings in _mapping(name, told["arms"]).items())
    if len(arms) < 2:
        raise _wrong(name, "number of arms", str(len(arms)), "2 or more", "add the arm to compare with")
    if abs(sum(arm.share for arm in arms) - 1) > 1e-6:
        raise _wrong(name, "sum of shares", f"{sum(arm.share for arm in arms):g}", "1", "mend the shares")
    first, last = (told[day] for day in ("first_day", "last_day"))
    if type(first) is not date or type(last) is not date or last < first:
        raise _wrong(
            name, "pair of days", f"{first} to {last}", "days as 2026-05-01, the last not before the first", "mend it"
        )
    traffic = tuple(told.get("traffic", (0.0, 1.0)))
    if (
        len(traffic) != 2
        or not all(isinstance(end, int | float) for end in traffic)
        or not 0 <= traffic[0] < traffic[1] <= 1
    ):
        raise _wrong(name, "traffic", repr(traffic), "[from, to] with 0 <= from < to <= 1", "mend it")
    days_before = told.get("days_before", 28)
    if type(days_before) is not int or days_before < 0:
        raise _wrong(name, "days_before", repr(days_before), "a number of days, 0 or more", "mend it")
    words = {word: told[word] for word in ("unit", "changes", "layer", "salt") if word in told}
    return Experiment(
        name, arms, first, last, **words, traffic=(float(traffic[0]), float(traffic[1])), days_before=days_before
    )


def _arm(experiment: str, name: str, told: Any) -> Arm:
    told = {"share": told} if isinstance(told, int | float) else _mapping(experiment, told)
    share, system = told.get("share"), told.get("system")
    if type(share) not in (int, float) or not 0 < share <= 1:
        raise _wrong(experiment, f"share of the arm {name!r}", repr(share), "a number above 0, at most 1", "write one")
    if system is not None and system not in get_args(System):
        raise _wrong(
            experiment,
            f"system of the arm {name!r}",
            repr(system),
            f"one of {', '.join(get_args(System))}",
            "choose one",
        )
    if unknown := sorted(map(str, told.keys() - {"share", "system"})):
        raise _wrong(experiment, f"setting of the arm {name!r}", repr(unknown[0]), "share or system", "rename it")
    return Arm(name, float(share), system)


def _mapping(experiment: str, told: Any) -> Mapping:
    if not isinstance(told, Mapping):
        raise _wrong(
            experiment, "list of arms", repr(told)[:80], "names with their shares", "write it as {old: 0.5, new: 0.5}"
        )
    return told


def _wrong(name: str, what: str, had: str, must: str, do: str) -> ExperimentError:
    return ExperimentError(f"experiment {name!r}: 1 {what} cannot be taken: {had}. It must be {must}: {do} in {FILE}.")


def _refuse_shared_units(experiments: Iterable[Experiment]) -> None:
    """Two experiments would hide each other's effect where they share units at one time, or draw their arms alike."""
    for one, other in combinations(experiments, 2):
        if not (one.first_day <= other.last_day and other.first_day <= one.last_day):
            continue
        same_layer = one.layer == other.layer
        if same_layer and one.traffic[0] < other.traffic[1] and other.traffic[0] < one.traffic[1]:
            raise ExperimentError(
                f"experiments: 2 share units of the layer {one.layer!r} on the same days: {one.name!r} and {other.name!r}. "
                f"In a layer a unit must be in one experiment at a time: give them other parts of [0, 1) as traffic, other "
                f"days, or layers of their own, in {FILE}."
            )
        if not same_layer and one.unit == other.unit and one.changes == other.changes != "elsewhere":
            raise ExperimentError(
                f"experiments: 2 change {one.changes} on the same days and are in layers of their own: {one.name!r} and "
                f"{other.name!r}. A list has one system, so no unit must be in both: put them in one layer, with other parts of "
                f"[0, 1) as traffic, in {FILE}."
            )
        if not same_layer and one.arms_salt == other.arms_salt:
            raise ExperimentError(
                f"experiments: 2 in different layers have the salt {one.arms_salt!r} on the same days: {one.name!r} and "
                f"{other.name!r}. Their arms would be the same units, and no effect could be told from the other's: give each "
                f"a salt of its own in {FILE}, or none."
            )
