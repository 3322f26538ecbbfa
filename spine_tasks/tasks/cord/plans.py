"""nnU-Net's plans made smaller, for small machines and quick looks."""

import copy
import math
from typing import Any

from spine_tasks.configs import CordNnunet
from spine_tasks.errors import ConfigError

A_STAGE = ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")  # a value each
MOST_FEATURES = 8  # times those of the first stage


def fitted(plans: dict[str, Any], config: CordNnunet) -> dict[str, Any]:
    """A copy of the plans with a config's `stages`, `features`, `patch` and `batch_size`.

    Raises
    ------
    ConfigError
        More stages are asked for than are planned.
    """
    plans = copy.deepcopy(plans)
    one = plans["configurations"][config.configuration]
    network = one["architecture"]["arch_kwargs"]
    if config.stages is not None:
        _cut(network, config.stages)
    if config.features is not None:
        most = MOST_FEATURES * config.features
        stages = range(network["n_stages"])
        network["features_per_stage"] = [min(config.features * 2**at, most) for at in stages]
    if config.patch is not None:
        one["patch_size"] = _patch(one["patch_size"], config.patch, network["strides"])
    if config.batch_size is not None:
        one["batch_size"] = config.batch_size
    return plans


def _cut(network: dict[str, Any], stages: int) -> None:
    if stages > network["n_stages"]:
        raise ConfigError(
            f"stages: nnU-Net plans {network['n_stages']} for these images, got {stages}; ask for "
            "fewer, or for null"
        )
    network["n_stages"] = stages
    for name in (*A_STAGE, "features_per_stage"):
        if name in network:
            network[name] = network[name][:stages]
    network["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: stages - 1]


def _patch(planned: list[int], longest: int, strides: list[list[int]]) -> list[int]:
    """Sides of at most `longest` voxels that the network can halve as often as it does."""
    steps = [math.prod(stride[axis] for stride in strides) for axis in range(len(planned))]
    return [
        max(step, min(side, longest) // step * step)
        for side, step in zip(planned, steps, strict=True)
    ]
