"""Full-ranking evaluation: every item is a candidate, averages run over the users who have held-out items."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.errors import InputError
from recmodels.evaluation.metrics import METRICS
from recmodels.graphs.matrices import entry_keys, interaction_matrix, occurs_in
from recmodels.ranking.blocks import user_blocks
from recmodels.ranking.ranker import EmbeddingScorer, Ranker
from recmodels.schemas.results import LIST_LENGTHS
from recmodels.schemas.tables import GROUPS, SUMMARY

ACTIVITY_BORDERS = (5, 10, 20)
"""Users are grouped by their training pairs: below 5, 5 to 9, 10 to 19, 20 and more."""
ACTIVITY_GROUPS = tuple(
    [f"{low}-{high - 1}" for low, high in itertools.pairwise((0, *ACTIVITY_BORDERS))] + [f"{ACTIVITY_BORDERS[-1]}+"]
)
"""What these groups are called."""
POPULARITY_SHARES = {"head": 0.2, "middle": 0.3, "tail": 0.5}
"""Items are grouped by popularity in training: the most popular fifth, the next three tenths, the rest."""
VALIDATION_K = 20
"""Length of the list whose Recall on the validation rows early stopping and calibration go by; see `validation_k`."""
DEVICE_BLOCK_BYTES = 2**30
"""Scores that a device other than the CPU holds at once when it ranks."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """
    What an evaluation measured.

    Attributes
    ----------
    summary
        One row a metric and k (schema `SUMMARY`): means over the users, and `coverage` (share of the items that
        anybody is shown) and `novelty` (mean of -log2 of the share of users who have the item in training, one
        fictive user added).
    per_user
        One row a user with held-out items: user_id, n_train, n_held_out, and ``<metric>@<k>`` columns.
    groups
        The means by activity of the user and, for recall, by popularity of the held-out item (schema `GROUPS`).
    """

    summary: pl.DataFrame
    per_user: pl.DataFrame
    groups: pl.DataFrame

    def value(self, metric: str, k: int) -> float:
        """Return one figure of the summary."""
        return self.summary.filter((pl.col("metric") == metric) & (pl.col("k") == k))["value"].item()


def evaluate(
    ranker: Ranker,
    train: tuple[Ids, Ids],
    held_out: tuple[Ids, Ids],
    *,
    ks: Sequence[int] = LIST_LENGTHS,
    masked: tuple[Ids, Ids] | None = None,
    compute: Compute = LOCAL,
) -> EvaluationResult:
    """
    Measure how well the held-out items of users rank among all items.

    Training items are never candidates. Users without held-out items are left out.

    Parameters
    ----------
    ranker
        The model's final ranking.
    train, held_out
        (users, items) of the pairs, each (n,) int64.
    ks
        Lengths of the list, in any order. A list ends with the items: where there are fewer than k, ``@k`` is the
        figure of the list of all of them.
    masked
        Further pairs that are no candidates, such as the validation pairs at test time. The published protocol
        leaves them in.
    compute
        Where blocks of users are ranked and measured.

    Raises
    ------
    InputError
        If there is no held-out pair, a k is below 1, or an embedding or weight is not finite.

    Examples
    --------
    >>> import torch
    >>> from recmodels.ranking.ranker import EmbeddingScorer
    >>> ranker = EmbeddingScorer(torch.ones(2, 1), torch.tensor([[3.0], [2.0], [1.0]]))
    >>> train, held_out = (np.array([0, 1]), np.array([0, 1])), (np.array([0, 1]), np.array([1, 2]))
    >>> evaluate(ranker, train, held_out, ks=[1, 2]).value("recall", 1)
    0.5
    """
    n_users, n_items = ranker.n_users, ranker.n_items
    if not ks or min(ks) < 1:
        raise InputError("ks", expected="list lengths from 1", found=str(tuple(ks)))
    if held_out[0].size == 0:
        raise InputError("held-out pairs", expected="at least one", found="none")
    if not ranker.is_finite():
        raise InputError("embeddings or weights", expected="finite values", found="NaN or infinity")

    train_matrix = interaction_matrix(*train, n_users, n_items)
    held_out_matrix = interaction_matrix(*held_out, n_users, n_items)
    excluded = (
        train_matrix if masked is None else (train_matrix + interaction_matrix(*masked, n_users, n_items)).tocsr()
    )
    users = np.flatnonzero(np.diff(held_out_matrix.indptr))
    n_relevant = np.diff(held_out_matrix.indptr)[users].astype(np.int64)
    n_train = np.diff(train_matrix.indptr)[users].astype(np.int64)
    popularity = np.bincount(train_matrix.indices, minlength=n_items)
    lengths = sorted(set(ks))
    novelty = -np.log2((popularity + 1) / (n_users + 1))
    ruler = _Ruler(ranker, excluded, held_out_matrix, lengths, _popularity_groups(popularity), novelty)
    parts = list(compute.map(_measured, user_blocks(users, n_items), shared=ruler))

    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    counts = {"user_id": users, "n_train": n_train, "n_held_out": n_relevant}
    per_user = pl.DataFrame({name: ids.astype(np.int32) for name, ids in counts.items()} | columns)
    summary = [(*_split_name(name), float(values.mean())) for name, values in columns.items()]
    for k in lengths:
        shown = np.zeros(n_items, dtype=bool)
        for part in parts:
            shown[part.shown[k]] = True
        total, count = (sum(values) for values in zip(*(part.novelty[k] for part in parts), strict=True))
        summary += [("coverage", k, np.count_nonzero(shown) / n_items), ("novelty", k, float(total / count))]
    groups = _by_activity(columns, n_train) + _by_popularity([part.recall for part in parts])
    return EvaluationResult(
        summary=pl.DataFrame(summary, schema=SUMMARY, orient="row"),
        per_user=per_user,
        groups=pl.DataFrame(groups, schema=GROUPS, orient="row"),
    )


def validation_k(n_items: int) -> int:
    """
    Return the length of the list that early stopping and calibration go by: `VALIDATION_K`, or half of the items.

    A list of all of them finds everything, however they are ranked, so that the first epoch would be the best one.

    Examples
    --------
    >>> [validation_k(n_items) for n_items in (2, 8, 40, 7_050)]
    [1, 4, 20, 20]
    """
    return min(VALIDATION_K, max(1, n_items // 2))


def recall_at(ranker: Ranker, train: sparse.csr_array, held_out: sparse.csr_array, k: int) -> float:
    """Return the mean Recall@k of the users with held-out items: the figure that training watches every epoch."""
    users = np.flatnonzero(np.diff(held_out.indptr))
    hits, _, _ = _ranked_hits(ranker, users, k, train, held_out[users])
    return float(METRICS["recall"](hits, np.diff(held_out.indptr)[users]).mean())


class ValidationRecall:
    """
    The mean Recall@k of the users with held-out items, of one ranking after another: what training watches.

    A ranking by inner products on another device than the CPU is scored, ranked and counted there; one number comes
    back. All others go through `recall_at`.

    Parameters
    ----------
    train, held_out
        Binary (n_users, n_items) CSR.
    k
        Length of the list, at most n_items.
    device
        Where rankings will be.
    """

    def __init__(self, train: sparse.csr_array, held_out: sparse.csr_array, k: int, device: torch.device) -> None:
        self.train, self.held_out, self.k, self.device = train, held_out, k, device

    def __call__(self, ranker: Ranker) -> float:
        """Return the mean Recall@k of a ranking."""
        if isinstance(ranker, EmbeddingScorer) and ranker.device.type != "cpu":
            return self.on_device(ranker)
        return recall_at(ranker, self.train, self.held_out, self.k)

    def on_device(self, ranker: EmbeddingScorer) -> float:
        """Return the mean Recall@k of a ranking on the device, computed there."""
        users, barred, ends, wanted, n_wanted = self._tables
        n_items, found = ranker.n_items, []
        size = max(1, DEVICE_BLOCK_BYTES // (4 * n_items))
        for first in range(0, len(users), size):
            scores = ranker.scores(users[first : first + size])
            last = first + len(scores)
            scores.view(-1).index_fill_(0, barred[ends[first] : ends[last]] - first * n_items, -torch.inf)
            best, items = scores.topk(self.k, dim=1)
            keys = torch.arange(first, last, device=scores.device)[:, None] * n_items + items
            place = torch.searchsorted(wanted, keys).clamp_max(len(wanted) - 1)
            found.append(((wanted[place] == keys) & best.isfinite()).sum(dim=1))
        return (torch.cat(found).double() / n_wanted).mean().item()

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor, Ids, Tensor, Tensor]:
        """
        Return the users with held-out items, and what is barred and wanted of them as numbers row * n_items + item.

        With the barred ones go, on the CPU, the places where each row's begin; with the wanted ones their counts a row.
        """
        users = np.flatnonzero(np.diff(self.held_out.indptr))
        barred, wanted = self.train[users], self.held_out[users]
        keys = [torch.from_numpy(entry_keys(matrix)).to(self.device) for matrix in (barred, wanted)]
        n_wanted = torch.from_numpy(np.diff(wanted.indptr).astype(np.int64)).to(self.device)
        return torch.from_numpy(users).to(self.device), keys[0], barred.indptr.astype(np.int64), keys[1], n_wanted


def _ranked_hits(
    ranker: Ranker, users: Ids, k: int, excluded: sparse.csr_array, held_out: sparse.csr_array
) -> tuple[NDArray[np.bool_], Ids, NDArray[np.bool_]]:
    """
    Return of each rank whether its item is held out, which item it is, and whether it is a candidate at all.

    `held_out` has the rows of the users. All are (n, k), or as long as there are items; what is no candidate ends the
    lists that are longer than the rest.
    """
    ranked, scores = ranker.top_items(torch.from_numpy(users), min(k, ranker.n_items), excluded=excluded)
    items, shown = ranked.cpu().numpy(), scores.isfinite().cpu().numpy()
    rows = np.arange(users.size)[:, None] * ranker.n_items
    hits = occurs_in(rows + items, entry_keys(held_out))
    return hits & shown, items, shown


def _split_name(name: str) -> tuple[str, int]:
    metric, k = name.split("@")
    return metric, int(k)


_GroupRow = tuple[str, str, int, str, int, float]


def _by_activity(columns: dict[str, NDArray[np.float64]], n_train: Ids) -> list[_GroupRow]:
    group = np.digitize(n_train, ACTIVITY_BORDERS)
    return [
        ("user_activity", group_name, int(members.sum()), *_split_name(name), float(values[members].mean()))
        for index, group_name in enumerate(ACTIVITY_GROUPS)
        if (members := group == index).any()
        for name, values in columns.items()
    ]


def _by_popularity(parts: list[dict[tuple[str, int], NDArray[np.float64]]]) -> list[_GroupRow]:
    values = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return [
        ("item_popularity", name, recall.size, "recall", k, float(recall.mean()))
        for (name, k), recall in values.items()
        if recall.size
    ]


def _popularity_groups(popularity: NDArray[np.int64]) -> Ids:
    """Return the number of each item's group in `POPULARITY_SHARES`."""
    order = np.argsort(-popularity, kind="stable")
    borders = (np.cumsum(list(POPULARITY_SHARES.values())) * len(order)).round().astype(int)
    group_of = np.empty(len(order), dtype=np.int64)
    group_of[order] = np.searchsorted(borders, np.arange(len(order)), side="right")
    return group_of


