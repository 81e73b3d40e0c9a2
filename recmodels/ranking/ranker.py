"""The final ranking of a model: the best items of many users, ranked in blocks of users and of items."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn.functional import embedding_bag

from recmodels.errors import InputError
from recmodels.graphs.matrices import entry_keys, shape_of
from recmodels.ranking.best import RunningBest
from recmodels.ranking.blocks import ITEMS, USERS, WHOLE_ITEMS, in_blocks

_NOBODY = np.empty(0, dtype=np.int64)
# Users at a time where whole rows of scores are made although there are too many items.
_USERS_OF_WHOLE_ROWS = 16
_WIDER = 16


class Ranker(ABC):
    """
    What evaluation, early stopping and serving need of a model: the best items of a user.

    It consists of tensors and JSON-ready settings, so that a checkpoint holds it without code or pickle.

    Attributes
    ----------
    kind
        Its name in stored files.
    n_users, n_items
        Sizes of the id spaces.
    """

    kind: ClassVar[str]
    n_users: int
    n_items: int

    @property
    def item_vectors(self) -> Tensor | None:
        """(n_items, d) float32 in which similar items point the same way; None where there are none."""
        return None

    @abstractmethod
    def top_items(self, users: Tensor, k: int, *, excluded: sparse.csr_array | None = None) -> tuple[Tensor, Tensor]:
        """
        Rank all items for each of the users and return the best k. No gradient flows through the scores.

        Parameters
        ----------
        users
            (n,) int64 ids of the users to rank for, on any device.
        k
            Items per user, at most n_items.
        excluded
            (n_users, n_items) CSR; its entries get a score of minus infinity.

        Returns
        -------
        items
            (n, k) int64 ids, best first.
        scores
            (n, k) float32; minus infinity where a user has fewer than k items that are not excluded.
        """

    @abstractmethod
    def is_finite(self) -> bool:
        """Tell whether everything that scores are made of is finite."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what it consists of, by name."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the JSON-ready rest of what it consists of."""

    @classmethod
    @abstractmethod
    def from_stored(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Rebuild it from what `tensors` and `settings` returned."""

    def cpu(self) -> "Ranker":
        """Return it with its tensors on the CPU."""
        return self

    def __reduce__(self) -> tuple[Callable[..., "Ranker"], tuple[type["Ranker"], dict[str, NDArray[Any]], Any]]:
        """Travel to another process as the arrays and settings that a checkpoint would hold."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.tensors().items()}
        return _rebuilt, (type(self), arrays, self.settings())


def _rebuilt(kind: type[Ranker], arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Ranker:
    with warnings.catch_warnings():
        # Processes of a machine share arrays that cannot be written to; nothing here does.
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        return kind.from_stored({name: torch.from_numpy(array) for name, array in arrays.items()}, settings)


class Scorer(Ranker):
    """
    A ranker by scores that are computed for every item, in blocks of about 4 MB a thread.

    Up to `WHOLE_ITEMS` a block has all items of some users, and which of equal scores comes first is open. More are
    cut into blocks of items as well, and of equal scores the item with the lower id comes first.
    """

    device = torch.device("cpu")
    _together = _USERS_OF_WHOLE_ROWS

    @abstractmethod
    def scores(self, users: Tensor) -> Tensor:
        """Return the scores of users, ids (n,) int64 on the scorer's device, as (n, n_items) float32 of their own."""

    def scores_of(self, users: Tensor) -> Callable[[slice], Tensor]:
        """Prepare for users and return what makes their scores of a slice of the items, (n, width) of their own."""
        of_all = self.scores(users)
        return lambda items: of_all[:, items]

    @property
    def cuts_items(self) -> bool:
        """Whether the items are too many to be scored at once."""
        return self.device.type == "cpu" and self.n_items > WHOLE_ITEMS

    def top_items(self, users: Tensor, k: int, *, excluded: sparse.csr_array | None = None) -> tuple[Tensor, Tensor]:
        """Rank all items for each of the users and return the best k."""
        users = users.to(self.device)
        items = torch.empty(len(users), k, dtype=torch.int64, device=self.device)
        best = torch.empty(len(users), k, dtype=torch.float32, device=self.device)
        barred = None if excluded is None else excluded[users.cpu().numpy()]

        @torch.no_grad()
        def rank(here: slice) -> None:
            of_all = self.scores(users[here])
            if barred is not None:
                of_all.view(-1)[torch.from_numpy(entry_keys(barred[here])).to(self.device)] = -torch.inf
            best[here], items[here] = of_all.topk(k, dim=1)

        @torch.no_grad()
        def rank_cut(here: slice) -> None:
            scores_of, running = self.scores_of(users[here]), RunningBest(len(users[here]), k)
            rows, columns = _by_column(barred[here]) if barred is not None else (_NOBODY, _NOBODY)
            # Fewer users, more items at a time.
            width = ITEMS * min(max(USERS // len(users[here]), 1), _WIDER)
            for first in range(0, self.n_items, width):
                last = min(first + width, self.n_items)
                scores = scores_of(slice(first, last))
                some = slice(*np.searchsorted(columns, (first, last)))
                scores[torch.from_numpy(rows[some]), torch.from_numpy(columns[some] - first)] = -torch.inf
                running.add(scores, first)
            items[here], best[here] = running.lists()

        if not self.cuts_items:
            in_blocks(rank, len(users), self.n_items, parallel=self.device.type == "cpu")
        elif k > self.n_items:
            raise InputError("items per user", expected=f"at most the {self.n_items} there are", found=str(k))
        else:
            in_blocks(rank_cut, len(users), ITEMS, n_together=self._together)
        return items, best


def _by_column(matrix: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the stored entries, ascending by column."""
    order = np.argsort(matrix.indices, kind="stable")
    rows = np.repeat(np.arange(shape_of(matrix)[0]), np.diff(matrix.indptr))
    return rows[order], matrix.indices[order].astype(np.int64)


class EmbeddingScorer(Scorer):
    """
    Scores that are inner products.

    Parameters
    ----------
    user_embeddings, item_embeddings
        (n_users, d) and (n_items, d) float32, on one device.
    """

    kind = "inner_product"
    _together = USERS

    def __init__(self, user_embeddings: Tensor, item_embeddings: Tensor) -> None:
        self.user_embeddings = user_embeddings.detach()
        self.item_embeddings = item_embeddings.detach()
        self.n_users, self.n_items = len(user_embeddings), len(item_embeddings)
        self.device = item_embeddings.device
        self._transposed = self.item_embeddings.T if self.cuts_items else self.item_embeddings.T.contiguous()

    @property
    def item_vectors(self) -> Tensor:
        """The embeddings of the items."""
        return self.item_embeddings

    def scores(self, users: Tensor) -> Tensor:
        """Return the inner products of users with all items."""
        return self.user_embeddings[users] @ self._transposed

    def scores_of(self, users: Tensor) -> Callable[[slice], Tensor]:
        """Return what makes the inner products of users with a slice of the items."""
        vectors = self.user_embeddings[users]
        return lambda items: vectors @ self._transposed[:, items]

    def is_finite(self) -> bool:
        """Tell whether the embeddings are."""
        return bool(torch.isfinite(self.user_embeddings).all() and torch.isfinite(self.item_embeddings).all())

    def tensors(self) -> dict[str, Tensor]:
        """Return the embeddings."""
        return {"users": self.user_embeddings, "items": self.item_embeddings}

    def settings(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    @classmethod
    def from_stored(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Rebuild it from its embeddings."""
        return cls(tensors["users"], tensors["items"])

    def cpu(self) -> "EmbeddingScorer":
        """Return it with its embeddings on the CPU."""
        return EmbeddingScorer(self.user_embeddings.cpu().contiguous(), self.item_embeddings.cpu().contiguous())


class LinearScorer(Scorer):
    """
    Scores that are a product of a sparse matrix of the users and a sparse or dense one of the items, on the CPU.

    Parameters
    ----------
    left
        (n_users, m) CSR float32, such as the training pairs.
    right
        (m, n_items) CSR float32, such as neighbours of items; or a dense float32 tensor of that shape.

    Raises
    ------
    InputError
        If the shapes do not fit.
    """

    kind = "linear"

    def __init__(self, left: sparse.csr_array, right: sparse.csr_array | Tensor) -> None:
        (self.n_users, inner), (n_rows, self.n_items) = shape_of(left), shape_of(right)
        if inner != n_rows:
            raise InputError("right matrix", expected=f"{inner} rows", found=str(n_rows))
        self.left = left
        self.right = right
        self._together = _USERS_OF_WHOLE_ROWS if isinstance(right, Tensor) else USERS

    def products(self, users: Tensor) -> sparse.csr_array | Tensor:
        """Return the rows of the product, (n, n_items) float32, sparse if both matrices are."""
        rows = self.left[users.numpy()]
        if not isinstance(self.right, Tensor):
            return rows @ self.right
        indices, offsets = (torch.from_numpy(ids.astype(np.int64)) for ids in (rows.indices, rows.indptr))
        weights = torch.from_numpy(rows.data)
        return embedding_bag(
            indices, self.right, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )

    def scores(self, users: Tensor) -> Tensor:
        """Return the rows of the product."""
        return dense(self.products(users))

    def scores_of(self, users: Tensor) -> Callable[[slice], Tensor]:
        """Return what cuts a slice of the items out of the rows of the product."""
        products = self.products(users)
        by_item = products if isinstance(products, Tensor) else products.tocsc()
        return lambda items: dense(by_item[:, items])

    def is_finite(self) -> bool:
        """Tell whether the entries of both matrices are."""
        return all(bool(torch.isfinite(values).all()) for values in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return both matrices."""
        return {**matrix_tensors("left", self.left), **matrix_tensors("right", self.right)}

    def settings(self) -> dict[str, Any]:
        """Return the number of items, which the entries of a sparse matrix do not tell."""
        return {"n_items": self.n_items}

    @classmethod
    def from_stored(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Rebuild it from its matrices."""
        right = matrix_from("right", tensors, settings["n_items"])
        left = matrix_from("left", tensors, shape_of(right)[0])
        if isinstance(left, Tensor):
            raise InputError("left matrix of the scores", expected="a sparse one", found="a dense one")
        return cls(left, right)


def dense(matrix: sparse.csr_array | Tensor) -> Tensor:
    """Return a matrix as a dense tensor."""
    return matrix if isinstance(matrix, Tensor) else torch.from_numpy(matrix.toarray(order="C"))


def picked(matrix: sparse.csr_array | Tensor, items: Tensor) -> Tensor:
    """Return the entries of each row at its own items, (n, length); long sparse rows are not made dense for that."""
    if isinstance(matrix, Tensor) or shape_of(matrix)[1] <= WHOLE_ITEMS:
        return dense(matrix).gather(1, items)
    matrix.sort_indices()
    return torch.from_numpy(matrix[np.arange(len(items))[:, None], items.numpy().copy()].toarray())


def matrix_tensors(name: str, matrix: sparse.csr_array | Tensor) -> dict[str, Tensor]:
    """Return a matrix as named tensors: ``name`` where it is dense, else its CSR arrays, ``name.indptr`` and so on."""
    if isinstance(matrix, Tensor):
        return {name: matrix}
    return {f"{name}.{part}": torch.from_numpy(getattr(matrix, part)) for part in ("indptr", "indices", "data")}


def matrix_from(name: str, tensors: Mapping[str, Tensor], n_columns: int) -> sparse.csr_array | Tensor:
    """Return a matrix from what `matrix_tensors` returned."""
    if name in tensors:
        return tensors[name]
    indptr, indices, data = (tensors[f"{name}.{part}"].numpy() for part in ("indptr", "indices", "data"))
    return sparse.csr_array((data, indices, indptr), shape=(indptr.size - 1, n_columns))
