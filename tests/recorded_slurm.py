"""A Slurm that answers with recorded texts: commands on a PATH of their own."""

import getpass
import shutil

# As Slurm 22.05 says it, but for what a test is not about.
CONFIG = """\
Configuration data as of 2026-11-22T13:54:54
AccountingStorageEnforce = associations,limits,qos
ClusterName             = alpine
JobAcctGatherParams     = (null)
JobRequeue              = 1
KillWait                = 30 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
ProctrackType           = proctrack/cgroup
SchedulerParameters     = bf_interval=1
SlurmctldParameters     = (null)
SLURM_VERSION           = 22.05.8
TaskPlugin              = task/cgroup,task/affinity

Cgroup Support Configuration:
ConstrainRAMSpace       = yes

Slurmctld(primary) at head is UP
"""
PARTITION = (
    "PartitionName={name} Default={default} QoS={qos} GraceTime={grace} MaxTime={time} "
    "MaxCPUsPerNode={cpus} PriorityTier={tier} PreemptMode={mode} State={state} "
    "MaxMemPerNode={mem} TRES=cpu=16,mem=64G,node=4\n"
)
GPU = {
    **{"name": "gpu", "default": "YES", "qos": "N/A", "grace": 0, "time": "1-00:00:00"},
    **{"cpus": "UNLIMITED", "tier": 10, "mode": "OFF", "state": "UP", "mem": "UNLIMITED"},
}
LOW = GPU | {"name": "low", "default": "NO", "grace": 20, "tier": 1, "mode": "REQUEUE"}
LARGE = GPU | {"name": "large", "default": "NO", "qos": "big", "time": "UNLIMITED"}
SINFO = """\
gpu|8|65536|gpu:a100:4(S:0-1)|a100,ib
gpu|16|32768|gpu:v100:2|(null)
low|4|16384|(null)|(null)
large|128|1048576+|(null)|ib
"""
USER = getpass.getuser()
DEFAULT = "spine\n"
MINE = f"""\
{USER}|spine||debug,normal||30|
{USER}|teaching||normal|normal|5|
"""
ACCOUNTS = """\
|root||normal|||
|spine||normal||40|50
|teaching||normal|||
"""
QOS = """\
normal||||cluster|00:00:00
debug|1|5|normal|cancel|00:00:10
big|20||||00:00:00
"""


class RecordedSlurm:
    """Commands in a folder; with the folder as the whole PATH the machine's own are not found."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        (folder / "cat").symlink_to(shutil.which("cat"))

    def says(self, command, answers, code=0, stream=1):
        """Let `command` answer by the first of the words that its arguments hold."""
        cases = "".join(
            f"  *'{words}'*) cat <<'ANSWER' >&{stream}\n{answer}ANSWER\n  exit {code};;\n"
            for words, answer in answers.items()
        )
        log = f'echo "$*" >> {self.folder}/{command}.asked\n'
        file = self.folder / command
        file.write_text(f'#!/bin/sh\n{log}case "$*" in\n{cases}esac\nexit 3\n')
        file.chmod(0o755)

    def asked(self, command):
        """The arguments of each call of a command."""
        return (self.folder / f"{command}.asked").read_text().splitlines()

    def is_cluster(
        self, config=CONFIG, partitions=(GPU, LOW, LARGE), sinfo=SINFO, mine=MINE, qos=QOS
    ):
        """A whole cluster, some of it otherwise."""
        told = "".join(PARTITION.format(**one) for one in partitions)
        self.says("scontrol", {"show config": config, "show partition": told})
        self.says("sinfo", {"%R|%c|%m|%G|%f": SINFO})
        self.says(
            "sacctmgr",
            {
                f"show user name={USER} cluster=alpine": DEFAULT,
                f"show assoc cluster=alpine user={USER}": mine,
                "show assoc cluster=alpine user= ": ACCOUNTS,
                "show qos": QOS,
            },
        )

    def has_no_slurmdbd(self):
        """Accounting does not answer."""
        refused = "sacctmgr: error: Sending PersistInit msg: Connection refused\n"
        self.says("sacctmgr", {"show": refused}, code=1, stream=2)


def with_line(name, value, text=CONFIG):
    """The configuration with another value of one name."""
    lines = [line for line in text.splitlines() if line.partition(" ")[0] != name]
    return "\n".join([f"{name} = {value}", *lines]) + "\n"
