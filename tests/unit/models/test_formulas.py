"""Each model's embeddings and loss against its formula in dense matrices."""

from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from recmodels.models.base import Batch, Model
from recmodels.models.inputs import TrainingData
from recmodels.models.layers import dimension_transport
from recmodels.models.registry import MODELS, build_model, resolve_config

WIDTH = 8
UNIFORM = np.full(WIDTH, 1 / WIDTH)
K = 4
WITHOUT_RANKING = {"slmrec", "bm3", "timemm", "bridge"}


@pytest.fixture(scope="module")
def data(checkerboard) -> TrainingData:
    return checkerboard.data()


@pytest.fixture(scope="module")
def batch(data: TrainingData) -> tuple[Tensor, Tensor, Tensor]:
    users, positives = (torch.from_numpy(ids[::5].copy()) for ids in data.train_pairs)
    return users, positives, torch.randint(data.n_items, users.shape, generator=torch.Generator().manual_seed(3))


def build(name: str, data: TrainingData, **settings: Any) -> Model:
    """A model with a generator for its noise, as at the start of an epoch."""
    # The published batch size, by which some penalties are divided: one that is named does not follow the data.
    settings = {"embedding_size": WIDTH, **settings}
    settings["training"] = {"batch_size": 2048, **settings.get("training", {})}
    model = build_model(name, resolve_config(name, settings), data, 0)
    model.on_epoch_start(0, torch.Generator().manual_seed(0))
    return model


def normalised_adjacency(data: TrainingData) -> Tensor:
    n = data.n_users + data.n_items
    a = torch.zeros(n, n)
    a[data.train_users, data.n_users + data.train_items] = 1
    a = a + a.T
    scale = a.sum(dim=1).clamp_min(1e-7).rsqrt()
    return scale[:, None] * a * scale


def mean_of_layers(a: Tensor, x: Tensor, n_layers: int) -> Tensor:
    layers = [x]
    for _ in range(n_layers):
        layers.append(a @ layers[-1])
    return torch.stack(layers).mean(dim=0)


def neighbours(features: np.ndarray, *, cosine: bool) -> Tensor:
    unit = functional.normalize(torch.from_numpy(features))
    similarity = unit @ unit.T
    weights = torch.zeros_like(similarity)
    nearest = similarity.topk(K, dim=1)
    weights.scatter_(1, nearest.indices, nearest.values if cosine else torch.ones_like(nearest.values))
    scale = weights.sum(dim=1).rsqrt()
    return scale[:, None] * weights * scale


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    return -torch.log(torch.sigmoid(((positive - negative) * user).sum(dim=1))).mean()


@pytest.mark.parametrize(
    "name", [name for name, spec in MODELS.items() if not spec.closed_form and name not in WITHOUT_RANKING]
)
def test_the_sampled_softmax_is_that_of_the_final_embeddings(name: str, data, batch) -> None:
    fields = type(resolve_config(name)).model_fields
    settings: dict[str, Any] = {key: value for key, value in (("neighbours", K), ("edge_drop", 0.0)) if key in fields}
    training = {"loss": "sampled_softmax", "temperature": 0.5, "restricted_negatives": False}
    model = build(name, data, **settings, training=training).eval()
    users, items = model.embeddings()
    u, i, j = batch
    negatives = j[:9]
    barred = torch.rand(len(u), 9, generator=torch.Generator().manual_seed(1)) < 0.3
    scores = users[u] @ items.T / 0.5
    powers = (scores[:, negatives].exp() * ~barred).sum(dim=1)
    own = scores[torch.arange(len(u)), i]
    losses = torch.log(own.exp() + powers) - own
    # LayerGCN's losses are sums over the batch.
    expected = losses.sum() if name == "layergcn" else losses.mean()
    parts = model.loss(Batch(u, i, negatives, barred))
    torch.testing.assert_close(parts["sampled_softmax"], expected, atol=1e-4, rtol=1e-4)
    if name in ("freedom", "blast"):
        features = model.features["text"].all()
        scores = users[u] @ features.T / 0.5
        powers = (scores[:, negatives].exp() * ~barred).sum(dim=1)
        own = scores[torch.arange(len(u)), i]
        close(parts["text"], 1e-3 * (torch.log(own.exp() + powers) - own).mean())


def test_the_penalty_under_the_sampled_softmax_is_by_the_batch(data, batch) -> None:
    model = build("lightgcn", data, regularisation=0.5, training={"loss": "sampled_softmax"})
    u, i, j = batch
    ids = model.nodes.split([data.n_users, data.n_items])
    expected = 0.5 * (ids[0][u].norm() + ids[1][i].norm() + ids[1][j[:9]].norm()) / len(u)
    close(model.loss(Batch(u, i, j[:9]))["penalty"], expected)


def test_lightgcn_is_the_mean_of_the_layers(data, batch) -> None:
    model = build("lightgcn", data, n_layers=3, regularisation=0.5)
    expected = mean_of_layers(normalised_adjacency(data), model.nodes, 3)
    users, items = expected.split([data.n_users, data.n_items])
    for found, reference in zip(model.embeddings(), (users, items), strict=True):
        close(found, reference)
    u, i, j = batch
    parts = model.loss(Batch(*batch))
    close(parts["bpr"], bpr(users[u], items[i], items[j]))
    ids = model.nodes.split([data.n_users, data.n_items])
    close(parts["penalty"], 0.5 * (ids[0][u].norm() + ids[1][i].norm() + ids[1][j].norm()) / len(u))


