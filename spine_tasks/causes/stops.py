"""Failures of many cells seen together: the same mistake in several, and nodes that fail often."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine_tasks.causes.cause import Cause, of_record
from spine_tasks.errors import RunError
from spine_tasks.files import read_json, read_lines, write_json
from spine_tasks.run import now

STOP_AFTER = 3  # cells with the same failure, after which no further ones are started
# What a person must mend first. The others may be well in the next cell: another batch size, node
# or learning rate.
_ALIKE = ("code", "settings", "missing data")
_BAD_AFTER = 2  # failures of a node
_STOPPED = "stopped.json"
_FORGIVEN = "forgiven.json"


@dataclass(frozen=True)
class Repeated:
    """One failure that several cells ended with."""

    cause: Cause
    cells: list[str]  # ids, sorted
    traceback_sha256: str


def repeated_failure(experiment: Path) -> Repeated | None:
    """The failure that three or more cells ended with; None without one.

    The same traceback counts as the same failure; where the message says what to mend (settings,
    missing data), the message must be the same too: of cells that lack different files, or whose
    needed cells failed, each has a reason of its own.
    """
    since = _read(experiment / _FORGIVEN, "until") or ""
    alike: dict[tuple[str, str], list[tuple[str, Cause]]] = defaultdict(list)
    for cell, records in _attempts(experiment):
        words = [record for record in records if record.get("event") != "refused"]
        last = words[-1] if words else {}
        if last.get("event") != "failed" or str(last.get("time", "")) <= since:
            continue
        cause = of_record(last)
        if cause.kind in _ALIKE and (digest := last.get("traceback_sha256")):
            alike[digest, "" if cause.kind == "code" else cause.why].append((cell, cause))
    (digest, _), most = max(alike.items(), key=lambda one: len(one[1]), default=(("", ""), []))
    if len(most) < STOP_AFTER:
        return None
    return Repeated(most[0][1], sorted(cell for cell, _ in most), digest)


def stop_the_rest(experiment: Path) -> None:
    """After a failure: have no further cell started if several have failed like it."""
    if (experiment / _STOPPED).exists() or (repeated := repeated_failure(experiment)) is None:
        return
    cause = repeated.cause
    why = f"{len(repeated.cells)} cells failed alike: {cause.why}; {cause.remedy}"
    write_json(
        experiment / _STOPPED,
        {
            "why": why,
            "cells": repeated.cells,
            "traceback_sha256": repeated.traceback_sha256,
            "time": now(),
        },
    )


def stopped(experiment: Path) -> str | None:
    """Why no further cell of an experiment is to be started; None where there is no reason."""
    why = _read(experiment / _STOPPED, "why")
    return f"{experiment / _STOPPED} is there, but spoilt" if why == "" else why


def forget_stop(experiment: Path) -> None:
    """Start cells again, and count no failure up to now: a person has mended their cause."""
    write_json(experiment / _FORGIVEN, {"until": now()})
    (experiment / _STOPPED).unlink(missing_ok=True)


def bad_nodes(experiment: Path) -> list[str]:
    """Nodes that two or more attempts of any cells failed because of, sorted."""
    failures = Counter(
        record["node"]
        for _, records in _attempts(experiment)
        for record in records
        if (record.get("event"), record.get("cause")) == ("failed", "node") and record.get("node")
    )
    return sorted(node for node, count in failures.items() if count >= _BAD_AFTER)


def _attempts(experiment: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each cell's id and the records of its attempts."""
    for file in experiment.glob("*/attempts.jsonl"):
        yield file.parent.name, [one for one in read_lines(file) if isinstance(one, dict)]


def _read(file: Path, key: str) -> str | None:
    """A text in a JSON file; None without the file, empty where the disk has spoilt it."""
    try:
        return str(read_json(file)[key])
    except FileNotFoundError:
        return None
    except (RunError, KeyError, TypeError):
        return ""
