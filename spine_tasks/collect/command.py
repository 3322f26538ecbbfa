"""Collect: the runs of an experiment as tables, statistics and figures."""

import argparse
import sys

from spine_tasks.collect.explain import explain
from spine_tasks.collect.gathered import Gathered, gather
from spine_tasks.collect.groups import grouped
from spine_tasks.collect.raters import beside_raters
from spine_tasks.collect.tables import Tables, tables_of
from spine_tasks.command import launched_parser, run_command
from spine_tasks.experiment import opened
from spine_tasks.figures.everything import draw
from spine_tasks.files import write_text
from spine_tasks.report import console
from spine_tasks.report.methods import sentence
from spine_tasks.report.page import write_page
from spine_tasks.report.page_tables import TITLES
from spine_tasks.report.publish import publish


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
    flags.add_argument(
        "--by",
        nargs="+",
        metavar="COLUMN",
        help="also groups.csv: the arms in each group of cases, by contrast, condition, level, "
        "site or age:40,60: any column of participants.tsv or of the split",
    )
    flags.add_argument(
        "--raters",
        nargs="+",
        metavar="SUFFIX",
        help="also raters.csv: masks of further raters beside the arms, by their suffix, or by "
        "their folder (with a /)",
    )
    flags.add_argument(
        "--explain",
        nargs=2,
        metavar=("ARM", "METRIC"),
        help="print only where this number comes from: its values, files, code, data and commands",
    )
    run_command(lambda: collect(flags.parse_args()))


def collect(asked: argparse.Namespace) -> None:
    """Write the tables, figures and the report of an experiment, and print the main tables.

    Raises
    ------
    IncompleteGrid, MixedResults
        As in `gather`.
    ConfigError
        There is no such arm, metric, column or rater.
    """
    experiment = opened(asked.grid, asked.results)
    gathered = gather(experiment, asked.partial, asked.mixed, asked.ensemble)
    if asked.explain:
        sys.stdout.writelines(f"{line}\n" for line in explain(gathered, *asked.explain))
        return
    tables = tables_of(gathered)
    if asked.by:
        tables["groups"] = grouped(gathered, asked.by)
    if asked.raters:
        tables["raters"] = beside_raters(gathered, asked.raters)
    _write(gathered, tables)
    console.show(gathered, tables)


def _write(gathered: Gathered, tables: Tables) -> None:
    folder = gathered.experiment.folder
    for name in TITLES.keys() - tables.keys():  # of another collect, of more or of other cells
        (folder / f"{name}.csv").unlink(missing_ok=True)
    for name, table in tables.items():
        if name != "cases":
            write_text(folder / f"{name}.csv", table.to_csv(index=False))
    gathered.keep()
    figures = draw(gathered, tables)
    publish(gathered, tables, folder)
    methods = sentence(gathered, tables)
    write_text(folder / "methods.txt", methods + "\n")
    write_page(gathered, tables, figures, folder / "report.html", methods)
