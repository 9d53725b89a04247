"""How many threads a process may keep busy."""

from __future__ import annotations

import os


def own_threads() -> int:
    """What OMP_NUM_THREADS says, as for BLAS and PyTorch, or else every core that the process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if told.isascii() and told.isdigit() and int(told):
        return int(told)
    # In a container that is less than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
