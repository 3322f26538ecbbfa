"""Whom a user's jobs may be charged to, and how many of them Slurm takes."""

import getpass
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from spine_tasks.slurm import SlurmError, ask_once
from spine_tasks.slurm_text import count, names, seconds

ASSOCIATION = "format=User,Account,Partition,QOS,DefaultQOS,MaxSubmitJobs,GrpSubmitJobs"
QOS = "format=Name,MaxSubmitJobsPerUser,GrpSubmitJobs,Preempt,PreemptMode,GraceTime"


@dataclass(frozen=True)
class Association:
    """What the user may do in one account; without a user: what all its users together may."""

    user: str
    account: str
    partition: str  # empty: any
    qos: tuple[str, ...]
    default_qos: str
    max_submit: int | None  # array tasks and jobs in the queue at once


@dataclass(frozen=True)
class Qos:
    """A quality of service."""

    name: str
    max_submit: int | None
    preempts: tuple[str, ...]  # whose jobs its own may take the place of
    preempt: str  # what happens to its own where preemption goes by QOS; `cluster`: as there
    grace_s: int


@dataclass(frozen=True)
class Accounts:
    """The user's accounts, and the QOS of the cluster."""

    default: str
    associations: tuple[Association, ...]
    qos: tuple[Qos, ...]

    @property
    def names(self) -> list[str]:
        """The accounts that the user may charge."""
        return sorted({one.account for one in self.associations if one.user})

    def qos_of(self, account: str) -> list[str]:
        """The QOS that the user may ask for in an account."""
        mine = (one for one in self.associations if one.user and one.account == account)
        return sorted({name for one in mine for name in one.qos})

    def default_qos(self, account: str) -> str:
        """The QOS of a job that asks for none."""
        mine = (one for one in self.associations if one.user and one.account == account)
        # Without a default of its own an association's jobs get Slurm's.
        return next((one.default_qos for one in mine if one.default_qos), "normal")

    def max_submit(self, account: str, qos: Sequence[str], partitions: Sequence[str]) -> int | None:
        """How many array tasks and jobs may be in the queue at once; None: any number.

        Where the limit is an account's or a QOS's as a whole, the jobs of others count too.
        """
        of = [one for one in self.associations if one.account == account]
        limits = [one.max_submit for one in of if one.partition in ("", *partitions)]
        limits += [one.max_submit for one in self.qos if one.name in qos]
        return min((limit for limit in limits if limit is not None), default=None)


def read_accounts(cluster: str) -> Accounts | None:
    """Ask accounting for the user's accounts; None where it does not answer.

    That is no error: sites run without accounting, and submitting needs none.
    """
    user = getpass.getuser()
    questions = [
        ("user", f"name={user}", f"cluster={cluster}", "format=DefaultAccount"),
        ("assoc", f"cluster={cluster}", f"user={user}", ASSOCIATION),
        ("assoc", f"cluster={cluster}", "user=", ASSOCIATION),  # the accounts' own lines
        ("qos", QOS),
    ]
    try:
        # Not asked again and again: a site without slurmdbd never answers. All at once: each
        # answer takes slurmdbd a quarter of a second even where it has nothing else to do.
        with ThreadPoolExecutor() as pool:
            default, mine, of_accounts, qos = pool.map(_sacctmgr, questions)
    except SlurmError:
        return None
    return Accounts(
        default=default[0][0] if default else "",
        associations=tuple(
            Association(user, account, partition, names(qos), default_qos, _least(*limits))
            for user, account, partition, qos, default_qos, *limits in mine + of_accounts
        ),
        qos=tuple(
            Qos(name, _least(*limits), names(preempts), mode.lower(), seconds(grace) or 0)
            for name, *limits, preempts, mode, grace in qos
        ),
    )


def _sacctmgr(question: Sequence[str]) -> list[list[str]]:
    answer = ask_once("sacctmgr", "--noheader", "--parsable2", "show", *question)
    return [line.split("|") for line in answer.splitlines()]


def _least(*limits: str) -> int | None:
    return min((number for one in limits if (number := count(one)) is not None), default=None)
