"""
Augmentation of a training set by optimal transport: the plug-in of BLAST (stage 4), usable for any model.

False negatives get a negative cost, training positives a positive one, and the pairs that receive most mass under an
entropic transport plan between users and items become extra positives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from recmodels.compute.base import Compute, Group
from recmodels.compute.local import LOCAL
from recmodels.errors import InputError
from recmodels.graphs.matrices import interaction_matrix
from recmodels.schemas.tables import AUGMENTED
from recmodels.transport.config import TransportConfig
from recmodels.transport.false_negatives import item_evidence
from recmodels.transport.parts import MOST_ENTRIES, SharedByUsers, UserPart, user_parts
from recmodels.transport.sinkhorn import power_of, sinkhorn, sinkhorn_in_parts
from recmodels.transport.top_q import top_q, top_q_in_parts

ENTRIES_PER_PART = 1 << 27
"""Stored costs of a part, about, and at most: 4 GB while it is made."""


@dataclass(frozen=True, eq=False)
class Augmentation:
    """
    An augmented training set and how it came about.

    Attributes
    ----------
    interactions
        The distinct training pairs and the added ones (user_id, item_id: Int32; added: Boolean), by user and item.
    added
        The added pairs with their mass, schema `recmodels.schemas.tables.AUGMENTED`; disjoint from the training pairs.
    false_negatives
        The false negatives F, shape (n_users, n_items), values 1: what `NegativeSampler` must not draw. Without
        entries if they were not to be kept.
    diagnostics
        Sizes, convergence and reach of the plan, ready to be recorded.
    """

    interactions: pl.DataFrame
    added: pl.DataFrame
    false_negatives: sparse.csr_array
    diagnostics: dict[str, float | int | str]


def augment(
    interactions: pl.DataFrame,
    item_graphs: Mapping[str, pl.DataFrame],
    config: TransportConfig | None = None,
    *,
    n_users: int | None = None,
    n_items: int | None = None,
    compute: Compute = LOCAL,
    entries_per_part: int = ENTRIES_PER_PART,
    keep_false_negatives: bool = True,
) -> Augmentation:
    """
    Add the likeliest false negatives to a training set.

    Parameters
    ----------
    interactions
        Training pairs with integer columns user_id and item_id; further columns are ignored, repeated pairs count once.
        Only training rows belong here: nothing else may shape the training set.
    item_graphs
        Modality (``text``, ``image``, ...) to neighbour table, schema `recmodels.schemas.tables.KNN`. A table without
        rows is a missing modality.
    config
        Settings; None takes the paper's.
    n_users, n_items
        Numbers of users and items; None takes the largest id plus 1, over the graphs too, and no training item may then
        lie beyond the graphs.
    compute
        Where the parts of the users are kept and asked.
    entries_per_part
        Stored costs (training pairs and false negatives) of a part, about; up to there is one part. The cut follows
        from the data, so that the place changes nothing; another cut changes masses by rounding.
    keep_false_negatives
        Whether the result holds them, which takes 5 bytes each.

    Returns
    -------
    Augmentation
        Without a false negative there is nothing to transport: no pair is added and the diagnostics say so in
        ``status``.

    Raises
    ------
    InputError
        If a column or every graph is missing, an id is out of range or a setting does not fit the data.

    Warns
    -----
    NotConverged
        If the solver stopped at its iteration limit; the pairs of the plan so far are returned.

    Examples
    --------
    >>> train = pl.DataFrame({"user_id": [0, 1, 2, 3], "item_id": [0, 1, 2, 3]})
    >>> knn = pl.DataFrame({"src": [0, 1], "dst": [1, 0], "rank": [0, 0], "similarity": [0.9, 0.9]})
    >>> result = augment(train, {"text": knn}, TransportConfig(ratio=0.5, neighbours=None), n_items=4)
    >>> result.added.select("user_id", "item_id").rows()
    [(0, 1), (1, 0)]
    """
    config = config or TransportConfig()
    if not 1 <= entries_per_part <= MOST_ENTRIES:
        raise InputError("entries_per_part", expected=f"1 to {MOST_ENTRIES}", found=str(entries_per_part))
    for column in ("user_id", "item_id"):
        if column not in interactions.columns:
            raise InputError("interactions", expected="columns user_id and item_id", found=str(interactions.columns))
    users, items = interactions["user_id"].to_numpy(), interactions["item_id"].to_numpy()
    n_users = _size(users) if n_users is None else n_users
    if not item_graphs:
        raise InputError(
            "item_graphs",
            expected="at least one neighbour table",
            found="none",
            action="Make one with recmodels.graphs.knn.knn_table; a table without rows is a missing modality.",
        )
    if n_items is None:
        n_items = max(_size(table[end].to_numpy()) for table in item_graphs.values() for end in ("src", "dst"))
        if 0 < n_items < _size(items):
            raise InputError(
                "interactions",
                expected=f"item ids from 0 to {n_items - 1}, as in the item graphs",
                found=f"ids up to {items.max()}",
                action="Number items as the rows of the vectors, or pass n_items if some are in no graph.",
            )
        n_items = max(n_items, _size(items))
    positives = interaction_matrix(users, items, n_users, n_items)
    if not positives.nnz:
        raise InputError("interactions", expected="at least one training pair", found="none")

    activity = np.diff(positives.indptr)
    popularity = np.bincount(positives.indices, minlength=n_items)
    a = _marginal(config.user_marginal, activity, config.user_mass, config.target_activity, 0.0)
    b = _marginal(config.item_marginal, popularity, config.item_mass, config.target_popularity, config.popularity_power)
    evidence = item_evidence(
        positives, item_graphs, evidence=config.evidence, weights=config.modality_weights, k=config.neighbours
    )
    shared = SharedByUsers(
        evidence,
        config.epsilon,
        power_of(config.epsilon, config.relaxation),
        on_cuda=config.backend == "cuda",
        keep_false_negatives=keep_false_negatives,
    )
    # The dense reference takes the problem as a whole.
    size = MOST_ENTRIES if config.backend == "pot" else entries_per_part
    group = compute.group(UserPart, user_parts(positives, a, evidence, size), shared=shared)
    # What only made the parts makes room.
    del shared, evidence
    with group:
        return _augmented(group, positives, a, b, config)


def _augmented(
    group: Group, positives: sparse.csr_array, a: np.ndarray, b: np.ndarray, config: TransportConfig
) -> Augmentation:
    n_found, n_without = np.sum(sizes := group.call("sizes"), axis=0).tolist()
    q = int(np.floor(config.ratio * positives.nnz + 0.5))
    diagnostics: dict[str, float | int | str] = {
        "n_users": a.size,
        "n_items": b.size,
        "n_positives": positives.nnz,
        "n_false_negatives": n_found,
        "n_users_without_false_negative": n_without,
        "n_parts": len(sizes),
        "q": q,
        "epsilon": config.epsilon,
    }
    if not n_found or q == 0:
        status = "no false negatives: nothing added" if not n_found else "q is 0: nothing added"
        return _result(positives, group, _table(*(np.zeros(0),) * 3), diagnostics | {"status": status})
    limits: dict[str, Any] = {
        "relaxation": config.relaxation,
        "tolerance": config.tolerance,
        "max_iterations": config.max_iterations,
    }
    if config.backend == "pot":
        (cost,) = group.call("stored_cost")
        solved = sinkhorn(cost, a, b, config.epsilon, solver="pot", **limits)
        best = top_q(solved.log_f, solved.log_g, cost, config.epsilon, q, excluded=positives)
    else:
        solved = sinkhorn_in_parts(group, a, b, config.epsilon, **limits)
        best = top_q_in_parts(group, len(sizes), solved.potentials, q)
    added = _table(best.user_ids, best.item_ids, best.mass)
    return _result(
        positives,
        group,
        added,
        diagnostics
        | {
            "n_added_outside_false_negatives": int((~best.stored).sum()),
            "form": solved.form,
            "iterations": solved.n_iterations,
            "marginal_error": solved.marginal_error,
            "tolerance": config.tolerance,
            "plan_mass": solved.mass,
            "status": "converged" if solved.converged else "not converged",
        },
    )


def _size(ids: np.ndarray) -> int:
    return int(ids.max()) + 1 if ids.size else 0


def _marginal(kind: str, counts: np.ndarray, mean_mass: float | None, target: float | None, power: float) -> np.ndarray:
    mean = float(counts.mean())
    if kind == "uniform":
        shares = np.ones(counts.size)
    elif kind == "popularity":
        # A power of at most 0 has no value for an item that nobody met; it gets no mass either way.
        shares = np.zeros(counts.size)
        shares[counts > 0] = counts[counts > 0].astype(np.float64) ** power
    else:
        shares = np.maximum((mean if target is None else target) - counts, 0.0)
        if not shares.any():
            raise InputError(
                "marginal 'deficit'",
                expected="someone below the target",
                found=f"a target of {mean if target is None else target:g} and at least {counts.min()} everywhere",
                action="Raise the target or use the marginal 'uniform'.",
            )
    return shares * (mean if mean_mass is None else mean_mass) * counts.size / shares.sum()


def _table(user_ids: np.ndarray, item_ids: np.ndarray, mass: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": user_ids.astype(np.int32), "item_id": item_ids.astype(np.int32), "mass": mass}, schema=AUGMENTED
    )


def _result(
    positives: sparse.csr_array,
    group: Group,
    added: pl.DataFrame,
    diagnostics: dict[str, Any],
) -> Augmentation:
    activity = np.diff(positives.indptr)
    train = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(activity.size, dtype=np.int32), activity),
            "item_id": positives.indices.astype(np.int32),
        }
    ).with_columns(added=pl.lit(value=False))
    both = pl.concat([train, added.select("user_id", "item_id", added=pl.lit(value=True))]).sort("user_id", "item_id")
    reached = np.unique(added["user_id"].to_numpy())
    diagnostics |= {
        "n_added": added.height,
        "share_users_reached": reached.size / activity.size,
        "share_items_reached": added["item_id"].n_unique() / int(diagnostics["n_items"]),
        "mean_activity": float(activity.mean()),
        "mean_activity_of_users_reached": float(activity[reached].mean()) if reached.size else 0.0,
    }
    found = group.call("false_negatives")
    stacked = found[0] if len(found) == 1 else sparse.csr_array(sparse.vstack(found, format="csr"))
    return Augmentation(both, added, stacked, diagnostics)