def test_layergcn_scales_each_layer_by_its_cosine_with_the_ids(data, batch) -> None:
    model = build("layergcn", data, n_layers=3, edge_drop=0.0, regularisation=0.5)
    a, layer, layers = normalised_adjacency(data), model.nodes, []
    for _ in range(3):
        layer = a @ layer
        layer = functional.cosine_similarity(layer, model.nodes, dim=1)[:, None] * layer
        layers.append(layer)
    expected = torch.stack(layers).sum(dim=0)
    close(torch.cat(model.embeddings()), expected)
    users, items = expected.split([data.n_users, data.n_items])
    u, i, j = batch
    ids = model.nodes.split([data.n_users, data.n_items])
    squares = sum(x.square().sum() for x in (ids[0][u], ids[1][i], ids[1][j]))
    loss = len(u) * bpr(users[u], items[i], items[j]) + 0.25 * squares
    found = sum(model.loss(Batch(*batch)).values())
    close(found, loss)
    close(*(torch.autograd.grad(value, model.nodes)[0] for value in (found, loss)))


def test_layergcn_with_one_layer_points_like_one_product_with_the_adjacency(data) -> None:
    model = build("layergcn", data, n_layers=1)
    product = normalised_adjacency(data) @ model.nodes
    cosines = functional.cosine_similarity(product, model.nodes, dim=1)
    close(torch.cat(model.embeddings()) / cosines[:, None], product)


def test_layergcn_drops_edges_by_degree_in_even_epochs_and_uniformly_in_odd_ones(data, monkeypatch) -> None:
    model = build("layergcn", data, edge_drop=0.2)
    drawn = []
    monkeypatch.setattr(
        model.graph, "edge_drop", lambda ratio, generator, *, weighting: drawn.append((ratio, weighting))
    )
    for epoch in range(3):
        model.on_epoch_start(epoch, torch.Generator())
    assert drawn == [(0.2, "degree"), (0.2, "uniform"), (0.2, "degree")]


def test_vbpr_joins_ids_with_projected_features(data, batch) -> None:
    model = build("vbpr", data, regularisation=0.5)
    features = torch.from_numpy(np.concatenate([data.item_image_features, data.item_text_features], axis=1))
    layer = model.features.projection
    items = torch.cat([model.items, features @ layer.weight.T + layer.bias], dim=1)
    close(model.embeddings()[1], items)
    u, i, j = batch
    norms = sum(x.norm() for x in (model.users[u], items[i], items[j]))
    close(sum(model.loss(Batch(*batch)).values()), bpr(model.users[u], items[i], items[j]) + 0.5 * norms / len(u))


def test_lattice_mixes_fixed_and_learned_graphs(data, batch) -> None:
    model = build("lattice", data, neighbours=K, regularisation=0.5)
    with torch.no_grad():
        model.shares.copy_(torch.tensor([0.3, -0.4]))
    ids = model.nodes[data.n_users :]
    shares = model.shares.softmax(0)
    fixed, learned = torch.zeros(data.n_items, data.n_items), torch.zeros(data.n_items, data.n_items)
    for share, matrix, (_, features) in zip(shares, data.item_features.values(), model.features.present(), strict=True):
        fixed = fixed + share * neighbours(matrix, cosine=True)
        unit = functional.normalize(features.all())
        similarity = unit @ unit.T
        nearest = torch.zeros_like(similarity).scatter(1, similarity.topk(K, dim=1).indices, 1.0)
        learned = learned + share * similarity * nearest
    scale = learned.sum(dim=1).rsqrt()
    s = 0.9 * fixed + 0.1 * scale[:, None] * learned * scale
    a = normalised_adjacency(data)
    loops = (a > 0).float() + torch.eye(len(a))
    mean = mean_of_layers(loops / loops.sum(dim=1, keepdim=True), model.nodes, 2)
    users, items = mean.split([data.n_users, data.n_items])
    items = items + functional.normalize(s @ ids)
    for found, reference in zip(model.embeddings(), (users, items), strict=True):
        close(found, reference)
    u, i, j = batch
    squares = sum(x.square().sum() for x in (users[u], items[i], items[j])) / (2 * 2048)
    expected = bpr(users[u], items[i], items[j]) + 0.5 * squares
    first = sum(model.loss(Batch(*batch)).values())
    close(first, expected)
    variables = [model.nodes, model.shares, *model.features.parameters()]
    gradients = torch.autograd.grad(first, variables, retain_graph=True)
    for found, reference in zip(gradients, torch.autograd.grad(expected, variables), strict=True):
        torch.testing.assert_close(found, reference, atol=1e-6, rtol=1e-3)
    later = sum(model.loss(Batch(*batch)).values())
    close(later, first)
    unused = torch.autograd.grad(later, variables, allow_unused=True)
    assert unused[0] is not None
    assert all(gradient is None for gradient in unused[1:])


