"""A plan as a torchao configuration, for people who quantize with torchao.

torchao keeps 8 bits a weight in memory and on disk whatever the width: this passes the widths on, not the
size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.core import files
from lampq.core.blocks import row_block
from lampq.core.errors import AdapterError
from lampq.core.plan import Plan

if TYPE_CHECKING:
    from lampq.adapters.torch.model import TorchModel


def torchao_config(model: TorchModel, plan: Plan) -> dict[str, Any]:
    """The plan as what `torchao.core.config.config_from_dict` reads: an `FqnToConfig` of weight-only
    integers.

    Args:
        model: The model; its modules name the entries.
        plan: Widths, with the model's own layer names. Convolutions and packed parameters, which torchao's
            linear configurations do not cover, are left out.

    Raises:
        AdapterError: Nothing of the plan is a linear module.
    """
    import torch

    entries = {}
    for layer in plan.layers:
        path, _, last = model.parameters[layer.name].rpartition(".")
        if last == "weight" and isinstance(model.module.get_submodule(path), torch.nn.Linear):
            entries[path] = _weight_only(layer.weight_bits, row_block(layer.shape, 0, plan.block))
    if not entries:
        raise AdapterError(
            "no layer of the plan is a linear module, which is all that torchao's configuration covers"
        )
    return {"_type": "FqnToConfig", "_version": 1, "_data": {"fqn_to_config": entries}}


def write_torchao_config(model: TorchModel, plan: Plan, path: Path, *, force: bool = False) -> None:
    """Write `torchao_config` as JSON.

    Raises:
        OutputExistsError: The file exists and `force` is false.
    """
    files.refuse_existing(path, force=force)
    files.write_json(path, torchao_config(model, plan))


def _weight_only(bits: int, block: int | None) -> Mapping[str, Any]:
    per_axis = {"_type": "PerAxis", "_version": 1, "_data": {"axis": 0}}
    per_group = {"_type": "PerGroup", "_version": 1, "_data": {"group_size": block}}
    return {
        "_type": "IntxWeightOnlyConfig",
        "_version": 2,
        "_data": {
            "weight_dtype": {"_type": "torch.dtype", "_data": f"int{bits}"},
            "granularity": per_group if block else per_axis,
            "mapping_type": {"_type": "MappingType", "_data": "SYMMETRIC"},
        },
    }
