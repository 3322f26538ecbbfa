"""The command `prepare.py nnunet`, and who is in the data sets of its file."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from spine_tasks.errors import ConfigError

NNUNET_EXAMPLE = """example:
  python jobs/prepare.py nnunet --sources cords.yaml --split data_splits/cords.csv --fold 0 \\
      --output nnUNet_raw --dataset 601 general siteA siteB --dataset 602 siteA siteA
with cords.yaml such as
  sources:
    siteA:                              # letters and digits
      path: /data/siteA                # a BIDS folder
      contrasts: [T2w, rec-average_dwi] # ends of images' names
      suffix: seg-manual                # of their masks, in derivatives/labels
      labels: derivatives/labels        # where the masks are (this is the default)
      threshold: 0.5                    # values above it are cord; 1e-8: any trace of it
      sessions: ['01']                  # default: all
      persons: {sub-07: p7, sub-08: p7} # of those who are several subjects
"""


def add_nnunet(commands: Any) -> None:
    """Add the command to those of a parser."""
    make = commands.add_parser(
        "nnunet",
        help="make data sets for nnU-Net of BIDS data sets with masks of the cord",
        epilog=NNUNET_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    make.set_defaults(prepare=nnunet)
    add = make.add_argument
    add("--sources", type=Path, required=True, metavar="YAML", help="the BIDS data sets, see below")
    add("--split", required=True, help="name or file; its subjects are SOURCE_sub-X")
    add("--fold", type=int, default=0, help="of the split (default: 0)")
    add("--output", type=Path, required=True, help="nnU-Net's raw folder")
    add(
        "--dataset",
        nargs="+",
        action="append",
        required=True,
        metavar=("NUMBER NAME SOURCE", "SOURCE"),
        help="a data set to make, of which sources; may be repeated",
    )


def nnunet(chosen: argparse.Namespace) -> str:
    """Write the data sets; return the report."""
    from spine_tasks.nnunet.convert import write_dataset
    from spine_tasks.nnunet.pairs import find_pairs
    from spine_tasks.nnunet.parts import parts_of
    from spine_tasks.nnunet.sources import load_sources
    from spine_tasks.splits import load_split

    sources, split = load_sources(chosen.sources), load_split(chosen.split)
    wanted = [_dataset(given, sources) for given in chosen.dataset]
    found = {name: find_pairs(sources[name]) for _, _, names in wanted for name in names}
    lines = [f"no mask, left out: {image}" for _, alone in found.values() for image in alone]
    for number, name, names in wanted:
        pairs = [pair for one in names for pair in found[one][0]]
        parts = parts_of(pairs, split, chosen.fold)
        folder = write_dataset(chosen.output, number, name, parts)
        counts = Counter({part: len(cases) for part, cases in parts.items()})
        lines.append(f"{folder}: " + ", ".join(f"{n} {part}" for part, n in counts.items()))
    return "\n".join(lines)


def _dataset(given: list[str], sources: Any) -> tuple[int, str, list[str]]:
    from spine_tasks.configs import suggestion

    if len(given) < 3 or not given[0].isdecimal():
        raise ConfigError(f"--dataset needs NUMBER NAME SOURCE [SOURCE ...], got {' '.join(given)}")
    number, name, *names = given
    for one in names:
        if one not in sources:
            raise ConfigError(f"--dataset {number}: no source {one!r}{suggestion(one, sources)}")
    return int(number), name, names
