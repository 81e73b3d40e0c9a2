"""The jobs: one for each partition definition that takes part in a full run, because one job cannot mix them."""

from collections.abc import Sequence

import dagster as dg

from assets.evaluation import metrics_key, user_metrics_key
from assets.recommendations import recommendations_key
from assets.support.dagster_internals import AssetJob
from assets.support.stage import JOB, STUDY_JOB
from assets.training import TRAINED, checkpoint_key
from recmodels.calibration.config import CALIBRATED
from recmodels.models.registry import NON_PERSONALISED


def _job(name: str, description: str) -> AssetJob:
    return dg.define_asset_job(name, selection=dg.AssetSelection.tag(JOB, name), description=description)


prepare = _job("prepare", "From the raw files of a data set to graphs and the augmented training set.")
train = _job("train", "Checkpoints, test metrics and recommendations of the models, for one data set and seed.")
evaluate = _job("evaluate", "Leaderboard over all seeds, and the report.")
tune = _job("tune", "The search for the best settings of models, on the validation rows of one data set.")
study = _job(STUDY_JOB, "What variants read beside what models read, and the tables of studies, for one data set.")
status = _job("status", "What of all data sets is stale, failed or missing, and why.")

ALL_JOBS = (prepare, train, tune, evaluate, study, status)


def assets_of_models(models: Sequence[str]) -> list[dg.AssetKey]:
    """
    Return what the job `train` makes for some models and for the baselines that every model is compared with.

    A calibrated form brings the checkpoint that it is made from; a variant that is for validation rows alone brings no
    more than its checkpoint.
    """
    trained = dict.fromkeys(name for model in models for name in (model.removeprefix(CALIBRATED), model))
    tested = [name for name in models if name not in TRAINED or not TRAINED[name].validation_only]
    scored = [*tested, *NON_PERSONALISED]
    return [
        *map(checkpoint_key, trained),
        *map(recommendations_key, tested),
        *(make(name) for name in scored for make in (metrics_key, user_metrics_key)),
    ]
