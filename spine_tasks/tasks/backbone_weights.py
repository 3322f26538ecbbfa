"""Weights of backbones, from files of several makers: every tensor arrives, or none does."""

import argparse
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from spine_tasks.errors import WeightsError

SHOWN = 3  # tensors that a message names


def load_backbone(module: nn.Module, file: Path) -> list[str]:
    """Put the weights of a file into a backbone.

    Tensors are found by their names; by their names behind a common prefix, as in the checkpoint of
    a whole detector; or, if shapes and kinds agree from the first to the module's last, by their
    order. A backbone for grey images gets the sum of the colours' weights of the first convolution,
    which answers as if the grey image stood in all three.

    Parameters
    ----------
    module
        The network without its classifier.
    file
        A state dict, or a file that holds one, of PyTorch or safetensors.

    Returns
    -------
    list of str
        What was loaded and what was left out, a line each.

    Raises
    ------
    WeightsError
        The file cannot be read, or holds weights of another network. The module is then as it was.
    """
    found = read_tensors(file)
    own = names_of(module)
    prefix = prefix_of(own, found, file)
    if prefix is not None:
        source = {name: prefix + name for name in own}
        how = "by name" if not prefix else f"by name behind {prefix!r}"
    elif _agree_in_order(module, found):
        source = dict(zip(own, found, strict=False))
        prefix = _common_prefix(source.values())
        how = "by order, for names differ but all shapes agree"
    else:
        missing = [name for name in own if name not in found]
        raise WeightsError(
            f"{file}: not weights of this backbone: {some(missing)} of its {len(own)} tensors not "
            f"there by name, and shapes differ in order; the file has {some(list(found))}; take "
            "weights of the network that `backbone` names"
        )
    rest = [name for name in found if name not in set(source.values())]
    parts = {name.removeprefix(prefix).split(".")[0] for name in source.values()}
    if more := [name for name in rest if _first(name, prefix) in parts]:
        raise WeightsError(
            f"{file}: weights of a larger network: {some(more)} left over; take weights of the "
            "network that `backbone` names"
        )
    notes = put(module, {name: found[source[name]] for name in own}, file)
    left_out = sorted({_first(name, prefix) or name.split(".")[0] for name in rest})
    return [
        f"backbone: {len(own)} tensors of {file.name} {how}",
        *notes,
        *([f"left out of {file.name}: {', '.join(left_out)}"] if left_out else []),
    ]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file of PyTorch or safetensors, in its order.

    Of tables in tables the names are joined by dots: `model.layer1.0.conv1.weight`. Counters of
    batch normalisation are left out: they decide nothing.

    Raises
    ------
    WeightsError
        The file cannot be read without running code that it holds, or has no tensors.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: no such weights file")
    content: Any
    try:
        if file.suffix == ".safetensors":
            content = safetensors.torch.load_file(file)
        else:
            # Official checkpoints also hold the settings of their training, in this harmless class.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # broken files fail in many ways
        # PyTorch's own message would advise to run what code the file holds.
        raise WeightsError(
            f"{file}: broken, or more than tensors and settings ({type(error).__name__}); take a "
            "state dict saved by PyTorch, or safetensors"
        ) from error
    tensors = dict(_flat(content, ""))
    if not tensors:
        raise WeightsError(f"{file}: no tensors in it; take a state dict")
    return tensors


def names_of(module: nn.Module) -> list[str]:
    """The tensors of a module that a file must have."""
    return [name for name in module.state_dict() if not _is_counter(name)]


def prefix_of(names: Iterable[str], found: Iterable[str], file: Path) -> str | None:
    """The prefix behind which a file has all the names: empty if it can be, None if there is none.

    Raises
    ------
    WeightsError
        There are several, so that a choice would be a guess.

    Examples
    --------
    >>> prefix_of(["a.w", "b.w"], ["model.b.w", "model.a.w", "state.a.w"], Path("some.pth"))
    'model.'
    """
    names, found = list(names), set(found)
    prefixes = {name.removesuffix(names[0]) for name in found if name.endswith(names[0])}
    fitting = sorted(
        prefix
        for prefix in prefixes
        if (not prefix or prefix.endswith("."))
        and found.issuperset(prefix + name for name in names)
    )
    if len(fitting) > 1 and fitting[0]:
        raise WeightsError(
            f"{file}: several networks that fit, {', '.join(fitting)}; save the state dict of one"
        )
    return fitting[0] if fitting else None


def put(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> list[str]:
    """Put some tensors into a module, all or none; says if colours were summed.

    Raises
    ------
    WeightsError
        A tensor is of another shape, not of real numbers, or not finite.
    """
    own = module.state_dict()
    tensors = dict(tensors)
    notes = []
    first = next((name for name in tensors if own[name].dim() == 4), None)
    if first is not None and own[first].shape[1] == 1 and tensors[first].shape[1:2] == (3,):
        tensors[first] = tensors[first].sum(1, keepdim=True)
        notes.append("first convolution: the weights of three colours summed, for grey images")
    wrong = [
        f"{name} is {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if tensor.shape != own[name].shape
    ] or [
        f"{name} is not of finite real numbers"
        for name, tensor in tensors.items()
        if not (tensor.is_floating_point() and tensor.isfinite().all())
    ]
    if wrong:
        raise WeightsError(
            f"{file}: weights of another network: {some(wrong)}; take weights of this one, or set "
            "the knobs as they were"
        )
    module.load_state_dict(tensors, strict=False)
    return notes


def _flat(content: Any, name: str) -> Iterable[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        if not _is_counter(name):
            yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _agree_in_order(module: nn.Module, found: Mapping[str, Tensor]) -> bool:
    """Whether a file begins with tensors of the module's shapes and kinds (weight, bias, ...)."""
    state = module.state_dict()
    own = {name: state[name] for name in names_of(module)}
    if len(found) < len(own):
        return False
    for index, ((name, tensor), (other, value)) in enumerate(
        zip(own.items(), found.items(), strict=False)
    ):
        shapes = [tensor.shape]
        if index == 0 and tensor.dim() == 4 and tensor.shape[1] == 1:  # colours can be summed
            shapes.append(torch.Size((tensor.shape[0], 3, *tensor.shape[2:])))
        if value.shape not in shapes or name.split(".")[-1] != other.split(".")[-1]:
            return False
    return True


def _common_prefix(names: Iterable[str]) -> str:
    """What all names begin with, up to a dot."""
    tables = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda parts: len(set(parts)) == 1, tables)
    return "".join(f"{parts[0]}." for parts in shared)


def _first(name: str, prefix: str) -> str | None:
    """The first part of a name behind the prefix; None if it has another."""
    return name.removeprefix(prefix).split(".")[0] if name.startswith(prefix) else None


def some(names: list[str]) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
