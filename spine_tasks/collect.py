"""Collect: the runs of an experiment as tables, statistics and figures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spine_tasks import plots, report, stats, versions
from spine_tasks.cell import Cell
from spine_tasks.command import launched_parser, run_command
from spine_tasks.configs import knobs_of
from spine_tasks.convergence import convergence
from spine_tasks.cord_figures import draw_matrix
from spine_tasks.cord_pictures import draw_cords
from spine_tasks.data.digest import data_sha256
from spine_tasks.ensemble import ensembles
from spine_tasks.errors import IncompleteGrid, MixedResults
from spine_tasks.experiment import Experiment, opened
from spine_tasks.files import read_json, write_text
from spine_tasks.generalization import generalization, matrix, trained_on
from spine_tasks.grade_figures import draw_grades
from spine_tasks.run import Run
from spine_tasks.score import COLUMNS, score, spoilt
from spine_tasks.set_scores import of_sets, set_summary
from spine_tasks.states import State, states


def main() -> None:
    """The command line of jobs/collect.py."""
    flags = launched_parser(
        "Turn the runs of a launched grid into tables, paired statistics and figures.",
        "python jobs/collect.py --grid gm_transfer",
    )
    flags.add_argument(
        "--partial", action="store_true", help="look at the cells that are complete so far"
    )
    flags.add_argument(
        "--mixed", action="store_true", help="collect cells of different code or data all the same"
    )
    flags.add_argument(
        "--ensemble",
        nargs="*",
        metavar="ARM",
        help="also an arm of the mean probabilities of a fold's cells, of these arms or of all "
        "(grades only)",
    )
    run_command(lambda: collect(flags.parse_args()))


def collect(asked: argparse.Namespace) -> None:
    """Write the tables and figures of an experiment, and print the main ones.

    Raises
    ------
    IncompleteGrid
        Cells are not complete and a partial view was not asked for, or none is.
    MixedResults
        Cells were computed with different code or data, and that was not asked for.
    """
    experiment = opened(asked.grid, asked.results)
    complete = _complete(experiment, asked.partial)
    done = {cell.id: read_json(experiment.run(cell).folder / "done.json") for cell in complete}
    again = [cell for cell in complete if spoilt(experiment.run(cell))]
    mixed = versions.mixed(complete, done) + _other_data(experiment, again, done)
    if mixed and not asked.mixed:
        raise MixedResults(
            f"{experiment.name}: its complete cells cannot be compared as they are\n"
            + "\n".join(mixed)
            + "\ndelete the folders of the cells to compute anew, check out the code that the "
            "others have and launch the grid again; or give --mixed to collect all the same, which "
            "the report and runs.csv then say"
        )
    _score_again(experiment, again)
    arms = [cell for cell in complete if cell.arm]
    together = [] if asked.ensemble is None else ensembles(experiment, arms, asked.ensemble)
    scores = {cell.id: _cases(experiment.run(cell), cell) for cell in [*complete, *together]}
    cases = pd.concat([scores[cell.id] for cell in [*arms, *together]], ignore_index=True)
    chosen_by = arms[0].config.chosen_by  # the same for every job of a grid
    histories = pd.concat([_history(experiment.run(cell), cell) for cell in arms])
    of_persons = cases.drop(of_sets(cases).index)
    baseline = next((c.arm_name for c in arms if c.arm == experiment.grid.baseline), None)
    compared = stats.comparisons(of_persons, baseline) if baseline is not None else pd.DataFrame()
    tables = {
        "runs": pd.DataFrame(
            [
                _run_row(experiment.run(cell), cell, scores[cell.id], done[cell.id])
                for cell in complete
            ]
        ),
        "cases": cases,
        "summary": stats.summary(of_persons),
        "comparisons": compared,
    }
    if len(of_persons) < len(cases):
        tables["sets"] = set_summary(experiment, [*arms, *together], cases, baseline)
    predicts = arms[0].config.predicts
    if baseline is not None and predicts != "cords":  # whose arms have validation data of their own
        tables["convergence"] = convergence(histories, baseline, chosen_by)
    if predicts == "cords":
        trained = trained_on(experiment, arms)
        tables["matrix"] = matrix(tables["summary"], trained, list(cases["label"].unique()))
        tables["generalization"] = generalization(cases, trained, baseline)
    for name, table in tables.items():
        write_text(experiment.folder / f"{name}.csv", table.to_csv(index=False))
    plots.training_curves(histories, experiment.folder / "curves.png", ["loss", chosen_by])
    if predicts != "cords":  # of which there would be a hundred: `matrix.png` stands for them
        _draw(experiment.folder, of_persons, baseline)
    if predicts == "grades":
        draw_grades(experiment, [*arms, *together])
    if predicts == "cords":
        draw_matrix(cases, tables["matrix"], experiment.folder / "matrix.png")
        draw_cords(experiment, arms, cases)
    report.show(experiment, tables, len(arms), [*versions.summary(complete, done)], mixed)


def _complete(experiment: Experiment, partial: bool) -> list[Cell]:
    found = states(experiment.folder, experiment.everything)
    missing = [cell for cell in experiment.cells if found[cell.id].kind != "complete"]
    if missing and not partial:
        named = "\n".join(f"  {_named(cell, found[cell.id])}" for cell in missing)
        raise IncompleteGrid(
            f"{experiment.name}: {len(missing)} of {len(experiment.cells)} cells are not "
            f"complete:\n{named}\nlaunch the grid again to finish them, or look with --partial"
        )
    complete = [cell for cell in experiment.everything if found[cell.id].kind == "complete"]
    if not any(cell.arm for cell in complete):
        raise IncompleteGrid(f"{experiment.name}: no cell is complete yet; see jobs/status.py")
    return complete


def _named(cell: Cell, state: State) -> str:
    return f"{cell.id} ({cell.arm_name}): {state.kind} {state.why}".rstrip()


def _other_data(
    experiment: Experiment, again: Sequence[Cell], done: dict[str, dict[str, Any]]
) -> list[str]:
    """Which cells would be scored anew against other data than they were trained on."""
    changed = [
        cell.id
        for cell in again
        if (before := done[cell.id].get("data_sha256"))
        and before != data_sha256(cell, experiment.folder)
    ]
    what = "data that changed since they were computed, against which these are to be scored"
    return [f"{what}:\n  {versions.cells_listed(changed)}"] if changed else []


def _score_again(experiment: Experiment, again: Sequence[Cell]) -> None:
    """Make the scores anew that are missing or spoilt, and say so in one line."""
    reasons: dict[str, list[str]] = {}
    for cell in again:
        run = experiment.run(cell)
        reasons.setdefault(spoilt(run) or "", []).append(cell.id)
        score(run)
    told = (f"{versions.cells_listed(ids)}: {why}" for why, ids in reasons.items())
    if again:
        sys.stderr.write(f"scored again from the predictions: {'; '.join(told)}\n")


def _cases(run: Run, cell: Cell) -> pd.DataFrame:
    """The run's scores with what identifies the cell."""
    names = {"person": str, "subject": str, "case": str}
    scores = pd.read_csv(run.scores, dtype=names | {"value": float})  # there may be none
    where = {"cell": cell.id, "arm": cell.arm_name, "split": cell.split}
    return scores.assign(**where, fold=cell.fold, seed=cell.seed)[
        [*where, "fold", "seed", *COLUMNS]
    ]


