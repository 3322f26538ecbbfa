"""Weights without the rest: a small safetensors file of a checkpoint that holds much more."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spine_tasks.command import listed, parser, run_command
from spine_tasks.errors import ConfigError, WeightsError
from spine_tasks.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    Table = Mapping[str, Tensor]

SAFE = ".safetensors"
TAKEN_OF_RUN = "model.safetensors"
# What wrappers of models add to a state dict.
WRAPPED, COUNTER = "module.", "n_averaged"


def main() -> None:
    """The command line of jobs/clean_model.py."""
    run_command(lambda: clean_model(_parser().parse_args()))


def _parser() -> argparse.ArgumentParser:
    flags = parser(
        "Write the weights of a checkpoint, and nothing else, as safetensors: without optimiser\n"
        "and other state, and without code that loading would run.",
        "python jobs/clean_model.py detr.pth --output detr.safetensors --half",
    )
    flags.add_argument("input", type=Path, metavar="FILE_OR_RUN",
        help="a checkpoint of PyTorch, safetensors, or the folder of a complete run")  # fmt: skip
    flags.add_argument("--output", type=Path, required=True, metavar="FILE",
        help="a new .safetensors file")  # fmt: skip
    flags.add_argument("--take", action="append", default=[], metavar="NAME",
        help="of a checkpoint with several tables of weights, such as model, best and average of "
        "a run's last.pt: which one; several become one with their names in front")  # fmt: skip
    flags.add_argument("--half", action="store_true", help="numbers of 16 bits: half the size")
    return flags


def clean_model(asked: argparse.Namespace) -> None:
    """Write the weights and say what was left out.

    Raises
    ------
    ConfigError
        The output is no new .safetensors file, or nothing that is there was named to take.
    WeightsError
        The input cannot be read without running code in it, or has no weights.
    """
    if asked.output.suffix != SAFE:
        raise ConfigError(f"--output {asked.output} must end in {SAFE}")
    if asked.output.exists() or asked.output.is_symlink():
        raise ConfigError(f"--output {asked.output} is there already; name a new file")
    for place in asked.output.resolve().parents:
        if (place / "cell.json").exists():
            raise ConfigError(f"--output {asked.output} lies in the run {place.name}; name another")
    file = _file_of(asked.input)
    content, about = read(file)
    tables = tables_of(content)
    if not tables:
        raise WeightsError(f"{file}: no weights in it, but {listed(sorted(map(str, content)))}")
    names = _chosen(file, tables, asked.take)
    notes = [
        f"left out: {name} ({_mb(size_of(value))})"
        for name, value in (content if "" not in tables else {}).items()
        if name not in names
    ]
    weights = _joined({name: tables[name] for name in names}, notes)
    if asked.half:
        weights = _halved(file, weights, notes)
    _save(asked.output, weights, about)
    sys.stdout.write("".join(f"{note}\n" for note in notes))
    sys.stdout.write(
        f"{asked.output}: {len(weights)} tensors, {_mb(asked.output.stat().st_size)} "
        f"({file.name}: {_mb(file.stat().st_size)})\n"
    )


def _file_of(given: Path) -> Path:
    if not given.is_dir():
        if not given.is_file():
            raise WeightsError(f"{given}: no such file; correct the path")
        return given
    if (given / TAKEN_OF_RUN).is_file():
        return given / TAKEN_OF_RUN
    raise WeightsError(
        f"{given}: no {TAKEN_OF_RUN} in it, which a PyTorch run writes when it is trained; give a "
        f"checkpoint of it ({given / 'checkpoint' / 'last.pt'}), or another folder"
    )


def read(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a checkpoint holds, and the notes in it if it is safetensors; no code in it is run.

    Raises
    ------
    WeightsError
        It is damaged, or of classes that only code could build; they are named.
    """
    import safetensors
    import torch

    try:
        if file.suffix == SAFE:
            with safetensors.safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                return tensors, dict(opened.metadata() or {})
        # Official checkpoints also hold the settings of their training, in this harmless class.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # broken files fail in many ways
        raise WeightsError(f"{file}: {_why(file, error)}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{file}: holds a {type(content).__name__}, not tensors by name; save a state dict"
        )
    return dict(content), {}


