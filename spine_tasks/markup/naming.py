"""What the labels of a markup are called: a small YAML file, or the labels as they are.

The file has a key `classes`, and for tables also `columns` and `keep`::

    classes:            # label, or pattern with *: the first that fits counts
      "*grudnoj*": null # null: such boxes are left out
      "*-zdorovyj": healthy
      "shejnyj-*": sick
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from spine_tasks.configs import suggestion
from spine_tasks.errors import ConfigError, DataError

PARTS = ("classes", "columns", "keep")


@dataclass(frozen=True, kw_only=True)
class Naming:
    """The names of classes, and for tables those of columns."""

    classes: Mapping[str, str | None] = field(default_factory=dict)  # empty: labels as they are
    columns: Mapping[str, str] = field(default_factory=dict)  # what a column holds -> its name
    keep: Mapping[str, str] = field(default_factory=dict)  # column -> value of the rows to read

    def class_of(self, where: str, label: str) -> str | None:
        """The class of a label; None if its boxes are left out as asked.

        Raises
        ------
        DataError
            No rule fits the label; the nearest is named.

        Examples
        --------
        >>> naming = Naming(classes={"disc-healthy": "healthy", "disc-*": "sick", "*": None})
        >>> [naming.class_of("", label) for label in ("disc-healthy", "disc-flat", "cord")]
        ['healthy', 'sick', None]
        """
        if not self.classes:
            return label
        for pattern, name in self.classes.items():
            if label == pattern or fnmatchcase(label, pattern):
                return name
        raise DataError(
            f"{where}: no class for the label {label!r}{suggestion(label, self.classes)}; "
            "add it to `classes` in the file given by --classes (null leaves its boxes out)"
        )

    def names(self, found: set[str]) -> tuple[str, ...]:
        """The classes in the order of the rules, or else those found: numbers first, by value."""
        if self.classes:
            return tuple(dict.fromkeys(name for name in self.classes.values() if name))
        return tuple(sorted(found, key=lambda name: (not name.isdigit(), name.zfill(20), name)))


def load_naming(file: Path | None, default: Naming) -> Naming:
    """Read a file of names; what it does not have is as in `default`.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, or has other keys or kinds of values.
    """
    if file is None:
        return default
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: not a YAML file in UTF-8: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{file}: needs at least one of the keys {', '.join(PARTS)}")
    for part in found:
        if part not in PARTS:
            raise ConfigError(f"{file}: no key {part!r}{suggestion(str(part), PARTS)}")
    classes = _texts(file, "classes", found, default.classes)
    columns = _texts(file, "columns", found, {})
    return Naming(
        classes=classes,
        columns={**default.columns, **{key: name for key, name in columns.items() if name}},
        keep={k: v for k, v in _texts(file, "keep", found, default.keep).items() if v},
    )


def _texts(
    file: Path, part: str, found: Mapping[str, Any], default: Mapping[str, str | None]
) -> Mapping[str, str | None]:
    """One part of the file: text, or a number as text, to text or null."""
    values = found.get(part, default)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{file}: {part} is a mapping `label: name`, got {values!r}")
    for key, value in values.items():
        if isinstance(key, bool) or not isinstance(value, str | None) or value == "":
            raise ConfigError(
                f"{file}: {part} maps text or whole numbers to text or null, got {key!r}: "
                f"{value!r}; put words such as yes and no in quotes"
            )
    return {str(key): value for key, value in values.items()}
