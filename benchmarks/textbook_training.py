"""Training and evaluation as textbooks and common frameworks write them: the baseline of `benchmarks/training.py`."""

import math
import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recmodels.graphs.neighbour_graphs import fuse, k_bin
from recmodels.models.inputs import TrainingData

WIDTH = 64
BATCH_SIZE = 2048


def coo_adjacency(users: np.ndarray, items: np.ndarray, data: TrainingData) -> Tensor:
    """Symmetrically normalised adjacency as a COO tensor, which autograd transposes in every backward pass."""
    n = data.n_users + data.n_items
    rows = np.concatenate([users, items + data.n_users])
    columns = np.concatenate([items + data.n_users, users])
    degrees = np.bincount(rows, minlength=n) + 1e-7
    values = degrees[rows] ** -0.5 * degrees[columns] ** -0.5
    indices = torch.from_numpy(np.stack([rows, columns]))
    return torch.sparse_coo_tensor(indices, torch.from_numpy(values).float(), (n, n)).coalesce()


def dropped_adjacency(data: TrainingData, ratio: float) -> Tensor:
    users, items = data.train_pairs
    weights = np.bincount(users)[users] ** -0.5 * np.bincount(items)[items] ** -0.5
    kept = torch.multinomial(torch.from_numpy(weights), int((1 - ratio) * len(users))).numpy()
    return coo_adjacency(users[kept], items[kept], data)


def as_coo(graph) -> Tensor:
    matrix = graph.to_scipy().tocoo()
    return torch.sparse_coo_tensor(np.stack([matrix.row, matrix.col]), matrix.data, matrix.shape).coalesce()