def _why(file: Path, error: Exception) -> str:
    import torch

    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # no archive of PyTorch
        unsafe = []
    unsafe = [name for name in unsafe if name != "argparse.Namespace"]
    if unsafe:
        return (
            f"needs code of {listed(sorted(unsafe))} to be loaded, and a file that runs code can "
            "do anything to you; where you trust it, save model.state_dict() from the program that "
            "wrote it, and give that"
        )
    return f"damaged, or no checkpoint of PyTorch ({type(error).__name__}); fetch it again"


def tables_of(content: Mapping[str, Any]) -> dict[str, "Table"]:
    """The tables of weights of a checkpoint by name; the name is empty if it is one itself.

    Examples
    --------
    >>> import torch
    >>> one = {"w": torch.zeros(2)}
    >>> list(tables_of({"model": one, "epoch": 3})), list(tables_of(one))
    (['model'], [''])
    """
    if _is_table(content):
        return {"": content}
    return {str(name): value for name, value in content.items() if _is_table(value)}


def _is_table(value: Any) -> bool:
    from torch import Tensor

    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _chosen(file: Path, tables: Mapping[str, "Table"], asked: list[str]) -> list[str]:
    """The names of the tables to keep; one if none is asked for."""
    sizes = ", ".join(f"{name} ({len(table)} tensors)" for name, table in tables.items())
    if "" in tables and asked:
        raise ConfigError(f"{file} is one table of weights; leave --take out")
    if unknown := [name for name in asked if name not in tables]:
        raise ConfigError(f"{file}: no table {unknown[0]!r} of weights; it has {sizes}")
    if not asked and len(tables) > 1:
        raise ConfigError(
            f"{file}: several tables of weights: {sizes}; say --take NAME, in a run's checkpoint "
            "`best` for those of the best epoch and `model` for the last; or repeat it for the "
            "parts of one network"
        )
    return list(dict.fromkeys(asked)) or list(tables)


def _joined(tables: Mapping[str, "Table"], notes: list[str]) -> dict[str, "Tensor"]:
    """One table of some, named with the table's name in front if there are several."""
    if len(tables) > 1:
        return {
            f"{table}.{name}": tensor
            for table, own in tables.items()
            for name, tensor in own.items()
        }
    [weights] = map(dict, tables.values())
    if COUNTER in weights:
        del weights[COUNTER]
        notes.append(f"left out: {COUNTER}, a counter of averaging")
    if weights and all(name.startswith(WRAPPED) for name in weights):
        weights = {name.removeprefix(WRAPPED): one for name, one in weights.items()}
        notes.append(f"names without {WRAPPED!r} in front, which a wrapper adds")
    return weights


def _halved(file: Path, weights: Mapping[str, "Tensor"], notes: list[str]) -> dict[str, "Tensor"]:
    """Real numbers as float16, checked for those that are too large or too small for it."""
    import torch

    halves, lost = {}, 0
    for name, tensor in weights.items():
        half = tensor.half() if tensor.is_floating_point() else tensor
        if (tensor.isfinite() & ~half.isfinite()).any():
            raise WeightsError(
                f"{file}: {name} has numbers above {torch.finfo(half.dtype).max:g}, the largest of "
                "16 bits; leave --half out"
            )
        if half is not tensor:
            lost += int(((tensor != 0) & (tensor.abs() < torch.finfo(half.dtype).tiny)).sum())
        halves[name] = half
    notes.append(f"16 bits: 3 digits are left; fewer or none of {lost} numbers below 6e-5")
    return halves


def _save(file: Path, weights: Mapping[str, "Tensor"], about: dict[str, str]) -> None:
    import safetensors.torch

    # Copies, since tied tensors may not share memory in this format.
    own = {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}
    with replacing(file) as partial:
        safetensors.torch.save_file(own, partial, metadata=about or None)


def size_of(value: Any) -> int:
    """Bytes of all tensors within a value."""
    from torch import Tensor

    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, list | tuple) else 0


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
