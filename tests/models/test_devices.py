"""Nothing happens to a process at import; what must be set before torch is imported, is."""

import os
import subprocess
import sys

import pytest

SPY = """
import os, sys
NAME = "MKL_DISABLE_FAST_MM"

class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(name, os.environ.get(NAME))

sys.meta_path.insert(0, Spy())
from im_datasets.indicators import IFD, KNNDistance, Length, Similarity
import im_datasets.indicators.knn.search, im_datasets.models.embedder, im_datasets.models.checkpoints
print("imported", os.environ.get(NAME))
"""

FIRST_USES = {
    "device": "from im_datasets.models.devices import choose_device; choose_device('cpu')",
    "embedder": "from im_datasets.models.embedder import Embedder; Embedder().embed(['a'])",
    "tokenizer": "from im_datasets.models.hub_models import quiet_loading\nwith quiet_loading(): import torch",
    "threads": "from im_datasets.models.devices import one_thread_per_batch\nwith one_thread_per_batch('cpu'): pass",
}


@pytest.mark.parametrize("use", FIRST_USES.values(), ids=FIRST_USES.keys())
def test_torch_is_imported_with_memory_that_survives_a_fork_and_nothing_is_set_before(use):
    environment = {name: value for name, value in os.environ.items() if name != "MKL_DISABLE_FAST_MM"}
    done = subprocess.run(
        [sys.executable, "-c", f"{SPY}{use}"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["imported None", "torch 1"]


def test_what_the_user_set_stays():
    environment = {**os.environ, "MKL_DISABLE_FAST_MM": "0"}
    code = f"{SPY}{FIRST_USES['device']}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["imported 0", "torch 0"]
