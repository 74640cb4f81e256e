"""Influence, TracIn, TRAK and DataInf of dattri, for a softmax head that is given; run by `gradient_peers.py`.

    python benchmarks/peers_gradients.py problem.npz scores.npz influence tracin trak datainf

Runs in an environment that has dattri (0.3.0) and torch, and nothing of this project. Scores are means over the
holdout, positive where taking the sample away raises the loss; dattri itself gives a number for each pair. Seconds are
those of dattri's calls, in the second of two runs.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from dattri.algorithm.influence_function import IFAttributorDataInf, IFAttributorExplicit
from dattri.algorithm.tracin import TracInAttributor
from dattri.algorithm.trak import TRAKAttributor
from dattri.func.projection import random_project
from dattri.task import AttributionTask
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

HOLDOUT_BATCH = 100  # dattri's DataInf holds batch x batch x parameters


class Problem:
    """A linear head with its samples, as dattri wants them.

    Args:
        arrays: x (n, d), y (n,), held_x (m, d), held_y (m,), theta (c, d), penalised (d,) the penalty of each column,
            path (t, c, d), step, members (h, c, d), regularization of DataInf, n_projections of TRAK (0: none)
            and its ridge, for gradients as they are.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.of = {name: torch.as_tensor(value) for name, value in arrays.items()}
        c, self.d = self.of["theta"].shape
        self.model = torch.nn.Linear(self.d, c, bias=False).to(self.of["x"].dtype)
        train = TensorDataset(self.of["x"], self.of["y"])
        self.train = DataLoader(train, batch_size=len(train))
        held = TensorDataset(self.of["held_x"], self.of["held_y"])
        self.held = DataLoader(held, batch_size=len(held))
        self.held_in_parts = DataLoader(held, batch_size=HOLDOUT_BATCH)
        self.ridge = 0.0

    def logits(self, params: dict, data: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels, whether data is one sample or many."""
        x, y = data
        return torch.func.functional_call(self.model, params, (x.reshape(-1, self.d),)), y.reshape(-1)

    def loss(self, params: dict, data: tuple) -> torch.Tensor:
        """Mean cross-entropy."""
        return cross_entropy(*self.logits(params, data))

    def penalised_loss(self, params: dict, data: tuple) -> torch.Tensor:
        """Mean cross-entropy with a sample's share of the penalty."""
        return self.loss(params, data) + 0.5 * (self.of["penalised"] * params["weight"].square()).sum()

    def margin(self, params: dict, data: tuple) -> torch.Tensor:
        """log p / (1 - p) of the label."""
        logit, label = self.logits(params, data)
        own = label[:, None] == torch.arange(logit.shape[1])
        others = logit.masked_fill(own, -torch.inf).logsumexp(1)
        return (logit.gather(1, label[:, None])[:, 0] - others).sum()

    def own_probability(self, params: dict, data: tuple) -> torch.Tensor:
        """P of the label."""
        return torch.exp(-self.loss(params, data))

    def task(self, loss: object, target: object, thetas: torch.Tensor) -> AttributionTask:
        """A task over checkpoints."""
        return AttributionTask(
            loss_func=loss,
            target_func=target,
            model=self.model,
            checkpoints=[{"weight": theta.clone()} for theta in thetas],
        )


def influence(problem: Problem) -> torch.Tensor:
    """(n, m): explicit Hessian; divided by n, as what is left out weighs 1 / n."""
    task = problem.task(problem.penalised_loss, problem.loss, problem.of["theta"][None])
    found = IFAttributorExplicit(task)
    found.cache(problem.train)
    return found.attribute(problem.train, problem.held) / len(problem.of["x"])


def datainf(problem: Problem) -> torch.Tensor:
    """(n, m), with the damping that is given."""
    task = problem.task(problem.loss, problem.loss, problem.of["theta"][None])
    found = IFAttributorDataInf(task, regularization=problem.of["regularization"].item())
    found.cache(problem.train)
    return found.attribute(problem.train, problem.held_in_parts) / len(problem.of["x"])


def tracin(problem: Problem) -> torch.Tensor:
    """(n, m) over all checkpoints of the path; its default of projecting gradients is turned off."""
    path, n = problem.of["path"], len(problem.of["x"])
    weights = torch.full((len(path),), problem.of["step"].item() / n)
    found = TracInAttributor(problem.task(problem.loss, problem.loss, path), weights, normalized_grad=False)
    found.projector_kwargs = None
    return found.attribute(problem.train, problem.held)


def trak(problem: Problem) -> torch.Tensor:
    """(n, m) over the members; its own projection where one is asked for."""
    found = trak_attributor(problem, problem.ridge)
    found.cache(problem.train)
    return found.attribute(problem.held)


def trak_attributor(problem: Problem, regularization: float) -> TRAKAttributor:
    """Margins as the output, own probability for the weights."""
    size = int(problem.of["n_projections"])
    projector = {"proj_type": "normal" if size else "identity", "proj_dim": size or problem.of["theta"].numel()}
    task = problem.task(problem.margin, problem.margin, problem.of["members"])
    return TRAKAttributor(task, problem.own_probability, projector, regularization=regularization)


def trak_ridge(problem: Problem) -> float:
    """The ridge on the scale of dattri's projections, which do not keep lengths."""
    found, batch = trak_attributor(problem, 0.0), next(iter(problem.train))
    gradients = found.grad_loss_func(found.task.get_param(0)[0], batch).detach()
    seen = random_project(gradients, len(gradients), **found.projector_kwargs)(
        gradients / found.norm_scaler, ensemble_id=0
    )
    return problem.of["ridge"].item() * (seen.square().sum() / gradients.square().sum()).item()


METHODS = {"influence": influence, "tracin": tracin, "trak": trak, "datainf": datainf}


def main() -> None:
    """Score the problem by every method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("methods", nargs="+", choices=METHODS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    arrays = dict(np.load(args.problem))
    torch.set_default_dtype(torch.as_tensor(arrays["x"]).dtype)  # dattri makes its sums in the default
    problem = Problem(arrays)
    problem.ridge = trak_ridge(problem)
    found = {}
    for name in args.methods:
        METHODS[name](problem)
        started = time.perf_counter()
        scores = METHODS[name](problem).detach()
        found[f"{name}_seconds"] = time.perf_counter() - started
        found[name] = scores.double().mean(1).numpy()
    np.savez(args.scores, **found)


if __name__ == "__main__":
    main()
