"""Prepare what an experiment reads: a split, a phantom, boxes, grades or nnU-Net's data sets."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from spine_tasks.errors import ConfigError, SpineError
from spine_tasks.markup.command import GRADES_EXAMPLE, MARKUP_EXAMPLE, add_grades, add_markup
from spine_tasks.nnunet.command import NNUNET_EXAMPLE, add_nnunet

SPLIT_EXAMPLE = """example:
  python jobs/prepare.py split --participants my_data/participants.tsv \\
      --output data_splits/my_data.csv --folds 5 --stratify site --person person
  python jobs/prepare.py split --coco my_images --output data_splits/my_images.csv --folds 5
  python jobs/prepare.py split --sources cords.yaml --output data_splits/cords.csv --folds 5 \\
      --test-only basel --train-only oslo
  python jobs/prepare.py split --sources cords.yaml --output data_splits/unseen.csv \\
      --leave-source-out
"""
SOURCES_NOTES = """
of --sources, all contrasts and sessions of a person are in one part, and:
  --folds, --holdout    spread each source over the parts; for a source of fewer persons than
                        folds, use --train-only or --test-only
  --leave-source-out    fold 0 tests all persons of the first source by name, fold 1 of the
                        second, and so on; of each other source, a fifth of the persons is val
  --test-only           refuses persons who are in other sources too
  --train-only          takes the subjects of its persons in other sources along
"""
# phantom -> what it is read as
KINDS = {"axial": "bids", "sagittal": "coco", "lumbar": "grades", "cords": "cords"}
PHANTOM_EXAMPLE = """example:
  python jobs/prepare.py phantom --output data/phantom --split gm_phantom gm_phantom_adult
  python jobs/prepare.py phantom --kind sagittal --output data/spine --split spine_phantom
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        sys.stdout.write(chosen.prepare(chosen) + "\n")
    except SpineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def split(chosen: argparse.Namespace) -> str:
    """Write the split that was asked for."""
    from spine_tasks.given_splits import (
        graded_subjects,
        image_subjects,
        source_subjects,
        split_by_groups,
        split_by_parts,
    )
    from spine_tasks.make_splits import make_split, read_participants, subjects_of_persons

    _check_way(chosen)
    if chosen.keep_parts:
        return _written(chosen.output, split_by_parts(chosen.coco, chosen.person))
    if chosen.sources and not chosen.folds_from:
        return _written(chosen.output, _dealt_sources(chosen))
    keys = [key for key in (chosen.person, chosen.stratify) if key]
    if chosen.coco:
        participants = image_subjects(chosen.coco, keys)
    elif chosen.grades:
        participants = graded_subjects(chosen.grades)
    elif chosen.sources:
        participants, chosen.person = source_subjects(chosen.sources), "person"
    else:
        participants = read_participants(chosen.participants)
    if chosen.folds_from:
        rows, absent = split_by_groups(participants, chosen.folds_from, chosen.person)
        left_out = f"\nleft out, as the data lacks them: {', '.join(absent)}" if absent else ""
        return _written(chosen.output, rows) + left_out
    folds = chosen.folds
    if chosen.leave_one_out:
        folds = len(subjects_of_persons(participants, chosen.person))
    rows = make_split(
        participants,
        folds=folds,
        holdout=tuple(chosen.holdout) if chosen.holdout else None,
        stratify=chosen.stratify,
        person=chosen.person,
        seed=chosen.seed,
    )
    written = _written(chosen.output, rows)
    if chosen.coco:
        _warn_of_neighbours(chosen.coco, chosen.output)
    return written


