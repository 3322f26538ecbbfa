"""Weights that DETR starts from: of its backbone, or of nearly all of it."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from spine_tasks.configs.detection import CordSignalDetr
from spine_tasks.errors import ConfigError, WeightsError
from spine_tasks.tasks.backbone_weights import (
    load_backbone,
    names_of,
    prefix_of,
    put,
    read_tensors,
    some,
)


class Names(NamedTuple):
    """What the parts of a variant are called."""

    body: str  # the backbone
    classes: tuple[str, ...]  # what depends on the categories: heads, and what labels become
    transferred: tuple[str, ...]  # what the file of the cervical study holds


VARIANTS = {
    "published": Names("backbone.0.body", ("class_embed.",), ("backbone.", "transformer.")),
    "fast": Names("backbone.body", ("dense.classes.", "decoder.classes.", "label."), ()),
}
QUERIES = "query_embed.weight"


def load_start(model: nn.Module, config: CordSignalDetr, file: Path) -> list[str]:
    """Put into a detector what `config.init` names of a file.

    Parameters
    ----------
    model
        New, of `build` or `build_fast`, with the same config.
    file
        For `backbone` a state dict of the backbone, or any file with one in it. For
        `backbone_transformer` the file of the cervical study (tables `backbone` and `transformer`),
        or a whole DETR. For `all_but_heads` a whole detector of the same variant: the official
        `{"model": ...}`, or a state dict; its classes are left out, and so are its queries if their
        number differs.

    Returns
    -------
    list of str
        What was loaded, what was left out, and what stays as it was drawn, a line each.

    Raises
    ------
    ConfigError
        `config.init` is `none`, or the variant cannot start so.
    WeightsError
        The file cannot be read, or holds weights of another network. The model is then as it was.
    """
    names = VARIANTS[config.variant]
    if config.init == "none":
        raise ConfigError(f"init=none takes no weights, got {file}; set init, or weights to null")
    if config.init == "backbone":
        return load_backbone(model.get_submodule(names.body), file)
    if config.init == "backbone_transformer" and not names.transferred:
        raise ConfigError(
            f"init=backbone_transformer is for variant=published; with {config.variant} take "
            "backbone or all_but_heads"
        )
    if config.init == "backbone_transformer":
        wanted = [name for name in names_of(model) if name.startswith(names.transferred)]
    else:
        wanted = [name for name in names_of(model) if not name.startswith(names.classes)]
    return _load(model, wanted, file)


def _load(model: nn.Module, wanted: list[str], file: Path) -> list[str]:
    """Load the wanted tensors, but queries only if their number is the same."""
    found = read_tensors(file)
    prefix = prefix_of(wanted, found, file)
    if prefix is None:
        missing = [name for name in wanted if name not in found]
        raise WeightsError(
            f"{file}: {some(missing)} are not in it; it has {some(list(found))}; take weights of "
            "this variant, backbone and number of layers, or another `init`"
        )
    own = model.state_dict()
    if QUERIES in wanted and found[prefix + QUERIES].shape[:1] != own[QUERIES].shape[:1]:
        wanted = [name for name in wanted if name != QUERIES]
    parts = {name.split(".")[0] for name in wanted}
    rest = [name.removeprefix(prefix) for name in found if name.startswith(prefix)]
    if more := [name for name in rest if name not in own and name.split(".")[0] in parts]:
        raise WeightsError(
            f"{file}: weights of a larger network: {some(more)} left over; set backbone and layers "
            "as they were"
        )
    notes = put(model, {name: found[prefix + name] for name in wanted}, file)
    new = sorted({name.split(".")[0] for name in set(names_of(model)).difference(wanted)})
    left_out = sorted({name.split(".")[0] for name in set(rest).difference(wanted)})
    return [
        f"{len(wanted)} tensors of {file.name}: {', '.join(sorted(parts))}",
        *notes,
        *([f"left out of {file.name}: {', '.join(left_out)}"] if left_out else []),
        f"new, as drawn: {', '.join(new)}",
    ]