class Textbook(nn.Module):
    """User and item tables and the propagation over a COO adjacency."""

    n_layers = 2

    def __init__(self, data: TrainingData) -> None:
        super().__init__()
        self.data = data
        self.users = nn.Embedding(data.n_users, WIDTH)
        self.items = nn.Embedding(data.n_items, WIDTH)
        nn.init.xavier_uniform_(self.users.weight)
        nn.init.xavier_uniform_(self.items.weight)
        self.adjacency = coo_adjacency(*data.train_pairs, data)

    def start_epoch(self) -> None:
        pass

    def on(self, device: str) -> "Textbook":
        """Move everything that a batch reads to a device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self.to(device)

    def propagated(self) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.users.weight, self.items.weight])
        layers = [x]
        for _ in range(self.n_layers):
            x = torch.sparse.mm(self.adjacency, x)
            layers.append(x)
        mean = torch.stack(layers, dim=1).mean(dim=1)
        users, items = torch.split(mean, [self.data.n_users, self.data.n_items])
        return users, items

    def ranking_loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        return -functional.logsigmoid((users * positives).sum(dim=1) - (users * negatives).sum(dim=1)).mean()


class LightGCN(Textbook):
    n_layers = 3

    def loss(self, u: Tensor, i: Tensor, j: Tensor) -> Tensor:
        users, items = self.propagated()
        norms = self.users(u).norm() + self.items(i).norm() + self.items(j).norm()
        return self.ranking_loss(users[u], items[i], items[j]) + 1e-4 * norms / len(u)


class LayerGCN(Textbook):
    n_layers = 4

    def start_epoch(self) -> None:
        self.adjacency = dropped_adjacency(self.data, 0.1)

    def propagated(self) -> tuple[Tensor, Tensor]:
        x = ego = torch.cat([self.users.weight, self.items.weight])
        layers = []
        for _ in range(self.n_layers):
            x = torch.sparse.mm(self.adjacency, x)
            x = torch.einsum("a,ab->ab", functional.cosine_similarity(x, ego, dim=-1), x)
            layers.append(x)
        total = torch.stack(layers, dim=1).sum(dim=1)
        users, items = torch.split(total, [self.data.n_users, self.data.n_items])
        return users, items

    def loss(self, u: Tensor, i: Tensor, j: Tensor) -> Tensor:
        users, items = self.propagated()
        squares = self.users(u).square().sum() + self.items(i).square().sum() + self.items(j).square().sum()
        return len(u) * self.ranking_loss(users[u], items[i], items[j]) + 5e-4 * squares


class WithFeatures(Textbook):
    """Trainable copies of the raw features, projected for every item in every batch."""

    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        self.features = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        for modality, matrix in data.item_features.items():
            self.features[modality] = nn.Embedding.from_pretrained(torch.tensor(matrix), freeze=False)
            self.projections[modality] = nn.Linear(matrix.shape[1], WIDTH)

    def projected(self, modality: str) -> Tensor:
        return self.projections[modality](self.features[modality].weight)


class BM3(WithFeatures):
    n_layers = 1

    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        self.predictor = nn.Linear(WIDTH, WIDTH)

    def loss(self, u: Tensor, i: Tensor, j: Tensor) -> Tensor:
        users, items = self.propagated()
        items = items + self.items.weight
        with torch.no_grad():
            user_targets, item_targets = functional.dropout(users.clone(), 0.5), functional.dropout(items.clone(), 0.5)
        h_users, h_items = self.predictor(users), self.predictor(items)

        def apart(x: Tensor, target: Tensor) -> Tensor:
            return 1 - functional.cosine_similarity(x, target.detach(), dim=-1).mean()

        loss = apart(h_users[u], item_targets[i]) + apart(h_items[i], user_targets[u])
        for modality in self.features:
            view = self.projected(modality)
            with torch.no_grad():
                targets = functional.dropout(view.clone(), 0.5)
            h_view = self.predictor(view)
            loss = loss + 2 * (apart(h_view[i], item_targets[i]) + apart(h_view[i], targets[i]))
        return loss + 0.1 * (users.norm() + items.norm()) / self.data.n_items


class FREEDOM(WithFeatures):
    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        graphs = {modality: k_bin(table, data.n_items) for modality, table in data.item_knn.items()}
        self.item_graph = as_coo(fuse(graphs, {"image": 0.1, "text": 0.9}))

    def start_epoch(self) -> None:
        self.adjacency = dropped_adjacency(self.data, 0.8)

    def embedded(self) -> tuple[Tensor, Tensor]:
        users, items = self.propagated()
        return users, items + torch.sparse.mm(self.item_graph, self.items.weight)

    def loss(self, u: Tensor, i: Tensor, j: Tensor) -> Tensor:
        users, items = self.embedded()
        loss = self.ranking_loss(users[u], items[i], items[j])
        for modality in self.features:
            view = self.projected(modality)
            loss = loss + 1e-3 * self.ranking_loss(users[u], view[i], view[j])
        return loss + self.further_loss(u, items[i], items[j])

    def further_loss(self, u: Tensor, positives: Tensor, negatives: Tensor) -> Tensor | float:
        return 0.0


class BLAST(FREEDOM):
    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        self.user_graph = as_coo(k_bin(data.user_knn, data.n_users))
        self.profiles = nn.Embedding.from_pretrained(torch.tensor(data.user_features), freeze=False)
        self.profile_projection = nn.Linear(data.user_features.shape[1], WIDTH)

    def embedded(self) -> tuple[Tensor, Tensor]:
        users, items = super().embedded()
        return users + torch.sparse.mm(self.user_graph, self.users.weight), items

    def further_loss(self, u: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        profiles = self.profile_projection(self.profiles.weight)
        return 1e-3 * self.ranking_loss(profiles[u], positives, negatives)


MODELS = {"lightgcn": LightGCN, "layergcn": LayerGCN, "bm3": BM3, "freedom": FREEDOM, "blast": BLAST}


def train_epoch(model: Textbook, optimiser: torch.optim.Optimizer, rng: random.Random) -> None:
    """One epoch over all pairs; every negative is drawn by a loop until it is none of the user's items."""
    data = model.data
    users, items = data.train_pairs
    seen: list[set[int]] = [set() for _ in range(data.n_users)]
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        seen[user].add(item)
    choices = sorted(set(items.tolist()))
    model.start_epoch()
    device = model.users.weight.device
    model.on(device.type)
    order = np.random.default_rng(rng.getrandbits(32)).permutation(len(users))
    for batch in range(math.ceil(len(order) / BATCH_SIZE)):
        chosen = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
        negatives = []
        for user in users[chosen].tolist():
            item = rng.choice(choices)
            while item in seen[user]:
                item = rng.choice(choices)
            negatives.append(item)
        optimiser.zero_grad()
        batch = torch.from_numpy(users[chosen]), torch.from_numpy(items[chosen]), torch.tensor(negatives)
        model.loss(*(ids.to(device) for ids in batch)).backward()
        optimiser.step()


def evaluate(
    users: Tensor, items: Tensor, train: tuple[np.ndarray, np.ndarray], held_out: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Recall and NDCG at 10 and 20: scores by batches of users, metrics user by user."""
    seen: dict[int, list[int]] = {}
    wanted: dict[int, set[int]] = {}
    for user, item in zip(*(ids.tolist() for ids in train), strict=True):
        seen.setdefault(user, []).append(item)
    for user, item in zip(*(ids.tolist() for ids in held_out), strict=True):
        wanted.setdefault(user, set()).add(item)
    totals: dict[str, float] = {}
    everyone = sorted(wanted)
    for start in range(0, len(everyone), BATCH_SIZE):
        block = everyone[start : start + BATCH_SIZE]
        scores = users[block] @ items.T
        for row, user in enumerate(block):
            scores[row, seen.get(user, [])] = -1e10
        for user, top in zip(block, scores.topk(20, dim=1).indices.tolist(), strict=True):
            relevant = wanted[user]
            for k in (10, 20):
                hits = [1 if item in relevant else 0 for item in top[:k]]
                gain = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(hits))
                ideal = sum(1 / math.log2(rank + 2) for rank in range(min(len(relevant), k)))
                totals[f"recall@{k}"] = totals.get(f"recall@{k}", 0.0) + sum(hits) / len(relevant)
                totals[f"ndcg@{k}"] = totals.get(f"ndcg@{k}", 0.0) + gain / ideal
    return {name: total / len(everyone) for name, total in totals.items()}
