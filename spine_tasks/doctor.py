"""Doctor: what a cluster is, what is to be mended before cells are launched there, and a drill."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spine_tasks.cluster import Cluster, read_cluster
from spine_tasks.command import RESULTS, parser, run_command
from spine_tasks.diagnosis import Finding, findings
from spine_tasks.doctor_drill import Drill, drill_experiment
from spine_tasks.experiment import Experiment
from spine_tasks.sites import Site, load_site
from spine_tasks.submit import Setting, arrays, parameters, script

COLOURS = {"fact": "", "warning": "yellow", "mend": "red"}


def main() -> None:
    """The command line of jobs/doctor.py."""
    run_command(lambda: doctor(_parser().parse_args()))


def doctor(asked: argparse.Namespace) -> int:
    """Look at the cluster of a site profile and try it; 0 where it is ready, 1 where not."""
    site = load_site(asked.site)
    if asked.partition is not None:
        site = replace(site, partition=asked.partition)
    cluster = read_cluster(site)
    experiment = drill_experiment(Path(asked.site).stem, asked.gpus, asked.results)
    found = list(_look(cluster, site, experiment, asked.results))
    if not asked.json:
        _show(found)
    if not asked.no_drill and not any(one.kind == "mend" for one in found):
        drill = Drill(experiment, site, cluster, _tell, asked.patience, asked.preempt_from)
        seen = drill.run()
        found += seen
        if not asked.json:
            _show(seen)
    to_mend = [one.topic for one in found if one.kind == "mend"]
    if asked.json:
        report = {"ready": not to_mend, "findings": [asdict(one) for one in found]}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write(f"to mend: {', '.join(to_mend)}\n" if to_mend else "ready\n")
    return 1 if to_mend else 0


def _parser() -> argparse.ArgumentParser:
    flags = parser(
        "Say what a cluster is for the cells of a site profile, and try it out: a drill of about "
        "two minutes signals one small cell, cancels another, and sees what becomes of them.",
        "python jobs/doctor.py --site mycluster",
    )
    add = flags.add_argument
    add("--site", required=True, metavar="NAME", help="a profile in slurm/sites")
    add("--partition", metavar="NAME", help="in place of the profile's")
    add("--gpus", type=int, default=0, help="that a cell of the drill asks for; default: 0")
    add("--no-drill", action="store_true", help="only look, run no job")
    add("--patience", type=float, default=300.0, metavar="SECONDS",
        help="the longest wait for a job of the drill to start; default: 300")  # fmt: skip
    add("--preempt-from", metavar="PARTITION",
        help="have the cell preempted by a job there that takes its whole node, and so may preempt "
             "others too; without it the cell is only signalled")  # fmt: skip
    add("--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    add("--json", action="store_true", help="print for programs")
    return flags


def _look(cluster: Cluster, site: Site, experiment: Experiment, results: Path) -> Sequence[Finding]:
    setting = Setting(experiment=experiment, site=site, variables={})
    (array,) = arrays(experiment.cells, cluster.max_array_size)
    name = f"{experiment.name}-0"
    asked = parameters(name, setting, array)
    text = script(experiment.folder / "slurm" / name, setting, array, asked)
    return list(findings(cluster, site, array.resources, text, results))


def _show(found: Sequence[Finding]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for one in found:
        mark = "" if one.kind == "fact" else one.kind
        table.add_row(one.topic, mark, one.said, style=COLOURS[one.kind])
    Console(markup=False, highlight=False).print(table)


def _tell(words: str) -> None:
    """Say what is being waited for, apart from the report."""
    sys.stderr.write(f"{words}\n")
