"""Site profiles: all that changes when the cluster changes, nothing of the experiment."""

import re
import shlex
import sys
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spine_tasks.configs import suggestion
from spine_tasks.errors import SiteError
from spine_tasks.grid import read_yaml

SITES = Path(__file__).parents[1] / "slurm" / "sites"
GRES = "gpu:{gpus}"
# What a wheelhouse installs for the cells of a framework: an extra of setup.cfg.
EXTRAS = {"none": "", "tensorflow": "gm", "torch": "detection", "nnunet": "nnunet"}

KINDS = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "`framework: ...` lines",
}


@dataclass(frozen=True, kw_only=True)
class Site:
    """One cluster: what it is asked for, and how Python comes to its compute nodes.

    A framework's Python is the launcher's own unless `python` or `apptainer` names one, or a
    `wheelhouse` makes one on the node.
    """

    partition: str | list[str] | None = None  # of several the first that can start; None: default
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu_type: str | None = None  # as gres names it, such as a100; None: any
    gres: str = GRES  # how GPUs are asked for
    signal_lead_s: int = 120  # warning before the time limit; must cover one checkpoint
    max_parallel: int = 256  # array tasks at once
    umask: str | None = None  # of all that is written, octal; "0007": a group shares the results
    setup: list[str] = field(default_factory=list)  # shell lines before anything else
    modules: list[str] = field(default_factory=list)  # `module load`, after `setup`
    python: dict[str, str] = field(default_factory=dict)  # framework -> interpreter of its own
    apptainer: dict[str, str] = field(default_factory=dict)  # framework -> image its workers run in
    wheelhouse: str | None = None  # folder of wheels: an environment is made on the node, offline
    stage: bool = False  # copy what a cell reads to the node's own disk first
    stage_to: str = "$SLURM_TMPDIR"  # where; environment variables are those of the node

    @property
    def partitions(self) -> list[str]:
        """The partitions that will do; none: the cluster's default."""
        names = self.partition or []
        return names.split(",") if isinstance(names, str) else names

    def gres_of(self, gpus: int) -> str | None:
        """What asks for so many GPUs on a node.

        Examples
        --------
        >>> Site().gres_of(2), Site(gpu_type="a100").gres_of(2), Site().gres_of(0)
        ('gpu:2', 'gpu:a100:2', None)
        """
        if not gpus:
            return None
        return self.gres.format(gpus=f"{self.gpu_type}:{gpus}" if self.gpu_type else gpus)

    def umask_value(self) -> int | None:
        """The umask as a number; None: leave it as it is.

        Examples
        --------
        >>> Site(umask="0027").umask_value() == 0o027
        True
        """
        return None if self.umask is None else int(self.umask, 8)

    def setup_lines(self, framework: str) -> list[str]:
        """The bash lines that ready a node for the cells of a framework, under `set -eo pipefail`.

        Not under `set -u`, which the `module` function of some sites does not survive. A
        wheelhouse's environment is active after them and is removed as the script exits, so the
        script must not `exec` what follows.
        """
        loads = [f"module load {shlex.quote(name)}" for name in self.modules]
        made = [] if self.wheelhouse is None else _environment(self.wheelhouse, EXTRAS[framework])
        return [*self.setup, *loads, *made]

    def launcher_python(self, framework: str) -> str:
        """Python of the supervisor in a job, which talks to Slurm and so runs in no container."""
        # After the set-up lines the environment that they made is first on the PATH.
        return sys.executable if self.wheelhouse is None else "python"

    def worker_command(self, framework: str, folders: Iterable[Path] = ()) -> list[str]:
        """The command of the workers' Python.

        Parameters
        ----------
        folders
            What a worker reads and writes; a container sees these and what its site always shows.

        Raises
        ------
        SiteError
            A folder's name has a character that a container's bind cannot take.
        """
        if framework in self.apptainer:
            binds = [word for folder in folders for word in ("--bind", _bindable(folder))]
            return ["apptainer", "exec", "--nv", *binds, self.apptainer[framework], "python"]
        return [self.python.get(framework, self.launcher_python(framework))]


