"""Pools of rows with scores that need no model."""

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

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
def pool() -> Pool:
    return make_pool({"fruits": Dataset.from_dict(rows(FRUITS, 60)), "beasts": Dataset.from_dict(rows(BEASTS, 40, 1))})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiment"
