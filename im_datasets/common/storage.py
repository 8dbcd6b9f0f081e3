"""What a run may take of the machine, and what it took."""

import os
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cache_folder() -> Path:
    """Where this package keeps things between runs: ``$IM_DATASETS_CACHE``, or ``im_datasets`` in ``$HF_HOME``."""
    from huggingface_hub import constants

    return Path(os.environ.get("IM_DATASETS_CACHE") or Path(constants.HF_HOME) / "im_datasets").expanduser()


# MKL's own memory pool spins for ever in a process forked from one whose threads used it; malloc is no slower.
os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")

_IMPORTED_IN = os.getpid()


def is_forked() -> bool:
    """True in a process forked from the one that imported this package, as ``Dataset.map(num_proc=2)`` does.

    OpenMP libraries that ran in the parent (torch, faiss) hang there unless they are set to one thread first.
    """
    return os.getpid() != _IMPORTED_IN
