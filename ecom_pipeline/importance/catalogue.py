"""Every estimator by its name, with the settings that it has when nothing else is said.

On the floor of `importance`, above the families in `estimators/`.
"""

from collections.abc import Iterable

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance import threshold
from ecom_pipeline.importance.estimator import Estimator
from ecom_pipeline.importance.estimators import (
    bias,
    closed_form,
    confident_learning,
    datainf,
    dynamics,
    games,
    gradients,
    graph,
    group_kernel,
    learned,
    neighbours,
    out_of_fold,
    prediction_gap,
)
from ecom_pipeline.importance.estimators.ensemble import RankEnsemble

SMOOTHING = 0.05  # of the stabilised gap, in probability

ALL: tuple[Estimator, ...] = (
    out_of_fold.OutOfFoldConfidence(),
    out_of_fold.NormalisedMargin(),
    out_of_fold.EntropyAdjustedConfidence(),
    out_of_fold.CrossValidatedLoss(),
    out_of_fold.ClassAdjustedConfidence(),
    out_of_fold.RankedProbabilityScore(),
    out_of_fold.ExpectedGradeDistance(),
    confident_learning.ConfidentLearning(),
    confident_learning.PruneByClass(),
    confident_learning.PruneByNoiseRate(),
    confident_learning.PruneByBoth(),
    threshold.LabelPosterior(),
    prediction_gap.StabilisedPredictionGap(SMOOTHING),
    prediction_gap.LiteralPredictionGap(),
    dynamics.AreaUnderMargin(),
    dynamics.ThresholdedAreaUnderMargin(),
    dynamics.EarlyError(),
    dynamics.Forgetting(),
    dynamics.SmallLoss(),
    dynamics.ReweightedLoss(),
    dynamics.ReducibleLoss(),
    neighbours.KNNShapley(),
    neighbours.SoftLabelKNNShapley(),
    neighbours.ThresholdKNNShapley(),
    neighbours.NeighbourAgreement(),
    closed_form.LeaveOneOutCredibility(),
    closed_form.LeaveOneOutInfluence(),
    group_kernel.GroupKernelLeaveOneOut(),
    graph.GroupAgreement(),
    graph.GraphAgreement(),
    games.DataOOB(),
    games.DataShapley(),
    games.BetaShapley(),
    games.DataBanzhaf(),
    gradients.LastLayerInfluence(),
    gradients.SelfInfluence(),
    gradients.TracIn(),
    gradients.SelfTracIn(),
    gradients.Trak(),
    datainf.DataInf(),
    learned.ReinforcedSelection(),
    learned.LearningToReweight(),
    learned.MetaWeightNet(),
    bias.InversePropensity(),
    bias.InverseExamination(),
    bias.ClassBalance(),
    bias.SegmentBalance(),
    bias.Recency(),
    bias.DensityRatio(),
    RankEnsemble((out_of_fold.OutOfFoldConfidence(), group_kernel.GroupKernelLeaveOneOut(), graph.GroupAgreement())),
)
NAMES = tuple(estimator.name for estimator in ALL)
COSTLY = frozenset(
    {
        *("data_shapley", "beta_shapley", "data_banzhaf", "thresholded_aum"),
        *("dvrl", "learning_to_reweight", "meta_weight_net"),
    }
)  # hundreds of fits: minutes where the others take seconds
QUICK = tuple(name for name in NAMES if name not in COSTLY)
ONLY_BY_NAME = frozenset({"literal_prediction_gap"})  # kept to be judged; no choice may take it
AGAINST_BIAS = frozenset(
    {
        "inverse_propensity",
        "inverse_examination",
        "class_balance",
        "segment_balance",
        "recency",
        "density_ratio",
    }
)  # they say whom a sample stands for, not whether its label is right


def named(names: Iterable[str]) -> list[Estimator]:
    """Estimators by name, in the order of the names.

    Raises:
        SampleError: if a name is not known.
    """
    by_name = {estimator.name: estimator for estimator in ALL}
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise SampleError(
            f"estimators: {len(unknown)} of {len(wanted)} names are not known; first: {unknown[0]!r}. Each must be one "
            f"of {', '.join(NAMES)}: correct the configuration."
        )
    return [by_name[name] for name in wanted]