@dataclass(frozen=True, eq=False)
class _Ruler:
    """What all users are measured with: besides ranking and pairs, each item's group and novelty."""

    ranker: Ranker
    excluded: sparse.csr_array
    held_out: sparse.csr_array
    ks: list[int]
    group_of: Ids
    novelty: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured of some users."""

    columns: dict[str, NDArray[np.float64]]
    """Metrics a user."""
    shown: dict[int, Ids]
    """By k, the ids of the items on anybody's list."""
    novelty: dict[int, tuple[np.float64, int]]
    """By k, the sum of novelty and the number of places."""
    recall: dict[tuple[str, int], NDArray[np.float64]]
    """By group of items and k, of each user with held-out items of the group."""


def _measured(ruler: _Ruler, users: Ids) -> _Measured:
    """Rank for some users and measure their lists."""
    held_out = ruler.held_out[users]
    hits, items, candidates = _ranked_hits(ruler.ranker, users, ruler.ks[-1], ruler.excluded, held_out)
    n_relevant = np.diff(held_out.indptr).astype(np.int64)
    columns = {f"{name}@{k}": metric(hits[:, :k], n_relevant) for k in ruler.ks for name, metric in METRICS.items()}
    shown: dict[int, Ids] = {}
    novelty: dict[int, tuple[np.float64, int]] = {}
    for k in ruler.ks:
        listed = items[:, :k][candidates[:, :k]]
        novelty[k] = ruler.novelty[listed].sum(), listed.size
        shown[k] = np.flatnonzero(np.bincount(listed, minlength=ruler.novelty.size))
    recall: dict[tuple[str, int], NDArray[np.float64]] = {}
    rows, wanted = held_out.nonzero()
    for index, name in enumerate(POPULARITY_SHARES):
        relevant = np.bincount(rows[ruler.group_of[wanted] == index], minlength=users.size)
        members = relevant > 0
        found = (hits & (ruler.group_of[items] == index))[members]
        for k in ruler.ks:
            recall[name, k] = METRICS["recall"](found[:, :k], relevant[members])
    return _Measured(columns, shown, novelty, recall)
