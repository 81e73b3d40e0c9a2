"""The one place that knows every back-end by name; their packages are imported when they are asked for."""

import os
from collections.abc import Callable

from recmodels.errors import InputError
from recmodels.llm.base import AnswerFormat, Backend
from recmodels.llm.config import LLMConfig
from recmodels.llm.several import SeveralServers


def make_backend(config: LLMConfig, answers: AnswerFormat) -> Backend:
    """
    Return the back-end that the configuration names; nothing is loaded or called before its `start`.

    Raises InputError if the configuration names no language model, or a package is missing.
    """
    found = repr(config.backend)
    try:
        match config.backend:
            case "ollama":
                from recmodels.llm.ollama import ADDRESS_VARIABLE, OllamaServer

                return _of_servers(OllamaServer, config, answers, ADDRESS_VARIABLE)
            case "openai":
                from recmodels.llm.openai import ADDRESS_VARIABLE, OpenAIServer

                return _of_servers(OpenAIServer, config, answers, ADDRESS_VARIABLE)
            case "transformers":
                from recmodels.llm.local import LocalModel

                return LocalModel(config, answers)
            case _:
                pass
    except ModuleNotFoundError as error:
        found += f" without the package {error.name}"
    raise InputError(
        "setting backend",
        expected="ollama, openai or transformers, and its packages",
        found=found,
        action="Install them with `pip install recmodels[llm]`.",
    )


def _of_servers(
    kind: Callable[[LLMConfig, AnswerFormat], Backend], config: LLMConfig, answers: AnswerFormat, variable: str
) -> Backend:
    """Return a back-end of the server that is named, or of all of them."""
    named = (config.server or os.environ.get(variable, "")).replace(",", " ").split()
    if len(named) < 2:
        return kind(config, answers)
    return SeveralServers([kind(config.model_copy(update={"server": one}), answers) for one in named])
