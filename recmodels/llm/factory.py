"""The one place that knows every back-end by name; their packages are imported when they are asked for."""

from recmodels.errors import InputError
from recmodels.llm.base import AnswerFormat, Backend
from recmodels.llm.config import LLMConfig


def make_backend(config: LLMConfig, answers: AnswerFormat) -> Backend:
    """
    Return the back-end that the configuration names; nothing is loaded or called before its `start`.

    Raises InputError if the configuration names no language model, or a package is missing.
    """
    found = repr(config.backend)
    try:
        match config.backend:
            case "ollama":
                from recmodels.llm.ollama import OllamaServer

                return OllamaServer(config, answers)
            case "openai":
                from recmodels.llm.openai import OpenAIServer

                return OpenAIServer(config, answers)
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
