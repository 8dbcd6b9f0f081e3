"""A tiny base model, and pools of rows with scores that need no model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_models import byte_level_tokenizer, causal_config, save_causal
from transformers import AutoModelForCausalLM

from im_datasets.calibration.experiments.pool import Pool, make_pool

FRUITS = ("apple", "plum", "pear", "fig", "grape")
BEASTS = ("bee", "fox", "owl", "cat", "hen")


def rows(words, number, seed=0):
    """Instructions that say what to write, and responses that do."""
    random = np.random.default_rng(seed)
    chosen = [words[place] for place in random.integers(len(words), size=number)]
    return {
        "instruction": [f"Write {word} {count % 3 + 1} times." for count, word in enumerate(chosen)],
        "response": [" ".join([word] * (count % 3 + 1)) for count, word in enumerate(chosen)],
        "im_quality": random.normal(size=number).tolist(),
        "im_mtld": random.gamma(4.0, 10.0, size=number).tolist(),
        "im_output_length": [float(count % 3 + 1) for count in range(number)],
    }


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_causal(tmp_path_factory.mktemp("base"), "llama"))


@pytest.fixture(scope="session")
def learning_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One with weights drawn as narrowly as usual, which learns in a few steps."""
    folder = tmp_path_factory.mktemp("learning")
    tokenizer = byte_level_tokenizer(300, texts=[*FRUITS, "Write it once and once more."])
    config = causal_config("llama", len(tokenizer))
    config.initializer_range = 0.05
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def pool() -> Pool:
    return make_pool({"fruits": Dataset.from_dict(rows(FRUITS, 60)), "beasts": Dataset.from_dict(rows(BEASTS, 40, 1))})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiment"
