"""What every command line shares: values, results folder, and how a problem is told."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from spine_tasks.errors import ConfigError, SpineError

RESULTS = Path(__file__).parents[1] / "results"


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose `--help` ends with an example."""
    return argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def launched_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser for what was launched before: `--grid NAME` and `--results DIR`."""
    flags = parser(description, example)
    flags.add_argument("--grid", required=True, metavar="NAME", help="the name it was launched as")
    flags.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s"
    )
    return flags


def yaml_value(text: str) -> Any:
    """A value of a command line, read as YAML reads it: 5, 0.1, true, null, text, [1, 2]."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text!r} as a value") from error


def setting(text: str) -> tuple[str, Any]:
    """One `name=value`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    return name, yaml_value(value)


def selection(text: str) -> tuple[str, list[Any]]:
    """One `axis=value` or `axis=value,value`."""
    name, equals, values = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected axis=value, got {text!r}")
    return name, [yaml_value(value) for value in values.split(",")]


def listed(names: Sequence[str]) -> str:
    """The first three names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def no_repeats(pairs: list[tuple[str, Any]], flag: str) -> dict[str, Any]:
    """The pairs as a mapping; a ConfigError where one name is given twice."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{flag} {twice[0]} is given twice; give it once")
    return dict(pairs)


def run_command(command: Callable[[], int | None]) -> None:
    """Run a command; tell a `SpineError` as its message alone and exit with 2, Ctrl-C with 130."""
    try:
        code = command() or 0
        sys.stdout.flush()  # while a reader that has gone can still be told apart
        sys.exit(code)
    except SpineError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; run the same command again to continue\n")
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(141)
