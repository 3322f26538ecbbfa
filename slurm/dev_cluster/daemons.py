"""Daemons that are found again by a record of their process ids, since there is no systemd."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A slurmdbd may die over an empty answer of a database that has just been made; seen once.
STARTS = 3


class DevClusterError(Exception):
    """The cluster cannot be started or stopped; the message says what to do."""


@dataclass(frozen=True)
class Daemon:
    """A program that stays in the foreground, and the question that shows that it works."""

    name: str
    command: list[str]
    answers: Callable[[], bool]
    patience_s: float = 60  # from its start to its first answer


class Daemons:
    """The running daemons of one folder, recorded in its `daemons.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "daemons.json"

    def pid(self, name: str) -> int | None:
        """The process id of a daemon that is alive, else None."""
        known = self._read().get(name)
        # The start time tells a daemon from a later process that was given the same id.
        if known and known["identity"] and _identity(known["pid"]) == known["identity"]:
            return int(known["pid"])
        return None

    def ensure(self, daemon: Daemon, environment: dict[str, str]) -> bool:
        """Start `daemon` unless it is alive, and wait until it answers; true if it was started.

        One that dies before it answers is started again, `STARTS` times in all.

        Raises
        ------
        DevClusterError
            The daemon died each time, or did not answer in time; with the last lines of its output.
        """
        starts = 0
        deadline = time.monotonic() + daemon.patience_s
        # In this order: others may still believe that a daemon which has died answers.
        while (dead := self.pid(daemon.name) is None) or not daemon.answers():
            if dead:
                if starts == STARTS:
                    raise DevClusterError(f"{daemon.name} died; {self._last_lines(daemon)}")
                self._launch(daemon, environment)
                starts += 1
            if time.monotonic() > deadline:
                raise DevClusterError(
                    f"{daemon.name} did not answer for {daemon.patience_s:.0f} s; "
                    f"{self._last_lines(daemon)}"
                )
            time.sleep(0.1)
        return starts > 0

    def end(self, name: str, patience_s: float = 20) -> None:
        """Ask a daemon to end, wait until it has, and kill it after `patience_s`."""
        self._signal(name, signal.SIGTERM, patience_s)
        self.kill(name)

    def kill(self, name: str) -> None:
        """Kill a daemon as a crash would, and wait until it has gone.

        Raises
        ------
        DevClusterError
            It is still there 5 s later.
        """
        self._signal(name, signal.SIGKILL, patience_s=5)
        if pid := self.pid(name):
            raise DevClusterError(f"{name} (process {pid}) cannot be killed; end it by hand")

    def _signal(self, name: str, number: signal.Signals, patience_s: float) -> None:
        if (pid := self.pid(name)) is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while self.pid(name) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _launch(self, daemon: Daemon, environment: dict[str, str]) -> None:
        with self._output(daemon).open("ab") as output:  # after the last words of one that died
            process = subprocess.Popen(
                daemon.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal that started it is not for it
            )
        known = {"pid": process.pid, "identity": _identity(process.pid)}
        self._write(self._read() | {daemon.name: known})

    def _output(self, daemon: Daemon) -> Path:
        return self.folder / "log" / f"{daemon.name}.out"

    def _last_lines(self, daemon: Daemon) -> str:
        output = self._output(daemon)
        lines = output.read_text(errors="replace").splitlines()[-10:]
        return "\n  ".join([f"the end of {output}:", *lines])

    def _read(self) -> dict[str, Any]:
        known: dict[str, Any] = {}
        if self.record.exists():
            known = json.loads(self.record.read_text())
        return known

    def _write(self, known: dict[str, Any]) -> None:
        partial = self.record.with_suffix(".partial")
        partial.write_text(json.dumps(known, indent=2) + "\n")
        partial.replace(self.record)


def kill_jobs(folder: Path, nodes: list[str]) -> None:
    """Kill what the jobs of a cluster's nodes have left: jobs outlive their slurmd.

    Raises
    ------
    DevClusterError
        A process is still there 10 s later.
    """
    deadline = time.monotonic() + 10
    while left := [
        int(file.name) for file in Path("/proc").iterdir() if _is_of_job(file, folder, nodes)
    ]:
        if time.monotonic() > deadline:
            raise DevClusterError(f"{folder}: processes {left} of jobs cannot be killed")
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _is_of_job(process: Path, folder: Path, nodes: list[str]) -> bool:
    """Whether a folder of /proc is of a job's process, or of the slurmstepd above it."""
    try:
        program = (process / "exe").readlink().name
        if program.startswith("slurmstepd"):  # has no environment left, but its slurmd's log
            logs = {folder / "log" / f"{node}.log" for node in nodes}
            return any(file.readlink() in logs for file in (process / "fd").iterdir())
        environment = (process / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # not a process, or gone
        return False
    # Both: a shell may name the cluster too, but only a job is on one of its nodes.
    return f"SLURM_CONF={folder}/slurm.conf" in environment and any(
        f"SLURMD_NODENAME={node}" in environment for node in nodes
    )


def _identity(pid: int) -> str | None:
    """Program and start time (clock ticks since boot) of a process; None if it has ended."""
    process = Path(f"/proc/{pid}")
    try:
        program = (process / "exe").readlink()
        # The name in parentheses may hold blanks; the fields behind it do not.
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # gone, or a zombie that nobody has collected: a zombie has no program
        return None
    return f"{program} since {fields[19]}"
