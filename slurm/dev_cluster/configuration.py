"""What the cluster consists of: the folder it lives in, its files, and its daemons in order."""

import functools
import os
import random
import re
import secrets
import shutil
import socket
import stat
import string
import subprocess
from collections.abc import Callable
from pathlib import Path

from daemons import Daemon, DevClusterError

CLUSTER = "dev"
ACCOUNT = "spine"
NODES = ["node1", "node2", "node3", "node4"]
TEMPLATES = Path(__file__).resolve().parent
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # daemons are often not on it
LONGEST_FOLDER = 60  # characters: a path of a unix socket ends at 107, and a step's socket is long

PACKAGE_OF_PROGRAM = {
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "sbatch": "slurm-client",
}
PACKAGE_OF_PLUGIN = {
    "jobacct_gather_linux": "slurm-wlm-basic-plugins",
    "accounting_storage_mysql": "slurm-wlm-mysql-plugin",
}


class Unavailable(DevClusterError):
    """The machine cannot run the cluster: no root, or packages are missing."""


def check_machine() -> None:
    """Raise `Unavailable` unless this is root on a machine with all packages."""
    missing = {p for name, p in PACKAGE_OF_PROGRAM.items() if not shutil.which(name, path=PATH)}
    for name, package in PACKAGE_OF_PLUGIN.items():
        # Debian keeps plugins one folder deeper than others do.
        if not any(any(Path("/usr").glob(f"{lib}/slurm*/{name}.so")) for lib in ("lib*", "lib/*")):
            missing.add(package)
    if missing:
        raise Unavailable(
            f"missing: {', '.join(sorted(missing))}; "
            f"apt-get update && apt-get install -y {' '.join(sorted(missing))}"
        )
    if os.geteuid() != 0:
        raise Unavailable(f"needs root, runs as user {os.geteuid()}; use sudo")


def check_folder(folder: Path) -> None:
    """Raise `DevClusterError` unless `folder` is new, empty, or one that holds a cluster."""
    if len(str(folder)) > LONGEST_FOLDER or not re.fullmatch(r"/[\w./-]+", str(folder)):
        raise DevClusterError(
            f"--folder {folder}: at most {LONGEST_FOLDER} characters, "
            "of letters, digits and _ . - /, for the sake of unix sockets and of slurm.conf"
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DevClusterError(f"--folder {folder}: is a file; choose a new or empty folder")
    # In /tmp anybody could have laid it out, and the daemons run as root.
    if (owner := folder.stat().st_uid) != os.geteuid():
        raise DevClusterError(
            f"--folder {folder}: belongs to user {owner}, this is user {os.geteuid()}; "
            "become that user, or choose another folder"
        )
    if any(folder.iterdir()) and not (folder / "daemons.json").exists():
        raise DevClusterError(f"--folder {folder}: holds other files; choose a new or empty one")


def write_configuration(folder: Path, conf_lines: list[str]) -> None:
    """Write keys and configuration of a new cluster; `slurm.conf`, which says so, comes last."""
    texts = configuration_files(folder, conf_lines)
    for leftover in folder.iterdir():  # of a start that was interrupted here
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    folder.chmod(0o755)  # munge wants its socket within everybody's reach
    (folder / "daemons.json").write_text("{}\n")  # from here on the folder is known as a cluster's
    for name in ("log", "munge", "state", "spool", "gpu"):
        (folder / name).mkdir()
    make_gpus(folder / "gpu")
    (folder / "munge" / "key").touch(mode=0o600)
    (folder / "munge" / "key").write_bytes(secrets.token_bytes(128))
    for name in ("mariadb.sql", "slurmdbd.conf"):
        (folder / name).touch(mode=0o600)  # they hold the password of the database
    slurm_conf = texts.pop("slurm.conf")
    for name, text in texts.items():
        (folder / name).write_text(text)
    create_database(folder)
    partial = folder / "slurm.conf.partial"
    partial.write_text(slurm_conf)
    partial.replace(folder / "slurm.conf")


def configuration_files(folder: Path, conf_lines: list[str]) -> dict[str, str]:
    """The text of each configuration file: its template with ports, password and folder."""
    port = first_free_port(3 + len(NODES))
    values = {
        "cluster": CLUSTER,
        "folder": folder,
        "host": socket.gethostname().partition(".")[0],
        "password": secrets.token_hex(16),
        "slurmctld_port": port,
        "slurmdbd_port": port + 1,
        "mariadb_port": port + 2,
    } | {f"{node}_port": port + 3 + number for number, node in enumerate(NODES)}
    texts = {
        file.stem: string.Template(file.read_text()).substitute(values)
        for file in TEMPLATES.glob("*.template")
    }
    return texts | {"slurm.conf": with_lines(texts["slurm.conf"], conf_lines)}


def make_gpus(folder: Path) -> None:
    """Make four device files: slurmd refuses ordinary ones, and containers have no /dev/tty1."""
    null = Path("/dev/null").stat().st_rdev
    for gpu in range(4):
        try:
            os.mknod(folder / f"gpu{gpu}", stat.S_IFCHR | 0o600, null)
        except PermissionError as error:
            raise Unavailable(
                f"{folder}/gpu{gpu}: root may not make device files here; "
                "run outside of this container, or give it the capability MKNOD"
            ) from error


def create_database(folder: Path) -> None:
    """Write MariaDB's own tables, without those of a server that the machine may have."""
    options = f"--defaults-file={folder}/mariadb.cnf"
    with (folder / "log" / "mariadb-install-db.out").open("wb") as output:
        command = ["mariadb-install-db", options, "--user=root", "--skip-test-db"]
        done = subprocess.run(command, env=environment(folder), stdout=output, stderr=output)
    if done.returncode != 0:
        raise DevClusterError(f"MariaDB's tables cannot be made; see {output.name}")


def with_lines(conf: str, lines: list[str]) -> str:
    r"""The text of a slurm.conf with each of `lines` in place of the one of the same key.

    Nodes and partitions are added: their keys may be there many times.

    Examples
    --------
    >>> with_lines("A=1\nB=2\n", ["b=3", "C=x=4"])
    'A=1\nb=3\nC=x=4\n'
    """
    for line in lines:
        key, equals, _ = line.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z]+", key) or "\n" in line:
            raise DevClusterError(f"--conf-line {line!r}: not one line KEY=VALUE of slurm.conf")
        if key.lower() not in ("nodename", "partitionname"):
            conf = re.sub(rf"(?im)^{key}=.*\n", "", conf)
        conf += f"{line}\n"
    return conf


