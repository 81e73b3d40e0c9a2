"""The jobs: one for each partition definition that takes part in a full run, because one job cannot mix them."""

from collections.abc import Sequence

import dagster as dg

from assets.evaluation import metrics_key, user_metrics_key
from assets.recommendations import recommendations_key
from assets.training import checkpoint_key
from recmodels.models.registry import FLOORS

PREPARE_GROUPS = ("raw", "interactions", "profiles", "embeddings", "graphs", "transport")

prepare = dg.define_asset_job(
    "prepare",
    selection=dg.AssetSelection.groups(*PREPARE_GROUPS),
    description="From the raw files of a data set to graphs and the augmented training set.",
)

train = dg.define_asset_job(
    "train",
    selection=dg.AssetSelection.groups("training", "evaluation", "serving") - dg.AssetSelection.assets("leaderboard"),
    description="Checkpoints, test metrics and recommendations of the models, for one data set and seed.",
)

evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets("leaderboard", "report"),
    description="Leaderboard over all seeds, and the report.",
)

status = dg.define_asset_job(
    "status",
    selection=dg.AssetSelection.assets("pipeline_status"),
    description="What of all data sets is stale, failed or missing, and why.",
)

ALL_JOBS = (prepare, train, evaluate, status)


def assets_of_models(models: Sequence[str]) -> list[dg.AssetKey]:
    """Return what the job `train` makes for some models and for the floors they are compared with."""
    keys = [make(model) for model in models for make in (checkpoint_key, recommendations_key)]
    return keys + [make(name) for name in [*models, *FLOORS] for make in (metrics_key, user_metrics_key)]
