"""
Weights of published models: fetched from the Hugging Face hub at one commit, read as safetensors only, and digested.

What is done with the weights stays with those who load them.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

from recmodels.errors import InputError
from recmodels.io.files import file_digest

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLE = "pytorch_model.bin"


def is_commit(text: str) -> bool:
    """Tell whether a text names a commit in full: a branch or a tag may move."""
    return bool(_COMMIT.fullmatch(text))


def fetch_model(name: str, commit: str, patterns: Sequence[str]) -> Path:
    """
    Return the directory with a hub model's files at a commit, fetched if it is not on this machine yet.

    A commit without safetensors has its ``pytorch_model.bin`` read once by PyTorch's weights-only unpickler, which
    builds nothing but tensors, and kept as safetensors.

    Parameters
    ----------
    name
        Owner and name, as in ``facebook/contriever``.
    commit
        40 hexadecimal digits: a branch or a tag may move. InputError if it is none, or neither hub nor cache has it.
    patterns
        Which files are wanted.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = f"model {name!r}"
    try:
        if not is_commit(commit):
            # Is it a hub model at all? The hub's own check of names says so without a network.
            raise ValueError(f"{commit!r} is no commit of 40 hexadecimal digits, and a branch or tag may move")
        directory = Path(snapshot_download(name, revision=commit, allow_patterns=list(patterns)))
        if not any(directory.rglob("*.safetensors")):
            _convert(Path(snapshot_download(name, revision=commit, allow_patterns=[_PICKLE])))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, UnpicklingError, OSError, ValueError) as error:
        raise InputError(
            where,
            expected="a local path, or the name and commit of a hub model that can be reached",
            found=f"no such path, and of the hub: {str(error).splitlines()[0]}",
            action="Name the commit, or download the model on a machine that reaches the hub and name its path.",
        ) from error
    return directory


def require_safetensors(directory: Path) -> None:
    """Raise InputError if a directory has no ``*.safetensors``, or a folder of it ``pytorch_model*.bin``, a pickle."""
    pickles = [file for file in directory.rglob("pytorch_model*.bin") if not any(file.parent.glob("*.safetensors"))]
    if pickles or not any(directory.rglob("*.safetensors")):
        raise InputError(
            str(directory),
            expected="weights as *.safetensors",
            found=f"{pickles[0].name} alone" if pickles else "none",
            action="Convert them: load the model with transformers and call save_pretrained.",
        )


def weights_digest(path: Path, patterns: Sequence[str], settings: str = "") -> str:
    """
    Return the SHA-256 (64 hex digits) of the names and contents of weights, and of settings that change what they do.

    Of a directory the files that fit a pattern count, in the order of their paths.
    """
    root, files = path, {file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    if path.is_file():
        root, files = path.parent, {path}
    state = hashlib.sha256(settings.encode())
    for file in sorted(files):
        state.update(f"|{file.relative_to(root).as_posix()}:{file_digest(file)}".encode())
    return state.hexdigest()


def _convert(directory: Path) -> None:
    import torch
    from safetensors.torch import save_file

    if (directory / _PICKLE).exists():
        weights = torch.load(directory / _PICKLE, map_location="cpu", weights_only=True)
        tensors = {key: value.clone().contiguous() for key, value in weights.items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
