"""The file that says which BIDS data sets there are, and where their cord masks lie."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from spine_tasks.configs import suggestion
from spine_tasks.errors import ConfigError
from spine_tasks.grid import read_yaml

SOURCES_FILE = "cords.yaml"  # its name in the phantom
NAME = re.compile(r"[A-Za-z0-9]+")  # of a source: it begins the names of nnU-Net's files


@dataclass(frozen=True, kw_only=True)
class Source:
    """A BIDS data set with masks of the cord.

    Parameters
    ----------
    name
        Letters and digits; it begins the id of each case.
    path
        The BIDS folder.
    contrasts
        Ends of images' names, such as `T2w`, `acq-sag_T2w` or `rec-average_dwi`.
    suffix
        What follows an image's stem in the name of its mask, such as `seg-manual`.
    labels
        Folder of the masks below `path`; inside it they lie as the images do.
    threshold
        Values above it are cord, all others are not: 0.5, or 1e-8 for any trace of it.
    sessions
        Names without `ses-`; None: all, and images without a session.
    persons
        Subject (`sub-X`) -> person, of those persons who are several subjects, of this source or of
        several; each other subject is a person.
    """

    name: str
    path: Path
    contrasts: tuple[str, ...]
    suffix: str
    labels: str = "derivatives/labels"
    threshold: float = 0.5
    sessions: tuple[str, ...] | None = None
    persons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what a file may get wrong."""
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"a source's name has letters and digits only, got {self.name!r}")
        for name in ("contrasts", "sessions"):
            given = getattr(self, name)
            if given is not None and (not given or not all(isinstance(g, str) for g in given)):
                raise ConfigError(f"{self.name}: {name} must be a list of words, got {given!r}")
        for name in ("suffix", "labels"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{self.name}: {name} must be text, got {getattr(self, name)!r}")
        if not isinstance(self.persons, Mapping) or not all(
            str(name).startswith("sub-") for name in self.persons
        ):
            raise ConfigError(f"{self.name}: persons must be sub-X: person, got {self.persons!r}")
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise ConfigError(f"{self.name}: threshold must be a number, got {self.threshold!r}")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"{self.name}: threshold must be in (0, 1), got {self.threshold:g}")


def load_sources(file: Path) -> dict[str, Source]:
    """The sources of a YAML file by name, in its order.

    The file has one key, `sources`: name -> the other fields of `Source`. A `path` that is not
    absolute starts from the file's folder.

    Raises
    ------
    ConfigError
        The file is missing or malformed, or says something a source does not have.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; write one with `sources:`, see --help")
    saved = read_yaml(file)
    if list(saved) != ["sources"] or not isinstance(saved["sources"], dict) or not saved["sources"]:
        raise ConfigError(f"{file}: needs `sources:` with a name each, and nothing else")
    return {str(name): _source(file, str(name), given) for name, given in saved["sources"].items()}


def _source(file: Path, name: str, given: Any) -> Source:
    known = {one.name: one for one in fields(Source) if one.name != "name"}
    if not isinstance(given, dict):
        raise ConfigError(f"{file}: {name}: needs {', '.join(known)}, got {given!r}")
    for key in given:
        if key not in known:
            raise ConfigError(f"{file}: {name}: a source has no {key!r}{suggestion(key, [*known])}")
    required = [key for key, one in known.items() if one.default is one.default_factory is MISSING]
    if missing := [key for key in required if key not in given]:
        raise ConfigError(f"{file}: {name}: {', '.join(missing)} missing; it needs {required}")
    lists = {key: given[key] for key in ("contrasts", "sessions") if given.get(key) is not None}
    for key, value in lists.items():
        if not isinstance(value, list):
            raise ConfigError(f"{file}: {name}: {key} must be a list, got {value!r}")
    changed: dict[str, Any] = {key: tuple(value) for key, value in lists.items()}
    if isinstance(given.get("threshold"), str):  # YAML takes 1e-8 for a word, 1.0e-8 for a number
        with suppress(ValueError):
            changed["threshold"] = float(given["threshold"])
    path = file.parent / Path(str(given["path"])).expanduser()
    try:
        return Source(**given | changed | {"name": name, "path": path})
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
