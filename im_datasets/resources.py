"""What a run may take of the machine, and what it took."""

import os
import sys
from resource import RUSAGE_SELF, getrusage


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_IMPORTED_IN = os.getpid()


def is_forked() -> bool:
    """True in a process forked from the one that imported this package, as ``Dataset.map(num_proc=2)`` does.

    OpenMP libraries that ran in the parent (torch, faiss) hang there unless they are set to one thread first.
    """
    return os.getpid() != _IMPORTED_IN
