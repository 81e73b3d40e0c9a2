"""What the code server shows is complete, and starts without the heavy libraries."""

import subprocess
import sys

import dagster as dg
import pytest

from assets.support.stage import OWNERS
from assets.training import VARIANTS, checkpoint_key
from pipelines.definitions import build_definitions
from recmodels.models.registry import MODELS
from recmodels.schemas.tables import TABLES

GRAPH = build_definitions().resolve_asset_graph()
BOOKKEEPING = {"interactions", "users", "item_ids"}


@pytest.mark.parametrize("key", sorted(GRAPH.get_all_asset_keys()), ids=dg.AssetKey.to_user_string)
def test_every_asset_is_described_owned_versioned_and_checked(key: dg.AssetKey) -> None:
    node = GRAPH.get(key)
    assert len(node.description or "") > 20
    assert list(node.owners) == OWNERS
    assert node.group_name != "default"
    assert node.kinds
    assert node.code_version
    assert node.tags["job"] in {"prepare", "train", "tune", "evaluate", "study", "status"}
    assert GRAPH.get_check_keys_for_assets({key})


def test_every_table_is_held_to_a_declared_schema() -> None:
    checked = {key.asset_key for key in GRAPH.asset_check_keys if key.name == "schema"}
    assert {key.path[0] for key in checked} == TABLES.keys()
    unchecked = {key.path[0] for key in GRAPH.get_all_asset_keys() - checked}
    assert unchecked == {"raw_dumps", "checkpoint", "calibrated", "report"}


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_depends_on_exactly_what_its_model_reads(name: str) -> None:
    parents = {key.to_user_string() for key in GRAPH.get(checkpoint_key(name)).parent_keys}
    assert parents == BOOKKEEPING | MODELS[name].inputs


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_depends_on_exactly_what_it_reads_and_stands_with_the_others(name: str) -> None:
    spec, node = VARIANTS[name], GRAPH.get(checkpoint_key(name))
    parents = {key.to_user_string() for key in node.parent_keys}
    assert parents == BOOKKEEPING | {spec.source(table) for table in spec.inputs}
    below = {key.to_user_string() for key in node.child_keys if GRAPH.get(key).group_name == "variants"}
    made = {f"calibrated/{name}", f"metrics/{name}", f"user_metrics/{name}", f"recommendations/{name}"}
    assert below == (set() if spec.validation_only else made)
    assert node.group_name == "variants"


def test_nothing_of_a_sweep_is_measured_on_test_rows() -> None:
    names = {key.to_user_string() for key in GRAPH.get_all_asset_keys()}
    sweep = [name for name, spec in VARIANTS.items() if spec.validation_only]
    assert sweep
    assert not [name for name in names if name.startswith(("metrics", "user_metrics")) and name.endswith(tuple(sweep))]


def test_collaborative_models_wait_for_no_profile_and_no_plan() -> None:
    upstream = {dg.AssetKey("raw_dumps")}
    ancestors = GRAPH.get_ancestor_asset_keys(checkpoint_key("lightgcn"))
    assert upstream <= ancestors
    assert not ancestors & {dg.AssetKey("item_profiles"), dg.AssetKey("augmented_interactions")}


def test_the_code_server_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, pipelines.definitions; "
        "heavy = ('torch', 'faiss', 'transformers', 'sentence_transformers', 'ot', 'matplotlib', 'httpx', 'optuna'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"


def test_the_library_imports_without_dagster() -> None:
    code = (
        "import sys; sys.modules['dagster'] = None; "
        "import recmodels.training.run, recmodels.transport.augment; "
        "import recmodels.serving.recommender, recmodels.reporting.build"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