def _dealt_sources(chosen: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of a split of several sources."""
    from spine_tasks.given_splits import source_subjects
    from spine_tasks.source_splits import split_sources

    one_a = "source" if chosen.leave_source_out else "person" if chosen.leave_one_out else None
    return split_sources(
        source_subjects(chosen.sources),
        folds=one_a or chosen.folds,
        holdout=tuple(chosen.holdout) if chosen.holdout else None,
        test_only=chosen.test_only,
        train_only=chosen.train_only,
        stratify=chosen.stratify,
        seed=chosen.seed,
    )


def _warn_of_neighbours(folder: Path, split: Path) -> None:
    """Name images that look like neighbouring slices and are in different parts of a fold."""
    from spine_tasks.data.coco import read_coco
    from spine_tasks.markup.neighbours import warn_of_neighbours
    from spine_tasks.splits import PARTS, load_split

    made, cases = load_split(split), read_coco(folder).cases
    for fold in made.folds:
        part_of = {name: part for part in PARTS for name in made.part(fold, part)}
        if warn_of_neighbours(cases, part_of):
            return  # the same slices would be named for every fold


def _check_way(chosen: argparse.Namespace) -> None:
    """Refuse options that a given split cannot follow."""
    fixed = chosen.test_only or chosen.train_only
    if (fixed or chosen.leave_source_out) and not chosen.sources:
        raise ConfigError("--test-only, --train-only and --leave-source-out need --sources")
    given = "--keep-parts" if chosen.keep_parts else "--folds-from" if chosen.folds_from else None
    if given and fixed:
        raise ConfigError(f"{given} moves nobody: leave --test-only and --train-only out")
    if given and (chosen.stratify or chosen.seed):
        raise ConfigError(f"{given} deals nobody, so --stratify and --seed have no meaning with it")
    if chosen.keep_parts and not chosen.coco:
        raise ConfigError("--keep-parts needs --coco: other data has no parts")
    if chosen.sources and chosen.person:
        raise ConfigError("--sources says who a person is in its file: leave --person out")
    if chosen.grades and (chosen.person or chosen.stratify):
        raise ConfigError("--person and --stratify need --participants: grades have no such column")


def _written(output: Path, rows: list[dict[str, str]]) -> str:
    """Write a split and say what is in it."""
    from spine_tasks.make_splits import write_split

    made = write_split(output, rows)
    persons = len(set(made.person_of.values()))
    return (
        f"{output}: {len(made.person_of)} subjects of {persons} persons, "
        f"{len(made.folds)} folds; record it: cd {output.parent} && "
        f"sha256sum {output.name} >> SHA256SUMS"
    )


def phantom(chosen: argparse.Namespace) -> str:
    """Make the phantom subjects of some splits and say where they are."""
    from spine_tasks.data.made_up import made_up
    from spine_tasks.splits import load_split

    subjects = sorted({name for split in chosen.split for name in load_split(split).person_of})
    return f"{made_up(KINDS[chosen.kind], chosen.output, subjects)}: {len(subjects)} subjects"


def _parser() -> argparse.ArgumentParser:
    others = (PHANTOM_EXAMPLE, MARKUP_EXAMPLE, GRADES_EXAMPLE, NNUNET_EXAMPLE)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=SPLIT_EXAMPLE + "".join(text.removeprefix("example:\n") for text in others),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{split,phantom,markup,grades,nnunet}")
    add_markup(commands)
    add_grades(commands)
    add_nnunet(commands)
    raw = argparse.RawDescriptionHelpFormatter
    make = commands.add_parser(
        "split",
        help="assign the persons of a data set to train, val and test",
        epilog=SPLIT_EXAMPLE + SOURCES_NOTES,
        formatter_class=raw,
    )
    make.set_defaults(prepare=split)
    source = make.add_mutually_exclusive_group(required=True)
    source.add_argument("--participants", type=Path, help="participants.tsv or .csv")
    source.add_argument("--coco", type=Path, metavar="FOLDER", help="images with boxes")
    source.add_argument("--grades", type=Path, metavar="FOLDER", help="places with grades")
    source.add_argument("--sources", type=Path, metavar="YAML", help="BIDS data sets, for nnU-Net")
    make.add_argument("--output", type=Path, required=True, help="a new file, never overwritten")
    way = make.add_mutually_exclusive_group(required=True)
    way.add_argument("--folds", type=int, metavar="K", help="cross-validation, at least 3")
    way.add_argument("--leave-one-out", action="store_true", help="one fold a person")
    way.add_argument("--leave-source-out", action="store_true", help="one fold a source, see below")
    way.add_argument(
        "--holdout",
        type=float,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        help="fractions of the persons, of sum 1",
    )
    way.add_argument("--folds-from", type=Path, metavar="TABLE", help="groups of this CSV, as is")
    way.add_argument("--keep-parts", action="store_true", help="those of train.json, val.json, ...")
    make.add_argument(
        "--stratify",
        metavar="COLUMN",
        help="spread its values over the parts (default: none; of --sources: source and contrasts)",
    )
    for part in ("test", "train"):
        make.add_argument(
            f"--{part}-only",
            nargs="+",
            default=(),
            metavar="SOURCE",
            help=f"those of --sources whose persons are {part} in every fold",
        )
    make.add_argument("--person", metavar="COLUMN", help="who a subject is (default: each its own)")
    make.add_argument("--seed", type=int, default=0, help="of the shuffling (default: 0)")
    data = commands.add_parser(
        "phantom",
        help="make the made-up data set that demo and tests train on",
        epilog=PHANTOM_EXAMPLE,
        formatter_class=raw,
    )
    data.set_defaults(prepare=phantom)
    data.add_argument("--output", type=Path, required=True, help="folder of the data set")
    data.add_argument(
        "--kind",
        choices=KINDS,
        default="axial",
        help="axial cords with masks (default), sagittal necks with boxes, lumbar spines with "
        "grades in DICOM, or several data sets of cords in three contrasts",
    )
    data.add_argument("--split", nargs="+", required=True, help="splits that name the subjects")
    return parser


if __name__ == "__main__":
    sys.exit(main())
