"""What a run took of the machine."""

import sys
from resource import RUSAGE_SELF, getrusage


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
