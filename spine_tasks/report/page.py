"""report.html: an experiment's question, findings, tables, figures and provenance in one file.

It needs no network and no other file: pictures, style and script are in it, and its own policy
forbids the browser to load anything else.
"""

import re
import shlex
import sys
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.tables import Tables
from spine_tasks.figures.drawn import Drawn
from spine_tasks.files import write_text
from spine_tasks.metrics import METRICS
from spine_tasks.report.page_columns import named
from spine_tasks.report.page_figures import pictures
from spine_tasks.report.page_findings import (
    cells_missing,
    failures_overcome,
    findings,
)
from spine_tasks.report.page_provenance import facts, hours, settings
from spine_tasks.report.page_tables import Shown, shown, shown_tables
from spine_tasks.run import now

HERE = Path(__file__).parent
LAST = "runs"  # the table that comes after the figures
# Control characters, lone surrogates and what changes the direction of the text around it.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069"
    "\ud800-\udfff\ufeff]"
)


def write_page(
    gathered: Gathered, tables: Tables, figures: Sequence[Drawn], file: Path, methods: str = ""
) -> None:
    """Write an experiment as one page that shows itself in any browser, without a network.

    Parameters
    ----------
    tables
        As `tables_of` makes them; each that the page knows is shown, all are named.
    figures
        In the order of the page. Those that would make it too large to mail are named instead.
    file
        The page. Tables and figures are linked as files beside it.
    methods
        How the numbers were made, for the methods section; empty: the page has none.

    Raises
    ------
    OSError
        A figure's file cannot be read.
    RunError
        The page cannot be written.
    """
    everything = shown_tables(gathered, tables)
    taken, left_out = pictures(figures)
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = _template().render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        experiment=gathered.experiment,
        grid=gathered.experiment.grid,
        gathered=gathered,
        persons=gathered.of_persons["person"].nunique(),
        findings=findings(gathered, tables),
        arms_missing=gathered.arms_missing,
        states=_counted(gathered),
        tables=[one for one in everything if one.name != LAST],
        runs=[one for one in everything if one.name == LAST],
        failures=[*_failures(gathered)],
        metrics=_metrics(tables),
        columns=_meanings(everything),
        pictures=taken,
        left_out=left_out,
        methods=methods,
        hours=hours(gathered),
        facts=facts(gathered),
        settings=settings(gathered),
        files=[f"{name}.csv" for name in tables],
        command=shlex.join(["python", *sys.argv]),
        made=now(),
    )
    write_text(file, page)


def visible(value: Any) -> Any:
    r"""Text with what cannot be seen written out, so that no name can hide or turn others round.

    Examples
    --------
    >>> visible("arm\u202e"), visible(3)
    ('arm\\u202e', 3)
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _hash(text: str) -> str:
    """What a content security policy knows an inline style or script by."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _counted(gathered: Gathered) -> dict[str, int]:
    """How many cells are in each state but complete, needed ones included."""
    kinds = [state.kind for state in gathered.states.values() if state.kind != "complete"]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _failures(gathered: Gathered) -> list[Shown]:
    found = {
        "missing": ("Cells that are not complete", "", cells_missing(gathered)),
        "overcome": (
            "Failures that a later attempt overcame",
            "These cells are complete.",
            failures_overcome(gathered),
        ),
    }
    return [shown(name, *one) for name, one in found.items() if len(one[-1])]


def _metrics(tables: Tables) -> list[tuple[str, str]]:
    """Each metric of the tables with what it is."""
    there = dict.fromkeys(
        name for table in tables.values() if "metric" in table for name in table["metric"].unique()
    )
    return [(named(name), METRICS[name].what) for name in METRICS if name in there]


def _meanings(tables: Sequence[Shown]) -> dict[str, str]:
    """What each column that has a meaning of its own says, by its head."""
    columns = (column for table in tables for column in table.columns if column.meaning)
    return {column.head: column.meaning for column in columns}
