"""Graphs of similar items from the neighbour tables of the modalities: one each, or fused into one."""

from collections.abc import Mapping
from typing import Literal

import polars as pl
import torch

from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.neighbour_graphs import fuse, k_bin, k_cos
from recmodels.models.config import FusedGraphConfig


def item_graphs(
    tables: Mapping[str, pl.DataFrame],
    n_items: int,
    neighbours: int,
    device: torch.device,
    weights: Literal["cosine", "binary"] = "cosine",
) -> dict[str, Adjacency]:
    """Return a normalised graph (n_items, n_items) a modality, its edges weighed by similarity or all alike."""
    build = k_cos if weights == "cosine" else k_bin
    return {modality: build(table, n_items, neighbours).to(device) for modality, table in tables.items()}


def fused_item_graph(tables: Mapping[str, pl.DataFrame], n_items: int, config: FusedGraphConfig) -> Adjacency:
    """Return the weighted sum of the graphs of the modalities, their edges all alike."""
    graphs = {modality: k_bin(table, n_items, config.neighbours) for modality, table in tables.items()}
    return fuse(graphs, {"image": config.image_weight, "text": 1 - config.image_weight})
