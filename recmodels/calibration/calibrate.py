"""The choice of a calibration on the validation rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recmodels.calibration.config import CalibrationConfig
from recmodels.calibration.evidence import evidence_weights
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.errors import InputError
from recmodels.evaluation.evaluator import validation_k
from recmodels.evaluation.metrics import METRICS
from recmodels.graphs.matrices import entry_keys, occurs_in
from recmodels.models.inputs import TrainingData
from recmodels.ranking.calibrated import CalibratedRanker, Evidence, reordered, shortlist_support, standardised
from recmodels.ranking.lists import best_lists
from recmodels.ranking.ranker import Ranker

_SWEEPS = 2


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated ranking and how it was chosen."""

    ranker: CalibratedRanker
    """The base ranking with the chosen evidence and shortlist."""
    search: pl.DataFrame
    """Every try in order: shortlist, ``strength_<evidence>`` columns, valid_recall, and whether it was chosen."""
    chosen: dict[str, Any]
    """The row of `search` that was chosen, by column."""


def calibrate(base: Ranker, data: TrainingData, config: CalibrationConfig, compute: Compute = LOCAL) -> Calibration:
    """
    Choose evidence strengths and length of the shortlist for a trained, frozen model by validation Recall@20.

    For each length the strengths start at 0; those of one evidence after the other are tried while the others keep
    theirs, twice over where there are several. Of equally good tries the weakest wins, then the shortest list. Evidence
    is made from the training pairs and item graphs of the data that the model was trained on.

    Raises
    ------
    InputError
        If there are no validation pairs, or an evidence cannot be made.

    Examples
    --------
    >>> from recmodels.models.example import example_data
    >>> from recmodels.ranking.ranker import EmbeddingScorer
    >>> indifferent = EmbeddingScorer(torch.ones(12, 1), torch.ones(16, 1))
    >>> config = CalibrationConfig(strengths=(1.0,), shortlists=(10,))
    >>> calibrate(indifferent, example_data(), config).search.columns
    ['shortlist', 'strength_co_users', 'valid_recall', 'chosen']
    """
    if data.valid_users.size == 0:
        raise InputError("validation pairs", expected="at least one, to choose a calibration by", found="none")
    weights = evidence_weights(data, config)
    search = _Search(base, data, [Evidence(name, matrix, 0.0) for name, matrix in weights.items()], config, compute)
    for length in sorted({min(length, data.n_items) for length in config.shortlists}):
        search.run(length)
    best = min(search.tries, key=lambda tried: (-tried.valid_recall, sum(tried.strengths), tried.shortlist))
    chosen = [Evidence(name, weights[name], beta) for name, beta in zip(weights, best.strengths, strict=True)]
    rows = [
        {
            "shortlist": tried.shortlist,
            **{f"strength_{name}": beta for name, beta in zip(weights, tried.strengths, strict=True)},
            "valid_recall": tried.valid_recall,
            "chosen": tried is best,
        }
        for tried in search.tries
    ]
    ranker = CalibratedRanker(base, search.history, chosen, best.shortlist, config.normalisation)
    return Calibration(ranker, pl.DataFrame(rows), chosen=next(row for row in rows if row["chosen"]))


@dataclass(frozen=True)
class _Try:
    shortlist: int
    strengths: tuple[float, ...]
    valid_recall: float


class _Search:
    """The shortlists of the users with validation items on them, made once, and what comes of their reordering."""

    def __init__(
        self, base: Ranker, data: TrainingData, evidence: list[Evidence], config: CalibrationConfig, compute: Compute
    ) -> None:
        held_out = data.valid_matrix()
        everyone = np.flatnonzero(np.diff(held_out.indptr))
        self.history: Any = data.train_matrix()
        self.grid = sorted({0.0, *config.strengths})
        self.tries: list[_Try] = []
        self.k = validation_k(data.n_items)
        longest = min(max(*config.shortlists, self.k), data.n_items)
        items, scores = map(torch.from_numpy, best_lists(base, everyone, longest, self.history, compute))
        hits = occurs_in(everyone[:, None] * data.n_items + items.numpy(), entry_keys(held_out))
        hits &= scores.isfinite().numpy()
        # The others find nothing in any order.
        found = np.flatnonzero(hits.any(axis=1))
        users = everyone[found]
        items, self.base = items[found], scores[found]
        self.hits = torch.from_numpy(hits[found])
        self.n_relevant = np.diff(held_out.indptr)[users].astype(np.int64)
        self.n_users = everyone.size
        self.supports = [
            shortlist_support(one, self.history, torch.from_numpy(users), items, config.normalisation)
            for one in evidence
        ]

    def run(self, length: int) -> None:
        """Try strengths for one length of the shortlist."""
        base = self.base[:, :length]
        supports = [standardised(support[:, :length], moments, base) for support, moments in self.supports]
        known: dict[tuple[float, ...], float] = {}

        def recall(strengths: tuple[float, ...]) -> float:
            if strengths not in known:
                known[strengths] = self._recall(base, strengths, supports)
                self.tries.append(_Try(length, strengths, known[strengths]))
            return known[strengths]

        best = (0.0,) * len(supports)
        for _ in range(_SWEEPS if len(supports) > 1 else 1):
            for index in range(len(supports)):
                options = [(*best[:index], beta, *best[index + 1 :]) for beta in self.grid]
                # The grid ascends and `max` keeps the first: the weakest of equals.
                best = max(options, key=recall)

    def _recall(self, base: Tensor, strengths: tuple[float, ...], supports: list[Tensor]) -> float:
        moved = [(beta, support) for beta, support in zip(strengths, supports, strict=True) if beta]
        _, order = reordered(base, moved)
        length = base.shape[1]
        hits = torch.cat([self.hits[:, :length].gather(1, order), self.hits[:, length:]], dim=1)
        return float(METRICS["recall"](hits[:, : self.k].numpy(), self.n_relevant).sum()) / self.n_users
