"""Nothing happens to a process at import; what must be set before torch is imported, is."""

import os
import subprocess
import sys

import pytest
import torch

from im_datasets.models import devices
from im_datasets.models.devices import choose_dtype, on_rank

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


@pytest.fixture
def cpu(monkeypatch):
    """A CPU of chosen instructions, of which nothing was said yet."""

    def become(*instructions, architecture="x86_64"):
        capabilities = {"avx2": True, "avx512_bf16": False} | dict.fromkeys(instructions, True)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities | {"architecture": architecture})
        devices._warn_of_emulation.cache_clear()

    yield become
    devices._warn_of_emulation.cache_clear()


@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_choose_dtype_warns_once_of_one_that_the_cpu_must_emulate(dtype, architecture, cpu):
    cpu(architecture=architecture)
    with pytest.warns(UserWarning, match=f"^this CPU has no instructions for {dtype}: .* slower .* leave dtype out$"):
        assert choose_dtype(dtype, "cpu:0") == dtype
    assert choose_dtype(dtype, "cpu") == dtype


@pytest.mark.parametrize(
    ("dtype", "instruction", "architecture"),
    [
        ("bfloat16", "avx512_bf16", "x86_64"),
        ("bfloat16", "amx_bf16", "x86_64"),
        ("bfloat16", "bf16", "arm64"),
        ("float16", "avx512_fp16", "x86_64"),
        ("float16", "fp16_arith", "arm64"),
    ],
)
def test_choose_dtype_is_silent_where_there_are_instructions(dtype, instruction, architecture, cpu):
    cpu(instruction, architecture=architecture)
    assert choose_dtype(dtype, "cpu") == dtype
    # The other precision's are of no use.
    other = {"bfloat16": "float16", "float16": "bfloat16"}[dtype]
    with pytest.warns(UserWarning, match=f"no instructions for {other}"):
        choose_dtype(other, "cpu")


def test_choose_dtype_is_silent_of_float32_other_devices_and_unknown_processors(cpu):
    cpu()
    assert (choose_dtype(None, "cpu"), choose_dtype("float32", "cpu")) == ("float32", "float32")
    assert choose_dtype("bfloat16", "cuda:1") == choose_dtype("bfloat16", "mps") == "bfloat16"
    with on_rank(1):
        assert choose_dtype("bfloat16", "cpu") == "bfloat16"
    cpu(architecture="s390x")
    assert choose_dtype("bfloat16", "cpu") == "bfloat16"


def test_the_instructions_are_names_that_torch_knows():
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] != "x86_64":
        pytest.skip("torch names what x86 has on x86 alone")
    assert {"avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16"} <= set(capabilities)
