"""Array scripts to submit by hand, where a launcher may not submit itself."""

import shlex
import string
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spine_tasks.cell import Cell
from spine_tasks.cluster import Cluster
from spine_tasks.files import write_text
from spine_tasks.submissions import begin, note
from spine_tasks.submit import Array, Setting, check_all, in_order, parameters, tasks_of

TEMPLATE = Path(__file__).parents[1] / "slurm" / "templates" / "array.sbatch"

# Parameters that are no flags of sbatch.
SUBMITITS = (
    *("setup", "srun_args", "map_count", "array_parallelism"),
    *("signal_delay_s", "wckey", "stderr_to_stdout", "additional_parameters"),
)


def export(
    setting: Setting,
    cluster: Cluster,
    todo: Sequence[Cell],
    max_parallel: int | None,
    target: Path,
) -> list[str]:
    """Write one script an array into `target`; return what to do with each, a line a script."""
    parts = in_order(todo, cluster.max_array_size)
    check_all(cluster, setting.site, parts)
    some_first = any(not array.cells[0].needs for array in parts)
    lines = []
    for number, array in enumerate(parts, start=1):
        file = target.resolve() / f"{setting.experiment.name}-{number}.sbatch"
        waits = some_first and bool(array.cells[0].needs)
        write_text(file, _script(setting, array, max_parallel, file, waits))
        after = " --dependency=afterany:<ids of the arrays before it>" if waits else ""
        lines.append(f"{len(array.cells)} cells: sbatch{after} {shlex.quote(str(file))}")
    return lines


def _script(
    setting: Setting, array: Array, max_parallel: int | None, file: Path, waits: bool
) -> str:
    """The script of one array, whose tasks are written to the results folder."""
    experiment = setting.experiment
    name = f"{experiment.name}-{uuid.uuid4().hex[:8]}"
    folder = begin(experiment.folder, name, tasks_of(setting, array))
    note(experiment.folder, name, by_hand=True)
    asked = parameters(name, setting, array, (), max_parallel)
    log = str(folder / "%A_%a_0_log.out")
    order = (
        "Its cells start from others: add --dependency=afterany:<ids of the arrays before it>"
        if waits
        else "Twice does no harm: a cell is computed by one task at a time, and once."
    )
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        cells=f"{len(array.cells)} cells",
        experiment=experiment.name,
        file=file.name,
        order=order,
        directives="\n".join(directives(asked, log)),
        setup="\n".join(asked["setup"][1:]),
        cpus=asked["cpus_per_task"],
        log=shlex.quote(log),
        python=shlex.quote(setting.site.launcher_python(array.framework)),
        folder=shlex.quote(str(folder)),
    )


def directives(asked: dict[str, Any], log: str) -> list[str]:
    """The `#SBATCH` lines that say what `submit.parameters` says to submitit."""
    flags = {key.replace("_", "-"): asked[key] for key in asked if key not in SUBMITITS}
    flags |= {
        "array": f"0-{asked['map_count'] - 1}%{asked['array_parallelism']}",
        "signal": f"USR2@{asked['signal_delay_s']}",
        "output": log,
        "open-mode": "append",
    }
    lines = [f"#SBATCH --{key}={shlex.quote(str(flags[key]))}" for key in sorted(flags)]
    return [*lines, "#SBATCH --requeue"]
