"""Checks of a knob's range. Each passes None, where a knob may be it, and raises `ConfigError`."""

from collections.abc import Callable
from typing import Any

from spine_tasks.errors import ConfigError


def at_least(config: Any, least: float, *names: str) -> None:
    """Refuse a config of which a named knob is below `least`."""
    _check(config, names, lambda value: value >= least, f"at least {least}")


def above(config: Any, bound: float, *names: str) -> None:
    """Refuse a config of which a named knob is not above `bound`."""
    _check(config, names, lambda value: value > bound, f"above {bound}")


def fraction(config: Any, *names: str) -> None:
    """Refuse a config of which a named knob is not in [0, 1)."""
    _check(config, names, lambda value: 0 <= value < 1, "in [0, 1)")


def _check(
    config: Any, names: tuple[str, ...], allows: Callable[[Any], bool], allowed: str
) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not allows(value):
            raise ConfigError(f"{type(config).__name__}.{name} must be {allowed}, got {value}")