def test_slmrec_contrasts_fused_views_and_views_with_each_other(data, batch) -> None:
    model = build("slmrec", data)
    a = normalised_adjacency(data)
    users = model.nodes[: data.n_users]
    views = [mean_of_layers(a, model.nodes, 3)]
    for (_, features), matrix in zip(model.features.present(), data.item_features.values(), strict=True):
        close(features.features, functional.normalize(torch.from_numpy(matrix)))
        views.append(mean_of_layers(a, torch.cat([users, features.all()]), 3))
    joined = torch.cat(views, dim=1)
    all_users = model.fuse_users(joined[: data.n_users])
    all_items = model.fuse_items(joined[data.n_users :])
    for found, reference in zip(model.embeddings(), (all_users, all_items), strict=True):
        close(found, reference)
    u, i, _ = batch
    targets = torch.arange(len(u))

    def cross_entropy(p: Tensor, q: Tensor, temperature: float) -> Tensor:
        return functional.cross_entropy(p @ q.T / temperature, targets)

    identity, image, text = (view[data.n_users :][i] for view in views)
    first = model.steps[0](identity)
    second = model.exits[1](model.steps[1](first))
    assert second.shape[1] == WIDTH // 2
    expected = cross_entropy(functional.normalize(all_users[u]), functional.normalize(all_items[i]), 0.2)
    expected = expected + 0.1 * cross_entropy(first, model.heads[0](image), 0.2)
    expected = expected + 0.1 * cross_entropy(second, model.heads[1](text), 0.2)
    close(sum(model.loss(Batch(u, i, u[:0])).values()), expected)


@pytest.mark.parametrize(("initialisation", "gain"), [("xavier_uniform", 6), ("default", 1)])
def test_slmrec_starts_from_the_published_values_unless_told_otherwise(data, initialisation: str, gain: int) -> None:
    model = build("slmrec", data, embedding_size=64, **({} if gain == 6 else {"initialisation": initialisation}))
    layers = [model.fuse_users, model.fuse_items, *model.steps, model.exits[1], *model.heads]
    for layer in layers:
        n_out, n_in = layer.weight.shape
        bound = (gain / (n_in + n_out)) ** 0.5 if gain == 6 else n_in**-0.5
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert layer.bias.abs().max().item() == pytest.approx(n_in**-0.5, rel=0.2)


def test_bm3_sums_the_disagreements_of_predictions_with_targets(data, batch) -> None:
    model = build("bm3", data, n_layers=2, dropout=0.0, regularisation=0.5, modality_weight=3.0)
    users, items = mean_of_layers(normalised_adjacency(data), model.nodes, 2).split([data.n_users, data.n_items])
    items = items + model.nodes[data.n_users :]
    h = model.predictor
    for found, reference in zip(model.embeddings(), (h(users), h(items)), strict=True):
        close(found, reference)
    u, i, _ = batch

    def apart(x: Tensor, target: Tensor) -> Tensor:
        return (1 - functional.cosine_similarity(x, target.detach(), dim=1)).mean()

    expected = apart(h(users[u]), items[i]) + apart(h(items[i]), users[u])
    expected = expected + 0.5 * (users.norm() + items.norm()) / data.n_items
    for _, features in model.features.present():
        m = features.all()[i]
        expected = expected + 3.0 * (apart(h(m), items[i]) + apart(h(m), m))
    found = sum(model.loss(Batch(u, i, u[:0])).values())
    close(found, expected)
    close(*(torch.autograd.grad(value, model.nodes)[0] for value in (found, expected)))


def test_freedom_adds_item_neighbours_and_modality_losses(data, batch) -> None:
    model = build("freedom", data, neighbours=K, edge_drop=0.0, n_ii_layers=2, image_weight=0.3, modality_weight=0.5)
    s = 0.3 * neighbours(data.item_image_features, cosine=False)
    s = s + 0.7 * neighbours(data.item_text_features, cosine=False)
    users, items = mean_of_layers(normalised_adjacency(data), model.nodes, 2).split([data.n_users, data.n_items])
    items = items + s @ s @ model.nodes[data.n_users :]
    for found, reference in zip(model.embeddings(), (users, items), strict=True):
        close(found, reference)
    u, i, j = batch
    expected = bpr(users[u], items[i], items[j])
    for _, features in model.features.present():
        m = features.all()
        expected = expected + 0.5 * bpr(users[u], m[i], m[j])
    close(sum(model.loss(Batch(*batch)).values()), expected)


def test_blast_adds_user_neighbours_and_the_profile_loss(data, batch) -> None:
    settings = {"n_ui_layers": 3, "n_ii_layers": 1, "n_uu_layers": 2, "modality_weight": 0.5, "profile_weight": 0.25}
    model = build("blast", data, neighbours=K, edge_drop=0.0, **settings)
    s_items = 0.1 * neighbours(data.item_image_features, cosine=False)
    s_items = s_items + 0.9 * neighbours(data.item_text_features, cosine=False)
    s_users = neighbours(data.user_features, cosine=False)
    users, items = mean_of_layers(normalised_adjacency(data), model.nodes, 3).split([data.n_users, data.n_items])
    users = users + s_users @ s_users @ model.nodes[: data.n_users]
    items = items + s_items @ model.nodes[data.n_users :]
    for found, reference in zip(model.embeddings(), (users, items), strict=True):
        close(found, reference)
    u, i, j = batch
    expected = bpr(users[u], items[i], items[j])
    for _, features in model.features.present():
        m = features.all()
        expected = expected + 0.5 * bpr(users[u], m[i], m[j])
    expected = expected + 0.25 * bpr(model.profiles.all()[u], items[i], items[j])
    close(sum(model.loss(Batch(*batch)).values()), expected)