def load_site(name: str, folder: Path = SITES) -> Site:
    """The profile `<folder>/<name>.yaml`, or a YAML file given by its path.

    Raises
    ------
    SiteError
        There is no such profile (the message lists those there are), it has a key that profiles
        do not have (lists the keys), a value of another type, or keys that contradict each other.
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not file.is_file():
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        raise SiteError(f"there is no site {name!r}; profiles in {folder}: {', '.join(names)}")
    saved = {key: value for key, value in read_yaml(file).items() if value is not None}
    known = typing.get_type_hints(Site)
    try:
        for key, value in saved.items():
            if key not in known:
                raise SiteError(f"a profile has no {key!r}{suggestion(key, known)}")
            _check_type(key, value, known[key])
        site = Site(**saved)
        _check_values(site)
        _check_environments(site)
    except SiteError as error:
        raise SiteError(f"{file}: {error}") from error
    return site


def _environment(wheelhouse: str, extra: str) -> list[str]:
    """The lines that make a virtual environment on the node without a network."""
    wanted = f"spine_tasks[{extra}]" if extra else "spine_tasks"
    return [
        # A folder of its own: a job that runs again may find what its killed attempt left.
        'spine_env=$(mktemp -d "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/spine_env.XXXXXXXX")',
        "trap 'rm -rf \"$spine_env\"' EXIT",
        f'{shlex.quote(sys.executable)} -m venv "$spine_env"',
        'source "$spine_env/bin/activate"',
        "python -m pip install --quiet --no-index "
        f"--find-links {shlex.quote(wheelhouse)} {shlex.quote(wanted)}",
    ]


def _bindable(folder: Path) -> str:
    """A folder as a container's bind takes it: where `:` and `,` part one from the next."""
    if ":" in str(folder) or "," in str(folder):
        raise SiteError(f"{folder}: a container cannot see it, as its name has ':' or ','; move it")
    return str(folder)


def _check_type(key: str, value: Any, wanted: Any) -> None:
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    kinds = [typing.get_origin(one) or one for one in options if one is not type(None)]
    if key == "umask" and type(value) is int:  # 0027 has become 23, and 0007 looks harmless as 7
        raise SiteError(f'umask must be text in quotes, such as "0007": YAML has read {value}')
    if type(value) not in kinds:  # not isinstance: true is an int
        allowed = " or ".join(KINDS[kind] for kind in kinds)
        raise SiteError(f"{key} must be {allowed}, got {value!r}")
    if isinstance(value, int):
        return
    texts = value.values() if isinstance(value, dict) else value if type(value) is list else [value]
    if not all(isinstance(text, str) and text for text in texts):
        raise SiteError(f"{key} must hold text that is not empty, got {value!r}")


def _check_values(site: Site) -> None:
    for key in ("signal_lead_s", "max_parallel"):
        if getattr(site, key) < 1:
            raise SiteError(f"{key} must be at least 1, got {getattr(site, key)}")
    if site.partition is not None and not all(site.partitions):
        raise SiteError(f"partition must be a name or a list of names, got {site.partition!r}")
    try:
        site.gres.format(gpus=1)
    except (KeyError, IndexError, ValueError) as error:
        raise SiteError(
            f"gres must be text with {{gpus}} for their number, such as {GRES}, got {site.gres!r}"
        ) from error
    if site.gpu_type is not None and site.gres != GRES:
        raise SiteError(
            f"gpu_type and gres both say how GPUs are asked for ({site.gpu_type!r}, "
            f"{site.gres!r}); keep one"
        )
    # A first digit of 0: with another the owner could not read its own files.
    if site.umask is not None and not re.fullmatch("0?0[0-7]{2}", site.umask):
        raise SiteError(
            f'umask must be octal and leave the owner all rights, such as "0007", got {site.umask}'
        )


def _check_environments(site: Site) -> None:
    """Check that each framework's Python is said once, and that there is such a framework."""
    for key in ("python", "apptainer"):
        own = getattr(site, key)
        if unknown := [name for name in own if name not in EXTRAS]:
            raise SiteError(f"{key}: no framework {unknown[0]!r}{suggestion(unknown[0], EXTRAS)}")
        if own and site.wheelhouse is not None:
            raise SiteError(
                f"wheelhouse makes the environment of every framework, {key} names one for "
                f"{', '.join(own)}; keep one of the two keys"
            )
    if both := sorted(site.python.keys() & site.apptainer.keys()):
        raise SiteError(f"python and apptainer both name an environment of {both[0]}; keep one")
