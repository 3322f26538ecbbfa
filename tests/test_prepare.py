"""The command line that makes splits and the phantom data set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from spine_tasks.splits import DATA_SPLITS, PARTS, load_split

PROGRAM = Path(__file__).parents[1] / "jobs" / "prepare.py"
PARTICIPANTS = """participant_id\tsite\tperson
sub-9584\tNWU\t9584
sub-9604\tPhilips\t9604
sub-9669\tJuntendo\t9669
sub-9709Ses1\tMilan\t9709
sub-9709Ses2\tMilan\t9709
"""


def prepare(*arguments):
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def participants(tmp_path):
    file = tmp_path / "participants.tsv"
    file.write_text(PARTICIPANTS)
    return file


def test_leaving_one_person_out_makes_the_challenge_split_again(tmp_path, participants):
    output = tmp_path / "made.csv"
    options = ("--leave-one-out", "--person", "person")
    done = prepare("split", "--participants", participants, "--output", output, *options)
    assert done.returncode == 0, done.stderr
    assert "5 subjects of 4 persons, 4 folds" in done.stdout
    assert "sha256sum made.csv >> SHA256SUMS" in done.stdout
    assert output.read_text() == (DATA_SPLITS / "gm_challenge.csv").read_text()


@pytest.mark.parametrize(
    ("options", "folds", "tested"),
    [(["--folds", 3, "--seed", 5], 3, 2), (["--holdout", ".6", ".2", ".2"], 1, 1)],
)
def test_options_reach_the_split(tmp_path, participants, options, folds, tested):
    output = tmp_path / "made.csv"
    assert not prepare("split", "--participants", participants, "--output", output, *options).stderr
    split = load_split(output)
    assert (len(split.folds), len(split.part(0, "test"))) == (folds, tested)


def test_another_seed_makes_another_split(tmp_path, participants):
    output = tmp_path / "made.csv"
    options = ("--output", output, "--leave-one-out", "--person", "person", "--seed", 1)
    prepare("split", "--participants", participants, *options)
    assert output.read_text() != (DATA_SPLITS / "gm_challenge.csv").read_text()


def test_an_existing_split_is_kept_and_the_message_stands_alone(tmp_path, participants):
    output = tmp_path / "made.csv"
    output.write_text("old")
    done = prepare("split", "--participants", participants, "--output", output, "--folds", 3)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{output}: exists already")
    assert done.stderr.count("\n") == 1
    assert output.read_text() == "old"


def test_a_wrong_column_is_answered_with_the_columns(tmp_path, participants):
    options = ("--output", tmp_path / "made.csv", "--folds", 3, "--stratify", "sex")
    done = prepare("split", "--participants", participants, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot stratify by sex; give one of ['participant_id', 'site', 'person']" in done.stderr


@pytest.mark.parametrize("options", [[], ["--folds", "3", "--leave-one-out"]])
def test_exactly_one_way_of_splitting_is_asked_for(tmp_path, participants, options):
    output = tmp_path / "made.csv"
    done = prepare("split", "--participants", participants, "--output", output, *options)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert not output.exists()


def coco_folder(folder, of_part):
    """Annotation files with one empty picture a patient, who is a pair of centre and number."""
    images = [
        {"id": number, "file_name": f"{who}.png", "width": 8, "height": 8, "patient": who}
        | {"centre": who[0]}
        for number, who in enumerate(who for patients in of_part.values() for who in patients)
    ]
    for part, patients in of_part.items():
        file = folder / "annotations" / f"{part}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        mine = [one for one in images if one["patient"] in patients]
        categories = [{"id": 1, "name": "disc"}]
        file.write_text(json.dumps({"images": mine, "annotations": [], "categories": categories}))
        for one in mine:
            Image.new("L", (8, 8)).save(folder / one["file_name"])
    return folder


def test_images_of_a_coco_folder_are_split_by_patient_with_strata(tmp_path):
    folder = coco_folder(tmp_path, {"all": ["a1", "a2", "a3", "b1", "b2", "b3"]})
    options = ("--output", tmp_path / "made.csv", "--folds", 3, "--stratify", "centre")
    done = prepare("split", "--coco", folder, *options)
    assert done.stdout.startswith(f"{tmp_path}/made.csv: 6 subjects of 6 persons, 3 folds")
    split = load_split(tmp_path / "made.csv")
    assert sorted(name[0] for name in split.part(0, "test")) == ["a", "b"]


def test_the_groups_of_a_table_are_kept_and_who_is_left_out_is_said(tmp_path):
    folder = coco_folder(tmp_path, {"all": ["a1", "b1", "c1", "c2"]})
    (tmp_path / "folds.csv").write_text("patient,fold\nc1,2\na1,0\nx9,1\nb1,1\nc2,2\nx8,0\n")
    options = ("--output", tmp_path / "made.csv", "--folds-from", tmp_path / "folds.csv")
    done = prepare("split", "--coco", folder, *options)
    assert done.stdout.endswith("SHA256SUMS\nleft out, as the data lacks them: x8, x9\n")
    split = load_split(tmp_path / "made.csv")
    assert [split.part(fold, "test") for fold in split.folds] == [("a1",), ("b1",), ("c1", "c2")]


def test_the_parts_of_a_coco_folder_are_kept(tmp_path):
    folder = coco_folder(tmp_path, {"train": ["a1", "a2"], "val": ["b1"], "test": ["c1"]})
    prepare("split", "--coco", folder, "--output", tmp_path / "made.csv", "--keep-parts")
    split = load_split(tmp_path / "made.csv")
    assert [split.part(0, part) for part in PARTS] == [("a1", "a2"), ("b1",), ("c1",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-parts"], "--keep-parts needs --coco"),
        (["--folds-from", "x.csv", "--stratify", "site"], "--folds-from deals nobody"),
        (["--folds-from", "x.csv", "--seed", "1"], "--folds-from deals nobody"),
        (["--folds", "3", "--test-only", "a"], "--test-only, --train-only and --leave-source-out"),
        (["--folds", "3", "--train-only", "a"], "--test-only, --train-only and --leave-source-out"),
        (["--leave-source-out"], "--test-only, --train-only and --leave-source-out need --sources"),
    ],
)
def test_options_without_a_meaning_are_refused(tmp_path, participants, options, message):
    output = tmp_path / "made.csv"
    done = prepare("split", "--participants", participants, "--output", output, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)


def test_the_phantom_holds_the_subjects_of_all_splits(tmp_path):
    adult = "subject,person,part\nsub-adult01,1,train\nsub-adult02,2,val\nsub-adult03,3,test\n"
    (tmp_path / "adult.csv").write_text(adult)
    (tmp_path / "paed.csv").write_text(adult.replace("adult", "paed"))
    splits = (tmp_path / "adult.csv", tmp_path / "paed.csv")
    done = prepare("phantom", "--output", tmp_path / "data", "--split", *splits)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("data: 6 subjects\n")
    found = sorted(path.name for path in (tmp_path / "data").glob("sub-*"))
    assert found == [f"sub-{kind}0{i}" for kind in ("adult", "paed") for i in (1, 2, 3)]


def test_a_sagittal_phantom_is_made_and_split_with_its_neighbours_named(tmp_path):
    folder = tmp_path / "spine"
    done = prepare("phantom", "--kind", "sagittal", "--output", folder, "--split", "spine_phantom")
    assert done.returncode == 0, done.stderr
    mine = tmp_path / "mine.csv"
    done = prepare("split", "--coco", folder, "--output", mine, "--folds", "3")
    assert done.returncode == 0, done.stderr
    assert "neighbouring" not in done.stderr  # both slices of a subject are in one part
    spoilt = tmp_path / "spoilt"
    text = (folder / "annotations" / "instances.json").read_text().replace('"patient"', '"whose"')
    (spoilt / "annotations").mkdir(parents=True)
    (spoilt / "annotations" / "instances.json").write_text(text)
    (spoilt / "images").symlink_to(folder / "images")
    done = prepare("split", "--coco", spoilt, "--output", tmp_path / "b.csv", "--folds", "3")
    assert done.returncode == 0, done.stderr
    assert "neighbouring slices are in different parts" in done.stderr


def test_a_phantom_of_an_unknown_split_is_answered_with_the_known_ones(tmp_path):
    done = prepare("phantom", "--output", tmp_path / "data", "--split", "gm_fantom")
    assert done.returncode == 2
    assert "data_splits has" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[], ["split"], ["phantom"], ["markup"]])
def test_help_shows_an_example_and_loads_nothing_heavy(command):
    code = (
        f"import runpy, sys\nsys.argv = ['prepare.py', *{command!r}, '--help']\n"
        f"try:\n    runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print('loaded', code, {'numpy', 'sklearn', 'nibabel', 'pandas'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "example:\n  python jobs/prepare.py" in done.stdout
    assert done.stdout.endswith("loaded 0 set()\n")