def test_the_weight_of_blasts_user_graph_is_one_unless_set_and_zero_gives_freedoms_scores(data) -> None:
    freedom = build("freedom", data, neighbours=K).embeddings()
    s_users = neighbours(data.user_features, cosine=False)
    for settings, weight in (({}, 1.0), ({"user_graph_weight": 0.3}, 0.3), ({"user_graph_weight": 0.0}, 0.0)):
        model = build("blast", data, neighbours=K, **settings)
        users, items = model.embeddings()
        close(users, freedom[0] + weight * s_users @ model.nodes[: data.n_users])
        assert torch.equal(items, freedom[1])
        if not weight:
            assert torch.equal(users, freedom[0])


@pytest.mark.parametrize("name", ["freedom", "blast"])
@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_modality_alone_has_the_whole_weight_of_the_item_graph(name: str, modality: str, checkerboard) -> None:
    other = "image" if modality == "text" else "text"
    data = checkerboard.data(f"item_{other}_embeddings", f"item_{other}_knn")
    settings = {"user_graph": False, "profile_weight": 0.0} if name == "blast" else {}
    model = build(name, data, neighbours=K, n_ii_layers=2, **settings)
    s = neighbours(data.item_features[modality], cosine=False)
    close(s.sum(dim=1), torch.ones(data.n_items))
    _, items = mean_of_layers(normalised_adjacency(data), model.nodes, 2).split([data.n_users, data.n_items])
    close(model.embeddings()[1], items + s @ s @ model.nodes[data.n_users :])


