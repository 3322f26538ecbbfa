"""Checks of a knob's range."""

from typing import Any

from spine_tasks.errors import ConfigError


def at_least(config: Any, least: float, *names: str) -> None:
    """Refuse a config of which a named knob is below `least`; None, where a knob may be it, passes.

    Raises
    ------
    ConfigError
        The message names the knob and its value.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigError(
                f"{type(config).__name__}.{name} must be at least {least}, got {value}"
            )


def above(config: Any, bound: float, *names: str) -> None:
    """Refuse a config of which a named knob is not above `bound`; None passes.

    Raises
    ------
    ConfigError
        The message names the knob and its value.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= bound:
            raise ConfigError(f"{type(config).__name__}.{name} must be above {bound}, got {value}")


def fraction(config: Any, *names: str) -> None:
    """Refuse a config of which a named knob is not in [0, 1); None passes.

    Raises
    ------
    ConfigError
        The message names the knob and its value.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise ConfigError(f"{type(config).__name__}.{name} must be in [0, 1), got {value}")