def _history(run: Run, cell: Cell) -> pd.DataFrame:
    return pd.DataFrame(run.history()).assign(arm=cell.arm_name, fold=cell.fold, seed=cell.seed)


def _run_row(run: Run, cell: Cell, cases: pd.DataFrame, done: dict[str, Any]) -> dict[str, Any]:
    """Knobs, seed, fold, every metric (its mean over persons), time, code and data of one run."""
    whole = of_sets(cases)
    values = pd.concat([stats.by_person(cases.drop(whole.index)), whole])
    if values["label"].nunique() > 1:  # one column each: a mean over labels would have no name
        values["metric"] = values["label"] + "_" + values["metric"]
    means = values.groupby("metric", sort=False)["value"].mean()
    history = run.history()
    return {
        "cell": cell.id,
        "role": "arm" if cell.arm else "needed",
        "arm": cell.arm_name,
        "split": cell.split,
        "fold": cell.fold,
        "seed": cell.seed,
        **knobs_of(cell.config),
        **{str(metric): mean for metric, mean in means.items()},
        "epochs_trained": len(history),
        "best_epoch": history[-1]["best_epoch"] if history else None,
        "attempts": sum(record["event"] == "started" for record in run.attempts()),
        "seconds": sum(record.get("seconds", 0.0) for record in run.attempts()),
        "time": done["time"],
        "commit": done.get("commit"),
        "code_sha256": " ".join(versions.codes(done)),  # several if attempts had different code
        "data_sha256": done.get("data_sha256"),
    }


def _draw(folder: Path, cases: pd.DataFrame, baseline: str | None) -> None:
    there = set(cases["metric"])
    for label in cases["label"].unique():
        for metric in (name for name in report.SHOWN if name in there):
            plots.box_plot(cases, metric, label, folder / f"box_{label}_{metric}.png")
            if baseline is not None and cases["arm"].nunique() > 1:
                file = folder / f"difference_{label}_{metric}.png"
                plots.paired_differences(cases, metric, label, baseline, file)
