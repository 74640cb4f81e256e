"""Beside stage 7: what rankers may spend of their users' privacy, what is refused with it, and what is told of it."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from pydantic import Field

from ecom_pipeline.errors import InputError
from ecom_pipeline.recommend.private.accounting import accountants
from ecom_pipeline.recommend.private.head import PrivateRanker
from ecom_pipeline.recommend.private.promise import PrivateTraining
from ecom_pipeline.recommend.ranker import Ranker
from ecom_pipeline.recommend.saved import SavedRanker, is_whole

_SIGN = "-private"
PRIVATELY = PrivateTraining(epsilon=1.0)
WITHOUT = (
    "choice",
    "n_rows",
    "fit_seconds",
    "pilot_rows",
    "leaves",
    "rounds",
    "learning_rate",
)  # settings of what learns without noise


class PrivateConfig(dg.Config):
    """What rankers may spend of their users' privacy; docs/privacy.md says what that covers."""

    epsilon: float = Field(gt=0, description="That the ranker and its twin may spend together, of any user's privacy.")
    delta: float = Field(
        default=PRIVATELY.delta, gt=0, lt=1, description="Chance that more is spent; below one in the number of users."
    )
    clip_norm: float = Field(
        default=PRIVATELY.clip_norm, gt=0, description="L2 norm of what one user adds to a step, at most."
    )
    steps: int = Field(default=PRIVATELY.steps, ge=1, description="Of a training.")
    sample_rate: float = Field(
        default=PRIVATELY.sample_rate, gt=0, le=1, description="Chance of each user to be in a step; 1: all are in all."
    )
    n_visits: int = Field(
        default=PRIVATELY.n_visits, ge=1, description="Visits of a user that are learnt from, at most."
    )
    user_share: float = Field(
        default=PRIVATELY.user_share, gt=0, le=1, description="Chance of each user to be learnt from at all."
    )


def refuse_beside(asked: Mapping[str, object]) -> None:
    """Refuse private training that cannot be kept.

    Args:
        asked: settings of `WITHOUT` that are not the usual ones.

    Raises:
        InputError: if there are any, or the accountant is not installed.
    """
    accountants()
    if asked:
        name, value = next(iter(asked.items()))
        raise InputError(
            f"private: {len(asked)} settings of the ranker ask for what learns without noise; first: {name} is {value!r}. A "
            f"private ranker has no pilot, no chosen rows and no trees: leave {', '.join(asked)} out, or `private`."
        )


def folder_of(made: str, config: PrivateConfig | None) -> str:
    """Name of a ranker's folder, which says that it is private: the ledger has the name, and no damage to files takes it away."""
    return made + _SIGN if config else made


def require_private(in_use: Path | None, config: PrivateConfig | None) -> None:
    """Refuse to learn without privacy where the ranker in use learnt with it: a file that was not given says nothing.

    Raises:
        InputError: if so.
    """
    if config or in_use is None or not in_use.is_dir():
        return
    # a home of an earlier version has it in the ranker alone
    if in_use.name.endswith(_SIGN) or (is_whole(in_use) and isinstance(SavedRanker.read(in_use).ranker, PrivateRanker)):
        raise InputError(
            f"private: 1 ranker is in use that learnt privately, {in_use.name!r}, and this run's configuration of `ranker` says "
            "nothing of it. Rankers of a home must not cease to be private unseen: "
            f"give the same --config, or delete {str(in_use)!r} to learn without."
        )


def promise_of(ranker: Ranker | PrivateRanker) -> dict[str, object]:
    """What is told of a ranker's privacy; nothing of one that learnt without."""
    if not isinstance(ranker, PrivateRanker):
        return {}
    return {f"private_{name}": value for name, value in ranker.promise.to_json().items()}
