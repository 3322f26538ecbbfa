"""Site profiles: all that changes when the cluster changes, nothing of the experiment."""

import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from spine_tasks.configs import suggestion
from spine_tasks.errors import SiteError
from spine_tasks.grid import read_yaml

SITES = Path(__file__).parents[1] / "slurm" / "sites"


@dataclass(frozen=True, kw_only=True)
class Site:
    """One cluster's partition, account, limits and set-up lines."""

    partition: str | None = None  # None: the cluster's default
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str = "gpu:{gpus}"  # how GPUs are asked for
    signal_lead_s: int = 120  # warning before the time limit; must cover one checkpoint
    max_parallel: int = 256  # array tasks at once
    setup: list[str] = field(default_factory=list)  # shell lines before anything else
    python: dict[str, str] = field(default_factory=dict)  # framework -> interpreter of its own


def load_site(name: str, folder: Path = SITES) -> Site:
    """The profile `<folder>/<name>.yaml`, or a YAML file given by its path.

    Raises
    ------
    SiteError
        There is no such profile (the message lists those there are), it has a key that profiles
        do not have (lists the keys), or a value of another type.
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise SiteError(f"there is no site {name!r}; profiles in {folder}: {', '.join(known)}")
    saved = {key: value for key, value in read_yaml(file).items() if value is not None}
    types = typing.get_type_hints(Site)
    for key, value in saved.items():
        if key not in types:
            raise SiteError(
                f"{file}: a profile has no {key!r}{suggestion(key, [f.name for f in fields(Site)])}"
            )
        _check(file, key, value, types[key])
    site = Site(**saved)
    _check_values(file, site)
    return site


def _check(file: Path, key: str, value: Any, wanted: Any) -> None:
    allowed = tuple(typing.get_origin(one) or one for one in typing.get_args(wanted) or (wanted,))
    if typing.get_origin(wanted) in (list, dict):
        allowed = (typing.get_origin(wanted),)
    if not isinstance(value, allowed) or isinstance(value, bool):
        names = " or ".join(one.__name__ for one in allowed if one is not type(None))
        raise SiteError(f"{file}: {key} must be {names}, got {value!r}")


def _check_values(file: Path, site: Site) -> None:
    if not all(isinstance(line, str) for line in site.setup):
        raise SiteError(f"{file}: setup must be a list of shell lines, got {site.setup!r}")
    if not all(isinstance(word, str) for pair in site.python.items() for word in pair):
        raise SiteError(f"{file}: python must be `framework: interpreter`, got {site.python!r}")
    for key in ("signal_lead_s", "max_parallel"):
        if getattr(site, key) < 1:
            raise SiteError(f"{file}: {key} must be at least 1, got {getattr(site, key)}")
    try:
        site.gres.format(gpus=1)
    except (KeyError, IndexError, ValueError) as error:
        raise SiteError(
            f"{file}: gres must be text with {{gpus}} for their number, such as gpu:a100:{{gpus}}, "
            f"got {site.gres!r}"
        ) from error