def first_free_port(count: int) -> int:
    """The first of `count` neighbouring free ports, below those the kernel gives to clients."""
    for first in random.sample(range(20000, 32000, count), k=200):
        if all(_is_free(first + offset) for offset in range(count)):
            return first
    raise DevClusterError(f"no {count} neighbouring ports are free between 20000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def environment(folder: Path) -> dict[str, str]:
    """What the daemons and Slurm's commands see: nothing of the shell that starts them."""
    return {"PATH": PATH, "LC_ALL": "C", "SLURM_CONF": f"{folder}/slurm.conf"}


def ask(folder: Path, *command: str) -> str | None:
    """The output of a command for this cluster; None where it fails or hangs."""
    try:
        return subprocess.run(
            command,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None


def daemons_in_order(folder: Path) -> list[Daemon]:
    """The daemons of the cluster, each behind those that it needs."""
    munge = folder / "munge"
    munged = ["munged", "--foreground", f"--socket={munge}/socket", f"--key-file={munge}/key"]
    munged += [f"--pid-file={munge}/pid", f"--seed-file={munge}/seed"]
    mariadb = f"--defaults-file={folder}/mariadb.cnf"

    def succeeds(*command: str) -> Callable[[], bool]:
        return lambda: ask(folder, *command) is not None

    return [
        Daemon("munged", munged, succeeds("munge", "--no-input", f"--socket={munge}/socket")),
        Daemon("mariadbd", ["mariadbd", mariadb], succeeds("mariadb-admin", mariadb, "ping")),
        Daemon("slurmdbd", ["slurmdbd", "-D"], succeeds("sacctmgr", "show", "cluster")),
        Daemon("slurmctld", ["slurmctld", "-D"], succeeds("scontrol", "ping")),
        *(
            Daemon(node, ["slurmd", "-D", "-N", node], functools.partial(is_up, folder, node))
            for node in NODES
        ),
    ]


def is_up(folder: Path, node: str) -> bool:
    """Whether a node takes jobs, or runs some."""
    state = ask(folder, "sinfo", "--noheader", "--nodes", node, "--partition=gpu", "--format=%t")
    return (state or "").strip() in ("idle", "mix", "alloc", "comp")


def add_account(folder: Path) -> None:
    """Tell accounting of the cluster, the account and its user; nothing changes where it knows.

    Raises
    ------
    DevClusterError
        Accounting does not list the user afterwards.
    """
    user = "where", "user=root", f"account={ACCOUNT}"
    known = "sacctmgr", "--noheader", "--parsable2", "show", "associations", *user
    if ask(folder, *known):
        return
    for what in (
        ["cluster", CLUSTER],
        ["account", ACCOUNT, f"Cluster={CLUSTER}"],
        ["user", "root", f"Account={ACCOUNT}", f"DefaultAccount={ACCOUNT}"],
    ):
        ask(folder, "sacctmgr", "--immediate", "add", *what)
    if not ask(folder, *known):
        raise DevClusterError(
            f"accounting does not accept root in account {ACCOUNT}; see {folder}/log/slurmdbd.log"
        )
