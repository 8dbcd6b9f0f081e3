"""Where a model runs and in which precision; threads that do not hang in a forked process."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

from im_datasets.common.errors import ModelError

if TYPE_CHECKING:
    import torch


DTYPES = ("float32", "bfloat16", "float16")

CPU_INSTRUCTIONS = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "avx_ne_convert", "fp16_arith"),
}
"""Dtype → the instructions for it on x86 and ARM, as ``torch.cpu.get_capabilities`` names them; one will do."""

# Read here, since it is the process that imports this which the others are forked from.
_IMPORTED_IN = os.getpid()

_RANK: ContextVar[int | None] = ContextVar("im_datasets_rank", default=None)


@contextmanager
def on_rank(rank: int | None) -> Iterator[None]:
    """Say which of several processes this is, so that each takes a GPU of its own; None is a single process."""
    token = _RANK.set(rank)
    try:
        yield
    finally:
        _RANK.reset(token)


def is_forked() -> bool:
    """True in a process forked from the one that imported this package, as ``Dataset.map(num_proc=2)`` does.

    OpenMP libraries that ran in the parent (torch, faiss) hang there unless they are set to one thread first.
    """
    return os.getpid() != _IMPORTED_IN


def prepare_torch() -> None:
    """Let processes be forked from this one after torch ran here; call it before torch is imported.

    MKL's own memory pool spins for ever in a process forked from one whose threads used it, and malloc is no slower.
    """
    # MKL reads this while torch is imported, and never again.
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")


def choose_device(device: str | None) -> str:
    """The device asked for, or the accelerator where there is one, or the CPU.

    Of several GPUs a process takes the one of its rank, as ``Dataset.map(with_rank=True)`` numbers the processes.

    Raises:
        ModelError: That is no device, or it is not there.
    """
    prepare_torch()
    import torch

    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device is None:
        rank = _RANK.get()
        return f"cuda:{rank % torch.cuda.device_count()}" if best == "cuda" and rank is not None else best
    count = {"cpu": 1, best: torch.cuda.device_count() if best == "cuda" else 1}
    kind, sign, number = device.partition(":")
    if kind not in count or (sign and not (number.isdecimal() and int(number) < count[kind])):
        available = [name if some == 1 else f"{name}:0 to {name}:{some - 1}" for name, some in sorted(count.items())]
        raise ModelError(f"device {device!r} is not available here; available: {', '.join(available)}")
    return device


@contextmanager
def one_thread_per_batch(device: str) -> Iterator[int]:
    """Let torch use one thread for each batch inside the block, and say how many batches to run at a time.

    On a CPU as many batches as torch had threads: threads that share one small batch spend much of their time
    waiting for each other, and nearly all of it when another program takes one of their cores. One batch at a
    time on an accelerator, and in a forked process, where torch's own threads are not there any more.
    """
    prepare_torch()
    import torch

    before = torch.get_num_threads()
    if is_forked():
        torch.set_num_threads(1)
        yield 1
        return
    if device != "cpu":
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def torch_dtype(name: str) -> "torch.dtype":
    """The torch dtype of that name.

    Raises:
        ModelError: Not one of ``DTYPES``.
    """
    import torch

    if name not in DTYPES:
        raise ModelError(f"dtype {name!r} is unknown; known: {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def choose_dtype(dtype: str | None, device: str) -> str:
    """The dtype asked for, or what the device is fast and safe in.

    bfloat16 on a CUDA card that has it, else float16; float32 elsewhere, which is the dtype that all values of this
    package were checked in. Warns, once per process, of one that the CPU has no instructions for.

    Raises:
        ModelError: Not one of ``DTYPES``.
    """
    import torch

    if dtype is None:
        if not device.startswith("cuda"):
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    torch_dtype(dtype)
    # One of several numbered processes leaves the word to the one that started it.
    if device.partition(":")[0] == "cpu" and _RANK.get() is None:
        _warn_of_emulation(dtype)
    return dtype


@cache
def _warn_of_emulation(dtype: str) -> None:
    import torch

    capabilities = torch.cpu.get_capabilities()
    if dtype not in CPU_INSTRUCTIONS or capabilities["architecture"] not in ("x86_64", "arm64"):
        return
    if not any(capabilities.get(name) for name in CPU_INSTRUCTIONS[dtype]):
        warnings.warn(
            f"this CPU has no instructions for {dtype}: a model runs several times slower in it than in float32; "
            "leave dtype out",
            stacklevel=3,
        )
