#!/usr/bin/env python3
"""Start and stop a real Slurm on one machine: four nodes with four pretended GPUs each."""

import argparse
import fcntl
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configuration import (
    NODES,
    Unavailable,
    add_account,
    check_folder,
    check_machine,
    daemons_in_order,
    environment,
    write_configuration,
)
from daemons import Daemon, Daemons, DevClusterError, kill_jobs

DEFAULT_FOLDER = Path("/tmp/spine_slurm")

log = logging.getLogger("dev_cluster")


def main() -> int:
    """Run one command; 0 done, 1 not running, 2 an error, 69 root or packages are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in {
        "start": "start it, or what has died of it, and wait until it answers",
        "stop": "end its jobs and daemons, and remove its folder",
        "status": "say which daemons and nodes are up",
        "env": "print the line for the shell that points Slurm's commands to it",
        "kill": "kill one daemon, as a crash would: slurmctld, or the slurmd of node2",
        "revive": "start one daemon again, and wait until it answers",
    }.items():
        command = commands.add_parser(name, help=purpose)
        command.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, metavar="DIR")
    commands.choices["start"].add_argument(
        "--conf-line",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a line for slurm.conf, in place of the one with that KEY; may be repeated",
    )
    for name in ("kill", "revive"):
        commands.choices[name].add_argument("daemon", help="as `status` names it")
    commands.choices["kill"].add_argument(
        "--jobs", action="store_true", help="and what runs on that node, as if it lost its power"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        folder = options.folder.resolve()
        check_folder(folder)
        if options.command == "start":
            start(folder, options.conf_line)
        elif options.command == "stop":
            stop(folder)
        elif options.command == "status":
            return status(folder)
        elif options.command == "kill":
            kill(folder, options.daemon, options.jobs)
        elif options.command == "revive":
            revive(folder, options.daemon)
        else:
            sys.stdout.write(f"export SLURM_CONF={folder}/slurm.conf\n")
    except DevClusterError as error:
        log.error("dev_cluster: %s", error)
        return os.EX_UNAVAILABLE if isinstance(error, Unavailable) else 2
    return 0


def start(folder: Path, conf_lines: list[str]) -> None:
    """Start every daemon that is not alive, and wait until the whole cluster answers.

    Raises
    ------
    Unavailable
        This is not root, or packages are missing.
    DevClusterError
        A daemon died or did not answer, or the folder holds another cluster already.
    """
    check_machine()
    with locked(folder) as daemons:
        if not (folder / "slurm.conf").exists():
            write_configuration(folder, conf_lines)
        elif conf_lines:
            raise DevClusterError(
                f"{folder} holds a cluster already, so that {conf_lines} would not be used; "
                "stop it first, or choose another --folder"
            )
        started = []
        for daemon in daemons_in_order(folder):
            if daemons.ensure(daemon, environment(folder)):
                started.append(daemon.name)
            if daemon.name == "slurmdbd":
                add_account(folder)
        log.info("%s: %s", folder, f"started {' '.join(started)}" if started else "runs already")
        log.info("point Slurm's commands to it: export SLURM_CONF=%s/slurm.conf", folder)


def stop(folder: Path) -> None:
    """End the jobs and the daemons, and remove the folder; without a cluster there, do nothing.

    Raises
    ------
    DevClusterError
        A daemon, or a process of a job, could not be ended.
    """
    if not folder.exists():
        log.info("%s: no cluster", folder)
        return
    with locked(folder) as daemons:
        for daemon in reversed(daemons_in_order(folder)):
            daemons.end(daemon.name)
        kill_jobs(folder, NODES)
        shutil.rmtree(folder)
    log.info("%s: stopped and removed", folder)


def status(folder: Path) -> int:
    """Write which daemons and nodes are up; 0 if all are."""
    daemons = Daemons(folder)
    up = []
    for daemon in daemons_in_order(folder):
        pid = daemons.pid(daemon.name)
        up.append(pid is not None and daemon.answers())
        said = (
            f"process {pid}, {'answers' if up[-1] else 'does not answer'}" if pid else "not running"
        )
        sys.stdout.write(f"{daemon.name:10s} {said}\n")
    return 0 if all(up) else 1


def kill(folder: Path, name: str, jobs: bool) -> None:
    """Kill a daemon, and with `jobs` all that runs on its node; jobs outlive it otherwise."""
    daemon = _daemon(folder, name)
    if jobs and name not in NODES:
        raise DevClusterError(f"--jobs: {name} is no node; nodes: {', '.join(NODES)}")
    Daemons(folder).kill(daemon.name)
    if jobs:
        kill_jobs(folder, [name])
    log.info("%s: killed %s%s", folder, name, " and its jobs" if jobs else "")


def revive(folder: Path, name: str) -> None:
    """Start a daemon unless it is alive, and wait until it answers."""
    daemon = _daemon(folder, name)
    with locked(folder) as daemons:
        started = daemons.ensure(daemon, environment(folder))
    log.info("%s: %s %s", folder, name, "started" if started else "runs already")


def _daemon(folder: Path, name: str) -> Daemon:
    if not (folder / "slurm.conf").exists():
        raise DevClusterError(f"{folder}: no cluster; start it first")
    known = {daemon.name: daemon for daemon in daemons_in_order(folder)}
    if name not in known:
        raise DevClusterError(f"there is no daemon {name!r}; daemons: {', '.join(known)}")
    return known[name]


@contextmanager
def locked(folder: Path) -> Iterator[Daemons]:
    """The daemons of a folder, with no other start or stop under way there."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Daemons(folder)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
