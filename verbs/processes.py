"""A profile made by all processes that `torchrun` has started on this and other machines."""

from __future__ import annotations

import os

from lampq.core.values.errors import MissingExtraError
from lampq.core.values.profile import Profile
from lampq.core.values.shard import Shard

# What a launcher tells each process; all of it, or the process stands alone.
_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def own_shard() -> Shard | None:
    """The part of the data that falls to this process, or None where it is the only one."""
    if any(name not in os.environ for name in _TOLD):
        return None
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return Shard(index=rank + 1, count=count) if count > 1 else None


def gather(profile: Profile) -> Profile:
    """The profile of all processes, the same in each; every process gives that of its own shard.

    Raises:
        MissingExtraError: PyTorch, through which they exchange their parts, is not installed.
        RecordError: The parts do not belong together.
    """
    try:
        from lampq.adapters.torch.processes import gather as exchange
    except ImportError as err:
        raise MissingExtraError("torch", "torch", err) from err
    return exchange(profile)
