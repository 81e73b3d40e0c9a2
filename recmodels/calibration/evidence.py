"""Evidence for items: how much each item of a user speaks for another, from training rows and item graphs alone."""

from scipy import sparse
from torch import Tensor

from recmodels.calibration.config import CalibrationConfig, EvidenceName
from recmodels.errors import InputError
from recmodels.graphs.co_occurrence import cosines_of_columns
from recmodels.graphs.matrices import neighbour_matrix
from recmodels.models.inputs import TrainingData
from recmodels.models.zoo.ease import ease_weights

Weights = sparse.csr_array | Tensor
"""(n_items, n_items) float32, sparse or dense: entry (j, i) is how much item j speaks for item i."""


def evidence_weights(data: TrainingData, config: CalibrationConfig) -> dict[str, Weights]:
    """
    Return the weights of each evidence that the configuration names.

    ``co_users``: cosine of the items' sets of training users (as in BRIDGE, CIKM 2026, without its limit of 1000 a
    row). ``ease``: the weights of EASE. ``text_graph``, ``image_graph``: cosines of a neighbour table.

    Raises
    ------
    InputError
        If a neighbour table is absent, or the weights of EASE do not fit in memory.
    """
    return {name: _weights(name, data, config) for name in config.evidence}


def _weights(name: EvidenceName, data: TrainingData, config: CalibrationConfig) -> Weights:
    if name == "co_users":
        return cosines_of_columns(data.train_matrix(), shrinkage=config.shrinkage)
    if name == "ease":
        return ease_weights(data.train_matrix(), config.ease_penalty)
    modality = name.removesuffix("_graph")
    if modality not in data.item_knn:
        raise InputError(f"evidence {name}", expected=f"item_{modality}_knn", found="none")
    return neighbour_matrix(data.item_knn[modality], data.n_items, include_self=False, weights="similarity")
