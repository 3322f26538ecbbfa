"""Which code and data complete cells were computed with: one version of each, or it is said."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from spine_tasks.cell import Cell
from spine_tasks.command import listed
from spine_tasks.data.digest import selection
from spine_tasks.environment import code_sha256, codes_of_attempts
from spine_tasks.files import read_json
from spine_tasks.run import Run
from spine_tasks.splits import load_split

Done = Mapping[str, dict[str, Any]]  # cell id -> its done.json
Version = tuple[str, ...]  # digests; empty where a run does not say
Groups = dict[Version, list[str]]  # the ids of the cells of each version; without the silent ones


def codes(done: dict[str, Any]) -> Version:
    """Digests of the code of all attempts that a run consists of, the first first.

    Examples
    --------
    >>> codes({"code_sha256": "bb", "code_sha256_of_attempts": ["aa", "bb"]})
    ('aa', 'bb')
    >>> codes({})
    ()
    """
    every = [*done.get("code_sha256_of_attempts", []), done.get("code_sha256")]
    return tuple(dict.fromkeys(filter(None, every)))


def data(done: dict[str, Any]) -> Version:
    """The digest of the data that a run read; empty if it does not say, or read none."""
    return tuple(filter(None, [done.get("data_sha256")]))


def mixed(cells: Sequence[Cell], done: Done) -> list[str]:
    """What cells that are to be compared differ in beside their knobs; empty where in nothing.

    Cells of an older version, which do not say, differ from none.

    Returns
    -------
    list of str
        A paragraph for code, and one for each set of files that cells read in common: the
        versions, and the cells of each.
    """
    return [*_mixed_code(cells, done), *_mixed_data(cells, done)]


def summary(cells: Sequence[Cell], done: Done) -> Iterator[str]:
    """Code and data of complete cells in a line, and a second one where some do not say."""
    by_code = _grouped({cell.id: codes(done[cell.id]) for cell in cells})
    code = [_version(version, done[ids[0]]) for version, ids in by_code.items()]
    read = {
        f"{digest[:8]} ({_name(cell)})": None for cell in cells for digest in data(done[cell.id])
    }
    known = [("code", code), ("data", list(read))]
    if any(versions for _, versions in known):
        yield "; ".join(f"{what} {listed(versions)}" for what, versions in known if versions)
    asked = {"code_sha256", "data_sha256"}
    if silent := [cell.id for cell in cells if not asked <= done[cell.id].keys()]:
        yield (
            f"{len(silent)} of {len(cells)} runs do not say with which code or data, which an "
            f"older version did not record: {listed(silent)}"
        )


def other_code(runs: Iterable[Run], code: str) -> str | None:
    """What a launch warns of: cells that were computed or begun with other code than its own.

    Parameters
    ----------
    runs
        Of an experiment, complete or not.
    code
        The digest of the launch's code.
    """
    if ids := [run.folder.name for run in runs if set(_codes_of(run)) - {code}]:
        return (
            f"{cells_listed(ids)}: computed or begun with other code than this launch's "
            f"{code[:8]}; collect will not compare them with its cells without --mixed"
        )
    return None


def cells_listed(ids: Sequence[str]) -> str:
    """How many cells, and the first of them.

    Examples
    --------
    >>> cells_listed(["a", "b"])
    '2 cells, a, b'
    """
    return f"{len(ids)} cell{'s' * (len(ids) != 1)}, {listed(ids)}"


def _mixed_code(cells: Sequence[Cell], done: Done) -> Iterator[str]:
    groups = _grouped({cell.id: codes(done[cell.id]) for cell in cells})
    if len({code for version in groups for code in version}) > 1:
        here = (code_sha256(),)
        names = {
            version: _version(version, done[ids[0]]) + (", the code here" * (version == here))
            for version, ids in groups.items()
        }
        yield _paragraph("different code", names, groups)


def _mixed_data(cells: Sequence[Cell], done: Done) -> Iterator[str]:
    split_of = cache(load_split)
    alike: dict[tuple[object, ...], list[Cell]] = {}  # but for the seed
    for cell in cells:
        alike.setdefault((cell.config, cell.split, cell.fold), []).append(cell)
    reading: dict[tuple[object, ...], list[Cell]] = {}
    for some in alike.values():
        reading.setdefault(selection(some[0], split_of(some[0].split)), []).extend(some)
    for same_files in reading.values():
        groups = _grouped({cell.id: data(done[cell.id]) for cell in same_files})
        if len(groups) > 1:
            names = {version: _version(version, {}) for version in groups}
            yield _paragraph(f"different data of {_name(same_files[0])}", names, groups)


def _codes_of(run: Run) -> Version:
    """The code of a complete run, or of a run's checkpoint; empty without either."""
    if run.complete:
        return codes(read_json(run.folder / "done.json"))
    begun = run.saved_ns() is not None
    return tuple(codes_of_attempts(run.attempts())) if begun else ()


def _grouped(versions: dict[str, Version]) -> Groups:
    groups: Groups = {}
    for cell_id, version in versions.items():
        if version:
            groups.setdefault(version, []).append(cell_id)
    return groups


def _paragraph(what: str, names: dict[Version, str], groups: Groups) -> str:
    lines = [f"  {names[version]}: {cells_listed(ids)}" for version, ids in groups.items()]
    return "\n".join([f"{what}:", *lines])


def _version(digests: Version, done: dict[str, Any]) -> str:
    """Digests, shortened, and the commit that the last of them was computed from, if known."""
    commit, plus, changes = done.get("commit", "").partition("+")
    where = f" (commit {commit[:7]}{plus}{changes})" if commit else ""
    return " then ".join(digest[:8] for digest in digests) + where


def _name(cell: Cell) -> str:
    return Path(cell.split).stem
