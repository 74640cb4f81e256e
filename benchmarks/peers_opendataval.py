"""The peers' side of `opendataval_digits.py`: OpenDataVal's evaluators on the samples of an npz file.

Run by the interpreter that has OpenDataVal 1.3.0, not by ours. Settings are those of its own published examples
(scikit-learn's logistic regression; 1000 models; 300 permutations), but for what `--share` cuts down.

    python benchmarks/peers_opendataval.py samples.npz values.npz --evaluators DataOob KNNShapley
"""

import argparse
import time
import warnings

import numpy as np
import torch
from opendataval import dataval
from opendataval.metrics import accuracy
from opendataval.model.api import ClassifierSkLearnWrapper, ClassifierUnweightedSkLearnWrapper, Model
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier


def evaluators(seed: int, share: float, n_valid: int) -> dict:
    """How to make each evaluator, by its name in the table."""
    many, few = max(1, round(1000 * share)), max(2, round(300 * share))
    volume = {"mc_epochs": few, "cache_name": f"volume{seed}", "random_state": seed}
    monte_carlo = {"max_mc_epochs": 1, "models_per_epoch": few, "cache_name": f"seed{seed}", "random_state": seed}
    return {
        "RandomEvaluator": lambda: dataval.RandomEvaluator(random_state=seed),
        "KNNShapley": lambda: dataval.KNNShapley(k_neighbors=n_valid, random_state=seed),
        "KNNShapley(k=10)": lambda: dataval.KNNShapley(k_neighbors=10, random_state=seed),
        "LavaEvaluator": lambda: dataval.LavaEvaluator(random_state=seed),
        "DataOob": lambda: dataval.DataOob(num_models=many, random_state=seed),
        "DataOob with neighbours": lambda: dataval.DataOob(num_models=many, random_state=seed),
        "DataOob with trees": lambda: dataval.DataOob(num_models=many, random_state=seed),
        "DataBanzhaf": lambda: dataval.DataBanzhaf(num_models=many, random_state=seed),
        "InfluenceSubsample": lambda: dataval.InfluenceSubsample(num_models=many, random_state=seed),
        "AME": lambda: dataval.AME(num_models=many, random_state=seed),
        "LeaveOneOut": lambda: dataval.LeaveOneOut(random_state=seed),
        "DVRL": lambda: dataval.DVRL(rl_epochs=2 * many, random_state=seed),
        "RobustVolumeShapley": lambda: dataval.RobustVolumeShapley(**volume),
        "DataShapley": lambda: dataval.DataShapley(**monte_carlo),
        "BetaShapley": lambda: dataval.BetaShapley(**monte_carlo),
    }


def base_model(name: str, n_classes: int) -> Model:
    """Logistic regression as in its examples; its preset `skknn`, or the trees of the Data-OOB paper, where named."""
    if name.endswith("neighbours"):
        return ClassifierUnweightedSkLearnWrapper(KNeighborsClassifier, n_classes, n_neighbors=n_classes)
    return ClassifierSkLearnWrapper(DecisionTreeClassifier if name.endswith("trees") else LogisticRegression, n_classes)


def main() -> None:
    """Write one array of values an evaluator, and its seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples")
    parser.add_argument("values")
    parser.add_argument("--evaluators", nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the models and permutations of its examples")
    parser.add_argument("--scaled", action="store_true", help="standardise the features first")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    samples = np.load(arguments.samples)
    names = ("features", "label", "holdout_features", "holdout_label")
    if arguments.scaled:
        samples = dict(samples)
        for name in ("features", "holdout_features"):
            samples[name] = (samples[name] - samples["mean"]) / samples["scale"]
    tensors = [torch.as_tensor(samples[name], dtype=torch.float32) for name in names]
    known = evaluators(arguments.seed, arguments.share, len(samples["holdout_label"]))
    results = {}
    for name in arguments.evaluators:
        torch.manual_seed(arguments.seed)
        evaluator = known[name]()
        started, busy = time.perf_counter(), time.process_time()
        if isinstance(evaluator, dataval.api.ModelMixin):
            evaluator.input_model(base_model(name, tensors[1].shape[1])).input_metric(accuracy)
        evaluator.input_data(*tensors)
        evaluator.train_data_values()
        results[name] = np.asarray(evaluator.evaluate_data_values(), np.float64)
        results[f"{name} seconds"] = np.array(time.perf_counter() - started)
        results[f"{name} cpu seconds"] = np.array(time.process_time() - busy)
    np.savez(arguments.values, **results)


if __name__ == "__main__":
    main()
