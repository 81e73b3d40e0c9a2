"""
Initialisers, losses and projections that several models share.

What only some models share for a purpose of theirs (attention, channels, item graphs) has a module of its own here.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from recmodels.models.inputs import FeatureMatrix
from recmodels.models.layers.columns import norms, total

Init = Literal["default", "xavier_uniform", "xavier_normal"]


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """
    Return the rows of a table, with the gradient summed per row in a fixed order.

    Plain indexing would add the gradients of repeated ids in the order of the threads.
    """
    return functional.embedding(ids, table)


def lookup_each(table: Tensor, *ids: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of each of several vectors of ids, all looked up at once."""
    return lookup(table, torch.cat(ids)).split([len(part) for part in ids])


def row_differences(table: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return ``table[first] - table[second]`` in one pass, which for wide tables is three times faster."""
    signs = table.new_ones(len(first), 2)
    signs[:, 1].neg_()
    pairs = torch.stack([first, second], dim=1)
    return functional.embedding_bag(pairs, table, mode="sum", per_sample_weights=signs)


def xavier_table(n_rows: int, width: int, generator: torch.Generator, *, normal: bool = False) -> nn.Parameter:
    """Return an (n_rows, width) parameter with Xavier-uniform or Xavier-normal entries."""
    table = torch.empty(n_rows, width)
    if normal:
        nn.init.xavier_normal_(table, generator=generator)
    else:
        nn.init.xavier_uniform_(table, generator=generator)
    return nn.Parameter(table)


def node_table(n_users: int, n_items: int, width: int, generator: torch.Generator) -> nn.Parameter:
    """
    Return an (n_users + n_items, width) parameter, users first, each of the two parts Xavier-uniform by itself.

    One table saves joining two before every propagation.
    """
    parts = (xavier_table(n, width, generator) for n in (n_users, n_items))
    return nn.Parameter(torch.cat([part.data for part in parts]))


def linear(
    n_in: int,
    n_out: int,
    generator: torch.Generator,
    *,
    bias: bool = True,
    init: Init = "default",
) -> nn.Linear:
    """
    Return an affine map whose entries come from the generator.

    `init` is that of the weight: ``default`` (uniform within 1/sqrt(n_in), as torch does), ``xavier_uniform`` or
    ``xavier_normal``. The bias is uniform within 1/sqrt(n_in) in any case.
    """
    layer = nn.Linear(n_in, n_out, bias=bias, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(n_in)
    with torch.no_grad():
        if init == "xavier_normal":
            nn.init.xavier_normal_(layer.weight, generator=generator)
        elif init == "xavier_uniform":
            nn.init.xavier_uniform_(layer.weight, generator=generator)
        else:
            layer.weight.uniform_(-bound, bound, generator=generator)
        if bias:
            layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


class Features(nn.Module):
    """
    The raw features of items or users with an affine projection of the rows that are asked for.

    Projecting only a batch's rows is exact: a row's projection depends on that row alone.

    Parameters
    ----------
    features
        (n, n_in) float32.
    width
        Columns of the projection.
    generator
        Source of its initial entries.
    trainable
        Train a copy of the features too, as the published programs do; its cost is that of a table n_in wide.
    """

    def __init__(
        self,
        features: FeatureMatrix,
        width: int,
        generator: torch.Generator,
        *,
        trainable: bool = False,
        bias: bool = True,
        init: Init = "default",
    ) -> None:
        super().__init__()
        self.features: Tensor
        if trainable:
            self.features = nn.Parameter(torch.tensor(features))
        else:
            self.register_buffer("features", torch.from_numpy(features), persistent=False)
        self.projection = linear(features.shape[1], width, generator, bias=bias, init=init)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the projected rows, (len(ids), width)."""
        return self.projection(lookup(self.features, ids))

    def all(self) -> Tensor:
        """Return the projection of every row, (n, width)."""
        return self.projection(self.features)

    def margins(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """
        Return user . (projection of the positive - projection of the negative), (batch,).

        `users` are embeddings (batch, width), the others ids. The differences are projected, one row a triple; a bias
        cancels out, so the projection must have none.
        """
        return row_dot(users, self.projection(row_differences(self.features, positives, negatives)))


def dropout(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Zero entries with probability `rate` and scale the others by 1 / (1 - rate), with noise from the generator."""
    if rate == 0:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - rate, generator=generator)
    return x * keep.div_(1 - rate)


class FeaturesByModality(nn.ModuleDict):
    """The `Features` of several modalities, by name; the parameters are those of each of them."""

    def __init__(
        self,
        features: Mapping[str, FeatureMatrix],
        width: int,
        generator: torch.Generator,
        *,
        trainable: bool = False,
        bias: bool = True,
        init: Init = "default",
    ) -> None:
        super().__init__(
            {
                modality: Features(matrix, width, generator, trainable=trainable, bias=bias, init=init)
                for modality, matrix in features.items()
            }
        )

    def present(self) -> Iterable[tuple[str, Features]]:
        """Return name and features of each modality."""
        return cast(Iterable[tuple[str, Features]], self.items())


def row_dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner products of the rows of two (n, d) matrices, (n,), over the columns of all processes."""
    return total((x * y).sum(dim=1))


def bpr_loss(margins: Tensor) -> Tensor:
    """
    Return -mean log sigma(s+ - s-) for margins s+ - s-, (batch,) (Rendle et al. 2009, eq. 4).

    Some published programs add 1e-10 inside the logarithm, which ends the gradient at margins below about -20.
    """
    return functional.softplus(-margins).mean()


def sampled_softmax(
    users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None, temperature: float
) -> Tensor:
    r"""
    Return the cross-entropy of each positive among itself and the shared negatives (Jean et al. 2015), (batch,).

    .. math:: -\log \frac{e^{u \cdot i / \tau}}{e^{u \cdot i / \tau} + \sum_{j} e^{u \cdot j / \tau}}

    with j over the negatives that are not barred. With one negative and :math:`\tau = 1` it is the loss of BPR.

    Parameters
    ----------
    users, positives
        (batch, d).
    negatives
        (n, d), common to the batch.
    barred
        (batch, n) bool, the negatives that count for nothing; None bars none.
    temperature
        :math:`\tau`.
    """
    against = total(users @ negatives.T)
    if barred is not None:
        against = against.masked_fill(barred, -torch.inf)
    logits = torch.cat([row_dot(users, positives)[:, None], against], dim=1) / temperature
    return torch.logsumexp(logits, dim=1) - logits[:, 0]


def frobenius_penalty(*matrices: Tensor, n_rows: int) -> Tensor:
    """Return the sum of the un-squared Frobenius norms over a number of rows (Reg-F)."""
    return norms(*matrices).sum() / n_rows


def squared_penalty(*matrices: Tensor, batch_size: int) -> Tensor:
    """Return half the sum of squares over the training's batch size, also on a shorter batch (Reg-2)."""
    return total(torch.stack([matrix.square().sum() for matrix in matrices]).sum()) / (2 * batch_size)


def info_nce(anchors: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """
    Return the in-batch contrastive loss of normalised rows, from anchors to targets only (van den Oord et al. 2018).

    Both are (batch, d); row b of `targets` is the positive of row b of `anchors`, duplicates are not masked.
    """
    logits = functional.normalize(anchors) @ functional.normalize(targets).T / temperature
    return functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
