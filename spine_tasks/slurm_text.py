"""Values in the words of Slurm's commands."""

import re
from collections import defaultdict

NOTHING = ("", "(null)", "n/a", "none", "unlimited", "infinite")


def count(text: str) -> int | None:
    """A whole number; None where Slurm says that there is none, or no limit.

    Examples
    --------
    >>> count("16384"), count("16384+"), count("UNLIMITED"), count("(null)")
    (16384, 16384, None, None)
    """
    return None if text.lower() in NOTHING else int(text.rstrip("+"))


def seconds(text: str) -> int | None:
    """A duration, `[days-]hours:minutes:seconds` or `30 sec`; None where there is no limit.

    Examples
    --------
    >>> seconds("1-00:00:30"), seconds("00:10:00"), seconds("30 sec"), seconds("20")
    (86430, 600, 30, 20)
    >>> seconds("infinite")
    """
    if text.lower() in NOTHING:
        return None
    days, _, clock = text.removesuffix(" sec").rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return 86400 * int(days or 0) + total


def clock(duration_s: int) -> str:
    """A duration as Slurm writes it.

    Examples
    --------
    >>> clock(86430), clock(600)
    ('1-00:00:30', '00:10:00')
    """
    minutes, rest_s = divmod(duration_s, 60)
    days, minutes = divmod(minutes, 24 * 60)
    return (f"{days}-" if days else "") + f"{minutes // 60:02}:{minutes % 60:02}:{rest_s:02}"


def names(text: str) -> tuple[str, ...]:
    """A list with commas.

    Examples
    --------
    >>> names("a100,ib"), names("(null)")
    (('a100', 'ib'), ())
    """
    return () if text.lower() in NOTHING else tuple(text.split(","))


def gpus_of(gres: str) -> dict[str, int]:
    """The GPUs of one node, or those asked for, by type; the type is empty where none is named.

    Examples
    --------
    >>> gpus_of("gpu:a100:4(S:0,1),gpu:v100:2,shard:8"), gpus_of("gpu:4"), gpus_of("(null)")
    ({'a100': 4, 'v100': 2}, {'': 4}, {})
    """
    found: dict[str, int] = {}
    for one in names(re.sub(r"\([^)]*\)", "", gres)):
        kind, *rest = one.removeprefix("gres/").split(":")
        if kind == "gpu":
            number = int(rest.pop()) if rest and rest[-1].isdigit() else 1
            type_ = rest[0] if rest else ""
            found[type_] = found.get(type_, 0) + number
    return found


def settings(text: str) -> defaultdict[str, str]:
    r"""The `Name = value` lines of `scontrol show config`; what a version lacks reads as empty.

    Examples
    --------
    >>> found = settings("KillWait                = 30 sec\nSlurmctld(primary) at vm is UP\n")
    >>> dict(found), found["MaxBatchRequeue"]
    ({'KillWait': '30 sec'}, '')
    """
    lines = (line.partition(" = ") for line in text.splitlines())
    found = {name.strip(): value.strip() for name, equals, value in lines if equals}
    return defaultdict(str, found)


def words(line: str) -> defaultdict[str, str]:
    """The `Name=value` words of one line of `scontrol -o show`; what is not said reads as empty.

    Examples
    --------
    >>> dict(words("PartitionName=gpu Default=YES TRES=cpu=16,mem=64G"))
    {'PartitionName': 'gpu', 'Default': 'YES', 'TRES': 'cpu=16,mem=64G'}
    """
    pairs = (word.partition("=") for word in line.split())
    return defaultdict(str, {name: value for name, equals, value in pairs if equals})
