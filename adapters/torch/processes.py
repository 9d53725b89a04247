"""One profile made by several processes that `torchrun` has started."""

from __future__ import annotations

import torch.distributed as dist

from lampq.core.values.merge import merge
from lampq.core.values.profile import Profile


def gather(profile: Profile) -> Profile:
    """The profile of all processes, the same in each; every process gives that of its own shard.

    The parts are exchanged over gloo, which is there on every machine: what is sent are sums and logits, not
    gradients, so a faster network library would gain nothing.

    Raises:
        RecordError: The parts do not belong together.
    """
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    parts: list[Profile | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, profile)
    return merge([part for part in parts if part is not None])
