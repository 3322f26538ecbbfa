"""Who of the cord data sets is in which part."""

from collections.abc import Sequence

from spine_tasks.errors import SplitError
from spine_tasks.nnunet.pairs import Pair
from spine_tasks.splits import PARTS, Row, Split


def subjects_of(pairs: Sequence[Pair]) -> list[Row]:
    """The subjects of pairs, as rows of participants, to be dealt into parts.

    Returns
    -------
    list of rows
        Sorted by subject: `subject` (source_sub-X), `person`, `source` and `contrasts`.

    Raises
    ------
    SplitError
        A source says who a subject is that it does not have.
    """
    there = {pair.subject for pair in pairs}
    person_of = {
        f"{source.name}_{subject}": str(person)
        for source in {pair.source.name: pair.source for pair in pairs}.values()
        for subject, person in source.persons.items()
    }
    if absent := sorted(set(person_of) - there):
        raise SplitError(f"`persons` names {absent[0]}, of whom there is no image with a mask")
    rows: dict[str, Row] = {}
    for pair in sorted(pairs, key=lambda pair: pair.id):
        who = person_of.get(pair.subject, pair.subject)
        new = {"subject": pair.subject, "person": who, "source": pair.source.name, "contrasts": ""}
        row = rows.setdefault(pair.subject, new)
        row["contrasts"] = "+".join(
            sorted({*filter(None, row["contrasts"].split("+")), pair.contrast})
        )
    return [rows[subject] for subject in sorted(rows)]


def parts_of(pairs: Sequence[Pair], split: Split, fold: int) -> dict[str, list[Pair]]:
    """The cases of each part: all contrasts and sessions of a person together.

    Raises
    ------
    SplitError
        A subject of the pairs is in no part of the fold.
    """
    parts = {part: set(split.part(fold, part)) for part in PARTS}
    found = {part: [p for p in pairs if p.subject in names] for part, names in parts.items()}
    dealt = set().union(*parts.values())
    if absent := sorted({pair.subject for pair in pairs} - dealt):
        raise SplitError(
            f"{split.file}, fold {fold}: {len(absent)} subjects of the data are in no part, such "
            f"as {absent[0]}; make a split of these data with `prepare.py split --sources`"
        )
    return found