def test_blast_without_its_user_side_is_freedom_exactly(data, batch) -> None:
    blast = build("blast", data, neighbours=K, user_graph=False, profile_weight=0.0)
    freedom = build("freedom", data, neighbours=K)
    assert all(
        torch.equal(first, second)
        for first, second in zip(blast.state_dict().values(), freedom.state_dict().values(), strict=True)
    )
    assert {key: value.item() for key, value in blast.loss(Batch(*batch)).items()} == {
        key: value.item() for key, value in freedom.loss(Batch(*batch)).items()
    }
    for first, second in zip(blast.embeddings(), freedom.embeddings(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["freedom", "blast"])
def test_neighbour_tables_alone_are_enough_where_no_loss_reads_features(name: str, checkerboard) -> None:
    features = ("item_text_embeddings", "item_image_embeddings", "user_text_embeddings")
    alone = checkerboard.data(*features)
    settings = {"modality_weight": 0.0} | ({"profile_weight": 0.0} if name == "blast" else {})
    model = build(name, alone, neighbours=K, **settings)
    assert [key for key, _ in model.named_parameters()] == ["nodes"]


def test_mgcn_fuses_purified_modalities_with_content(data, batch) -> None:
    model = build("mgcn", data, neighbours=K, regularisation=0.5, contrast_weight=0.3)
    a = normalised_adjacency(data)
    content = mean_of_layers(a, model.nodes, 2)
    ids = model.nodes[data.n_users :]
    views = {}
    for modality, features in model.features.present():
        purified = ids * torch.sigmoid(model.purify[modality](features.all()))
        items = neighbours(data.item_features[modality], cosine=True) @ purified
        views[modality] = torch.cat([a[: data.n_users, data.n_users :] @ items, items])
    scores = torch.cat([model.attention(view) for view in views.values()], dim=1)
    shares = scores.softmax(dim=1)
    common = shares[:, :1] * views["image"] + shares[:, 1:] * views["text"]
    side = sum(torch.sigmoid(model.prefer[m](content)) * (view - common) for m, view in views.items())
    side = (side + common) / 3
    final = content + side
    close(torch.cat(model.embeddings()), final)
    u, i, j = batch
    users, items = final.split([data.n_users, data.n_items])

    def contrast(rows: Tensor) -> Tensor:
        logits = functional.normalize(side[rows]) @ functional.normalize(content[rows]).T / 0.2
        return functional.cross_entropy(logits, torch.arange(len(rows)))

    squares = sum(x.square().sum() for x in (users[u], items[i], items[j])) / (2 * 2048)
    expected = bpr(users[u], items[i], items[j]) + 0.5 * squares
    expected = expected + 0.3 * (contrast(i + data.n_users) + contrast(u))
    close(sum(model.loss(Batch(*batch)).values()), expected)


def info_nce(p: Tensor, q: Tensor, temperature: float) -> Tensor:
    logits = functional.normalize(p) @ functional.normalize(q).T / temperature
    return functional.cross_entropy(logits, torch.arange(len(p)))


def gume_graph(data: TrainingData) -> Tensor:
    """Users, items, and edges between items that are neighbours in both modalities, normalised by rows and columns."""
    n_users, n = data.n_users, data.n_users + data.n_items
    a = torch.zeros(n, n)
    a[data.train_users, n_users + data.train_items] = 1
    a = a + a.T
    both = torch.ones(data.n_items, data.n_items)
    for matrix in data.item_features.values():
        both = both * (neighbours(matrix, cosine=False) > 0)
    a[n_users:, n_users:] = both - torch.eye(data.n_items)
    scale = a.sum(dim=1).rsqrt()
    return scale[:, None] * a * scale


@pytest.mark.parametrize("features", [True, False])
def test_gume_joins_like_items_and_separates_modalities(data, batch, checkerboard, features: bool) -> None:
    weights = {"behaviour_weight": 0.7, "user_weight": 0.3, "alignment_weight": 0.9}
    weights |= {"regularisation": 0.5, "extended_regularisation": 0.4}
    given, settings = data, {"n_ii_layers": 2, **weights}
    if not features:
        given = checkerboard.data("item_text_embeddings", "item_image_embeddings")
        settings |= {"purify": False, "graph_weights": "binary"}
    model = build("gume", given, neighbours=K, **settings)
    n_users = data.n_users
    a = gume_graph(data)
    assert a[n_users:, n_users:].count_nonzero() > 0
    ids = model.nodes[n_users:]
    content = mean_of_layers(a, model.nodes, 3)
    explicit, extended = {}, []
    for modality, matrix in data.item_features.items():
        items = ids
        if features:
            items = ids * torch.sigmoid(model.gates[modality](model.features[modality].all()))
        s = neighbours(matrix, cosine=features)
        items = s @ s @ items
        explicit[modality] = torch.cat([a[:n_users, n_users:] @ items, items])
        extended.append(mean_of_layers(a, torch.cat([model.users[modality], items]), 3))
    wide = sum(extended) / 2
    image, text = explicit.values()
    shares = torch.cat([model.attention(image), model.attention(text)], dim=1).softmax(dim=1)
    common = shares[:, :1] * image + shares[:, 1:] * text
    side = common
    for m, view in explicit.items():
        side = side + torch.sigmoid(model.prefer[m](content)) * (view - common)
    side = side / 3
    final = content + side
    close(torch.cat(model.embeddings()), final)
    u, i, j = batch
    users, items = final.split([n_users, data.n_items])

    noise = torch.Generator().manual_seed(7)
    model.on_epoch_start(0, torch.Generator().manual_seed(7))

    def against_noise(view: Tensor) -> Tensor:
        present = u.unique()
        perturbed = []
        for _ in range(2):
            moved = torch.zeros_like(view)
            moved[present] = functional.normalize(torch.rand(len(present), WIDTH, generator=noise))
            perturbed.append((view + 0.1 * view.sign() * moved)[u])
        return info_nce(*perturbed, 0.1)

    squares = sum(x.square().sum() for x in (users[u], items[i], items[j])) / (2 * 2048)
    contrast = info_nce(side[u], content[u], 0.2) + info_nce(side[n_users + i], content[n_users + i], 0.2)
    of_users = info_nce(wide[u], side[u], 0.1) + against_noise(side) + against_noise(wide)
    expected = {
        "bpr": bpr(users[u], items[i], items[j]),
        "behaviour": 0.7 * contrast,
        "users": 0.3 * of_users,
        "penalty": 0.5 * squares + 0.4 * wide[n_users + i].square().sum() / (2 * 2048),
        "alignment": 0.9 * ((image.var() - text.var()).abs() + (image.mean() - text.mean()).abs()),
    }
    parts = model.loss(Batch(*batch))
    assert parts.keys() == expected.keys()
    for name, part in parts.items():
        close(part, expected[name])


def test_lgmrec_adds_modalities_and_hypergraphs(data, batch) -> None:
    settings = {"n_hyper_layers": 2, "n_hyperedges": 3, "global_weight": 0.7, "contrast_weight": 0.5}
    model = build("lgmrec", data, regularisation=0.5, **settings)
    # Without noise: the memberships' noise is that of training alone.
    model.eval()
    a = normalised_adjacency(data)
    r = (a[: data.n_users, data.n_users :] > 0).float()
    content = mean_of_layers(a, model.nodes, 2)
    local, hyper = content, []
    for modality, matrix in data.item_features.items():
        x = torch.from_numpy(matrix)
        items = x @ model.projections[modality]
        f = torch.cat([r @ items / r.sum(dim=1, keepdim=True), items])
        local = local + functional.normalize(a @ a @ f)
        q = x @ model.hyperedges[modality]
        q_items, q_users = ((logits / 0.2).softmax(dim=1) for logits in (q, r @ q))
        items = content[data.n_users :]
        for _ in range(2):
            edges = q_items.T @ items
            items = q_items @ edges
        hyper.append((q_users @ edges, items))
    both = torch.cat([hyper[0][0] + hyper[1][0], hyper[0][1] + hyper[1][1]])
    final = local + 0.7 * functional.normalize(both)
    close(torch.cat(model.embeddings()), final)
    u, i, j = batch
    users, items = final.split([data.n_users, data.n_items])
    expected = bpr(users[u], items[i], items[j])
    expected = expected + 0.5 * (users[u].norm() + items[i].norm() + items[j].norm()) / len(u)
    for side, ids in ((0, u), (1, i)):
        first, second = (functional.normalize(view[side]) for view in hyper)
        similarity = torch.exp(first @ second.T / 0.2)
        expected = expected - 0.5 * torch.log(similarity[ids, ids] / similarity[ids].sum(dim=1)).sum()
    close(sum(model.loss(Batch(*batch)).values()), expected)


def channels_of(model: Model, data: TrainingData) -> dict[str, Tensor]:
    """Layer 0 of each channel of TimeMM and BRIDGE, from the parameters."""
    channels, inputs = model.channels, {}
    users = channels.users.split(WIDTH, dim=1)
    for position, name in enumerate(("id", "image", "text")):
        if name == "id":
            items = channels.ids
        else:
            first, last = channels.features[name].projection, channels.outputs[name]
            x = torch.from_numpy(data.item_features[name])
            hidden = x @ first.weight.T + first.bias
            items = torch.where(hidden > 0, hidden, 0.01 * hidden) @ last.weight.T + last.bias
        inputs[name] = functional.normalize(torch.cat([users[position], items]))
    return inputs


def item_neighbours(data: TrainingData) -> Tensor:
    s = 0.1 * neighbours(data.item_image_features, cosine=False)
    return s + 0.9 * neighbours(data.item_text_features, cosine=False)


def test_timemm_mixes_filters_of_several_time_scales(data, batch) -> None:
    weights = {"diversity_weight": 0.7, "entropy_weight": 0.3, "regularisation": 0.5}
    model = build("timemm", data, neighbours=K, **weights)
    n_users = data.n_users
    u, i, j = batch
    newest = np.zeros(n_users, np.int64)
    np.maximum.at(newest, data.train_users, data.train_times)
    age = torch.from_numpy(newest[data.train_users] - data.train_times).double()
    inputs = channels_of(model, data)
    filtered: dict[str, list[Tensor]] = {name: [] for name in inputs}
    for scale in (4, 6, 10):
        a = torch.zeros(n_users + data.n_items, n_users + data.n_items, dtype=torch.float64)
        a[data.train_users, n_users + data.train_items] = torch.exp(-torch.log1p(age) / scale).clamp(1e-3, 1)
        a = a + a.T
        root = a.sum(dim=1).clamp_min(1e-12).rsqrt()
        s = (root[:, None] * a * root).float()
        for name, x in inputs.items():
            filtered[name].append(x + s @ x + s @ s @ x)
    router = model.router
    hidden = torch.relu(model.routing_states @ router[0].weight.T + router[0].bias)
    route = (hidden @ router[2].weight.T + router[2].bias).softmax(dim=1)
    users, items = [], []
    for position, name in enumerate(inputs):
        gates = []
        for states, stem in (
            (model.user_states, model.user_stems[name]),
            (model.item_states, model.item_stems[name]),
        ):
            hidden = torch.relu(states @ stem.weight.T + stem.bias)
            head = model.heads[name]
            gates.append(((hidden @ head.weight.T + head.bias) / 0.7).softmax(dim=1))
        gate = torch.cat(gates)
        mixed = sum(gate[:, [k]] * filtered[name][k] for k in range(3))
        users.append(route[:, [position]] * mixed[:n_users])
        items.append(mixed[n_users:])
    all_users = torch.cat(users, dim=1) + model.channels.users
    all_items = torch.cat(items, dim=1)
    all_items = all_items + item_neighbours(data) @ all_items
    for found, reference in zip(model.embeddings(), (all_users, all_items), strict=True):
        close(found, reference)
    scores = torch.cat([(all_users[u] * all_items[i]).sum(dim=1), (all_users[u] * all_items[j]).sum(dim=1)])
    labels = torch.cat([torch.ones(len(u)), torch.zeros(len(u))])
    margins = []
    for k in range(3):
        nodes = torch.cat([views[k] for views in filtered.values()], dim=1)
        margins.append((nodes[u] * (nodes[n_users + i] - nodes[n_users + j])).sum(dim=1))
    rho = torch.corrcoef(torch.stack(margins))
    expected = {
        "bce": functional.binary_cross_entropy(torch.sigmoid(scores), labels),
        "diversity": 0.7 * (rho.square().sum() - 3) / 9,
        "entropy": 0.3 * -(route * route.log()).sum(dim=1).mean(),
        "penalty": 0.5 * (model.channels.users.square().mean() + model.channels.ids.square().mean()),
    }
    parts = model.loss(Batch(*batch))
    assert parts.keys() == expected.keys()
    for name, part in parts.items():
        close(part, expected[name])


def co_user_support(r: np.ndarray) -> np.ndarray:
    """How much every user's items speak for every item, from the dense 0/1 matrix of training pairs."""
    sizes = r.sum(axis=0)
    cosines = r.T @ r / np.sqrt(np.outer(sizes, sizes))
    np.fill_diagonal(cosines, 0)
    return r @ cosines / np.sqrt(r.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("evidence", ["leave_one_out", "published"])
def test_bridge_adds_co_user_evidence_to_its_best_items(data, batch, evidence: str) -> None:
    weights = {"strength": 0.6, "shortlist": 30, "base_weight": 0.3, "bottleneck_weight": 0.5, "frequency_weight": 0.7}
    model = build("bridge", data, neighbours=K, evidence=evidence, **weights)
    n_users = data.n_users
    a = normalised_adjacency(data)
    with torch.no_grad():
        for fusion in (model.fuse_users, model.fuse_items):
            fusion.weights.copy_(torch.tensor([1.0, 0.2, -0.5]))

    def parts(x: Tensor) -> list[Tensor]:
        u, s, v = torch.linalg.svd(x, full_matrices=False)
        return [u[:, run] * s[run] @ v[run] for run in (slice(0, 3), slice(3, 6), slice(6, 8))]

    inputs = channels_of(model, data)
    filtered = [x + a @ x + a @ a @ x for x in inputs.values()]
    users = [model.user_weights[:, [n]] * x[:n_users] for n, x in enumerate(filtered)]
    items = [x[n_users:] for x in filtered]
    s = item_neighbours(data)
    residuals = {"users": model.channels.users.split(WIDTH, dim=1), "items": [s @ x for x in items]}
    bands, fused, gates = {}, {}, {}
    for side, nodes, fusion in (("users", users, model.fuse_users), ("items", items, model.fuse_items)):
        pieces = [
            [p + q for p, q in zip(parts(x), parts(h), strict=True)]
            for x, h in zip(nodes, residuals[side], strict=True)
        ]
        bands[side] = [torch.cat([channel[m] for channel in pieces], dim=1) for m in range(3)]
        z = torch.cat(nodes, dim=1)
        gates[side] = 1 + 0.5 * torch.sigmoid(z @ fusion.gate.weight.T + fusion.gate.bias)
        omega = torch.sigmoid(fusion.weights)
        fused[side] = sum(omega[m] * gates[side][:, [m]] * bands[side][m] for m in range(3))
    for found, reference in zip(model.embeddings(), fused.values(), strict=True):
        close(found, reference)

    u, i, j = batch
    r = np.zeros((n_users, data.n_items))
    r[data.train_users, data.train_items] = 1
    # As when training: a negative is no training pair.
    j = torch.where(torch.from_numpy(r)[u, j] > 0, (j + 1) % data.n_items, j)
    assert not r[u.numpy(), j.numpy()].any()
    scores = fused["users"] @ fused["items"].T
    listed = torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(30, dim=1).indices, True)
    raw = co_user_support(r)
    support_mean, support_std = raw.mean(axis=1), raw.std(axis=1)
    everywhere = (raw - support_mean[:, None]) / support_std[:, None]
    of_positives = []
    for user, item in zip(u.tolist(), i.tolist(), strict=True):
        if evidence == "published":
            of_positives.append(everywhere[user, item])
            continue
        others = r.copy()
        others[user, item] = 0
        own = co_user_support(others)[user, item]
        of_positives.append((own - support_mean[user]) / support_std[user])
    liked = torch.tensor(of_positives).float() * listed[u, i]
    other = torch.from_numpy(everywhere[u.numpy(), j.numpy()]).float() * listed[u, j]
    assert 0 < listed[u, i].float().mean() < 1
    margins = scores[u, i] - scores[u, j]

    def log_loss(x: Tensor) -> Tensor:
        return -torch.log(torch.sigmoid(x)).mean()

    def likeness(side: str, ids: Tensor) -> Tensor:
        pairs = [(0, 1), (0, 2), (1, 2)]
        x = bands[side]
        return sum(functional.cosine_similarity(x[m][ids], x[n][ids]).square().mean() for m, n in pairs) / 3

    excess = [torch.relu(gate - 1) for gate in gates.values()]
    bottleneck = sum((d.norm(dim=1) ** 2 + d.norm(dim=1) * d.sum(dim=1)).mean() for d in excess)
    contrast = sum(info_nce(bands["users"][m][u], bands["items"][m][i], 1.0) for m in (1, 2)) / 2
    expected = {
        "bpr": log_loss(margins + 0.6 * (liked - other)),
        "base": 0.3 * log_loss(margins),
        "bottleneck": 0.5 * bottleneck,
        "frequency": 0.7 * (likeness("users", u) + likeness("items", i) + contrast),
    }
    found = model.loss(Batch(u, i, j))
    assert found.keys() == expected.keys()
    for name, part in found.items():
        close(part, expected[name])

    # The final ranking: evidence within the best 30, the others behind them.
    ranked, best = model.ranker().top_items(torch.arange(n_users), data.n_items)
    final = torch.where(listed, scores + 0.6 * torch.from_numpy(everywhere).float(), scores)
    close(best, final.gather(1, ranked))
    assert torch.equal(ranked[:, :30].sort().values, scores.topk(30, dim=1).indices.sort().values)
    assert (best[:, :29] >= best[:, 1:30]).all()


@pytest.mark.parametrize("cmcl", ["aligned", "released"])
@pytest.mark.parametrize("user_branch", ["attention", "initial", "none"])
def test_recgoat_fuses_attended_modalities_by_transport(data, batch, monkeypatch, cmcl: str, user_branch: str) -> None:
    # A wide epsilon, which POT's solver can follow to the last digit.
    monkeypatch.setattr(dimension_transport, "TOLERANCE", 1e-7)
    monkeypatch.setattr(dimension_transport, "EPSILON", 5.0)
    settings = {"neighbours": K, "contrast_weight": 0.3, "modality_share": 0.25, "regularisation": 0.5}
    model = build("recgoat", data, cmcl=cmcl, user_branch=user_branch, **settings)
    model.eval()
    nodes = model.nodes
    if user_branch == "initial":
        nodes = torch.cat([nodes[: data.n_users] + model.profiles.all(), nodes[data.n_users :]])
    users, ids = mean_of_layers(normalised_adjacency(data), nodes, 3).split([data.n_users, data.n_items])
    noise = torch.Generator()

    def attended(x: Tensor, layers: torch.nn.ModuleList) -> Tensor:
        return functional.leaky_relu(layers[0](x, noise), 0.2)

    if user_branch == "attention":
        users = users + attended(model.profiles.all(), model.profile_attention)
    views = {"id": ids} | {m: attended(f.all(), model.attention[m]) for m, f in model.features.present()}
    mixed = (1 - model.shares["image"] - model.shares["text"]) * ids
    for m in ("image", "text"):
        cost = 100 * (views[m][:, :, None] - ids[:, None, :]).square().mean(dim=0)
        assert model.shares[m].item() == pytest.approx({"image": 0.05, "text": 0.8}[m])
        plan = WIDTH * ot.bregman.sinkhorn_log(
            UNIFORM, UNIFORM, cost.detach().double().numpy(), 5.0, numItermax=10_000, stopThr=1e-9
        )
        barycentric = torch.from_numpy(plan).float()
        mixed = mixed + model.shares[m] * views[m] @ (barycentric + model.maps[m])
    items = functional.normalize(functional.layer_norm(mixed, (WIDTH,)))
    for found, reference in zip(model.embeddings(), (users, items), strict=True):
        torch.testing.assert_close(found, reference, atol=1e-4, rtol=1e-3)
    u, i, j = batch

    def contrast(p: Tensor, q: Tensor) -> Tensor:
        logits = functional.normalize(p) @ functional.normalize(q).T / 0.2
        return functional.cross_entropy(logits, torch.arange(len(p)))

    pairs = [("id", "image"), ("id", "text"), ("image", "text")]
    losses = [contrast(views[a][rows], views[b][rows]) for rows in (i, j) for a, b in pairs]
    between = sum(loss if cmcl == "aligned" else 1 - loss for loss in losses) / 6
    id_users, id_items = model.nodes.split([data.n_users, data.n_items])
    squares = sum(x.square().sum(dim=1) for x in (id_users[u], id_items[i], id_items[j])).mean()
    expected = bpr(users[u], items[i], items[j]) + 0.5 * squares
    expected = expected + 0.3 * (0.75 * contrast(users[u], items[i]) + 0.25 * between)
    torch.testing.assert_close(sum(model.loss(Batch(*batch)).values()), expected, atol=1e-4, rtol=1e-3)


def test_recgoat_puts_the_ids_in_the_place_of_an_absent_modality(checkerboard, batch) -> None:
    data = checkerboard.data("item_image_embeddings")
    model = build("recgoat", data, neighbours=K, oat="linear", modality_share=1.0, contrast_weight=1.0).eval()
    _, ids = mean_of_layers(normalised_adjacency(data), model.nodes, 3).split([data.n_users, data.n_items])
    noise = torch.Generator()
    text = functional.leaky_relu(model.attention["text"][0](model.features["text"].all(), noise), 0.2)
    mixed = 0.15 * ids + 0.05 * ids @ model.maps["image"] + 0.8 * text @ model.maps["text"]
    close(model.embeddings()[1], functional.normalize(functional.layer_norm(mixed, (WIDTH,))))
    _, i, j = batch

    def contrast(p: Tensor, q: Tensor) -> Tensor:
        logits = functional.normalize(p) @ functional.normalize(q).T / 0.2
        return functional.cross_entropy(logits, torch.arange(len(p)))

    pairs = [(ids, ids), (ids, text), (ids, text)]
    expected = sum(contrast(p[rows], q[rows]) for rows in (i, j) for p, q in pairs) / 6
    close(model.loss(Batch(*batch))["modalities"], expected)


def test_recgoat_solves_for_the_plan_once_an_epoch_or_once_a_batch(data, batch, monkeypatch) -> None:
    for refresh, solved in (("epoch", 2), ("batch", 6)):
        model = build("recgoat", data, neighbours=K, plan_refresh=refresh)
        calls = []
        plan = model._plan
        monkeypatch.setattr(
            model, "_plan", lambda *arguments, plan=plan, calls=calls: calls.append(1) or plan(*arguments)
        )
        for _ in range(3):
            model.loss(Batch(*batch))
        assert len(calls) == solved


def test_recgoats_released_plan_does_nothing_beside_the_linear_map(data) -> None:
    released, linear = (build("recgoat", data, neighbours=K, oat=oat).eval() for oat in ("released", "linear"))
    for first, second in zip(released.embeddings(), linear.embeddings(), strict=True):
        torch.testing.assert_close(first, second, atol=0.01, rtol=0)
