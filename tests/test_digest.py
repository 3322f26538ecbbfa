"""What a cell reads is the same in every attempt, or the attempt is refused."""

import json
import os
import shutil

import pytest
from making import cell, run_folder, small_data

from spine_tasks.cell import Cell
from spine_tasks.configs import make_config
from spine_tasks.data import digest as under_test
from spine_tasks.data.digest import check_same, data_sha256, selection, weights_sha256
from spine_tasks.errors import DataError, RunError, SplitError, WeightsError
from spine_tasks.files import sha256, write_json
from spine_tasks.splits import load_split

TEST = load_split("gm_phantom").part(0, "test")[0]
LONG_AGO_S = 1e9


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return small_data(tmp_path_factory.mktemp("data") / "bids", "gm_phantom")


@pytest.fixture
def data(untouched, tmp_path):
    """A data set that may be spoilt, whose files are old enough to be remembered."""
    folder = shutil.copytree(untouched, tmp_path / "bids")
    for file in folder.rglob("*.nii.gz"):
        os.utime(file, (LONG_AGO_S, LONG_AGO_S))
    return folder


def of(folder, results, **knobs):
    return data_sha256(cell({"data": str(folder)} | knobs), results)


def image(folder, subject=TEST):
    return folder / subject / "anat" / f"{subject}_T2starw.nii.gz"


def mask(folder, subject=TEST, suffix="gmseg-manual"):
    labels = folder / "derivatives" / "labels" / subject / "anat"
    return labels / f"{subject}_T2starw_{suffix}.nii.gz"


def flip_last_byte(file):
    """Another content of the same size."""
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_the_digest_is_of_the_content_and_not_of_the_place(data, tmp_path):
    results, moved = tmp_path / "results", tmp_path / "elsewhere" / "other"
    shutil.copytree(data, moved)
    first = of(data, results)
    assert first == of(data, results) == of(moved, tmp_path / "results2")
    assert len(first) == 64


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize("which", [image, mask])
def test_every_image_and_mask_of_every_part_counts(data, tmp_path, part, which):
    before = of(data, tmp_path)
    flip_last_byte(which(data, load_split("gm_phantom").part(0, part)[-1]))
    assert of(data, tmp_path) != before


def test_two_exchanged_masks_are_noticed(data, tmp_path):
    # The same contents under other names: a digest of contents alone would be equal.
    before = of(data, tmp_path)
    first, second = load_split("gm_phantom").part(0, "train")[:2]
    flip_last_byte(mask(data, first))
    changed = of(data, tmp_path)
    flip_last_byte(mask(data, first))
    flip_last_byte(mask(data, second))
    assert len({before, changed, of(data, tmp_path)}) == 3


def test_what_the_cell_does_not_read_does_not_count(data, tmp_path):
    before, with_cord = of(data, tmp_path), of(data, tmp_path, crop="cord")
    flip_last_byte(mask(data, suffix="seg-manual"))
    (data / "README").write_text("new")
    assert of(data, tmp_path) == before
    assert of(data, tmp_path, crop="cord") != with_cord


def test_made_up_data_has_a_digest_too(tmp_path, data):
    made = data_sha256(cell(), tmp_path / "results")
    assert made != of(data, tmp_path / "results")
    assert made == data_sha256(cell(), tmp_path / "results")


def test_a_link_counts_by_what_it_leads_to(data, tmp_path):
    before = of(data, tmp_path)
    file = image(data)
    file.rename(tmp_path / "content")
    file.symlink_to(tmp_path / "content")
    assert of(data, tmp_path) == before


def test_a_missing_file_is_an_error_and_not_a_digest(data, tmp_path):
    mask(data).unlink()
    with pytest.raises(DataError, match=r"1 of .* masks are missing"):
        of(data, tmp_path)


def test_a_split_that_changed_since_the_launch_is_refused(data, tmp_path):
    split = tmp_path / "split.csv"
    shutil.copy(load_split("gm_phantom").file, split)
    launched = cell({"data": str(data)}, split=str(split))
    assert data_sha256(launched, tmp_path)
    split.write_text(split.read_text().replace("test", "val", 1))
    with pytest.raises(SplitError, match=r"split\.csv: changed since cell .* was launched"):
        data_sha256(launched, tmp_path)


def hashed(monkeypatch):
    """The files that are really read from now on."""
    read = []
    monkeypatch.setattr(under_test, "sha256", lambda file: read.append(file) or sha256(file))
    return read


def test_what_has_not_changed_is_not_hashed_again(data, tmp_path, monkeypatch):
    before = of(data, tmp_path)
    read = hashed(monkeypatch)
    assert of(data, tmp_path) == before
    assert read == []
    flip_last_byte(image(data))
    of(data, tmp_path)
    assert read == [image(data)]


def test_a_file_of_the_same_size_and_another_time_is_hashed_again(data, tmp_path, monkeypatch):
    of(data, tmp_path)
    os.utime(image(data), (LONG_AGO_S, LONG_AGO_S + 1))
    read = hashed(monkeypatch)
    of(data, tmp_path)
    assert read == [image(data)]


def test_a_file_that_was_just_written_is_not_trusted_to_stay(data, tmp_path, monkeypatch):
    # Two changes within one tick of the file system's clock have the same time.
    mask(data).touch()
    of(data, tmp_path)
    read = hashed(monkeypatch)
    of(data, tmp_path)
    assert read == [mask(data)]


@pytest.mark.parametrize("spoilt", ["", "{", "[]", "\0\xff", '{"x": 1}', '{"%s": ["", 1]}', "gone"])
def test_a_lost_or_spoilt_memory_costs_only_time(data, tmp_path, spoilt):
    before = of(data, tmp_path)
    memory = tmp_path / "digests.json"
    assert len(json.loads(memory.read_text())) > 10
    if spoilt == "gone":
        memory.unlink()
    else:
        memory.write_bytes(spoilt.replace("%s", str(image(data))).encode("latin1"))
    assert of(data, tmp_path) == before
    assert len(json.loads(memory.read_text())) > 10


def test_copies_on_a_nodes_own_disk_are_not_remembered(data, tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_STAGED", "{}")
    of(data, tmp_path)
    assert not (tmp_path / "digests.json").exists()


def test_weights_have_a_digest_where_the_cell_starts_from_them(tmp_path):
    file = tmp_path / "own.hdf5"
    file.write_bytes(b"weights")
    assert weights_sha256(cell({"init": "pretrained", "weights": str(file)})) == sha256(file)
    assert weights_sha256(cell({"init": "pretrained"})) is None
    # Weights that are fixed for a whole grid are not read by its scratch cells.
    assert weights_sha256(cell({"init": "scratch", "weights": str(tmp_path / "none")})) is None
    with pytest.raises(WeightsError, match="none"):
        weights_sha256(cell({"init": "pretrained", "weights": str(tmp_path / "none")}))


@pytest.fixture
def run(tmp_path):
    """A run whose attempt before read data with the digest `a...`."""
    made = run_folder(tmp_path)
    write_json(made.folder / "environment.json", {"data_sha256": "a" * 64})
    return made


def test_a_checkpoint_is_not_continued_on_other_data(run):
    checkpoint = run.checkpoint / "last.npz"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"")
    check_same(run, "a" * 64)
    with pytest.raises(RunError, match=f"{run.folder.name}: the data changed.*aaaaaaaa then, bbbb"):
        check_same(run, "b" * 64)
    with pytest.raises(RunError, match="aaaaaaaa then, none now"):
        check_same(run, None)
    shutil.rmtree(run.checkpoint)  # as the message says
    check_same(run, "b" * 64)


def test_what_trained_nothing_may_start_anew_on_other_data(run):
    check_same(run, "b" * 64)
    (run.folder / "environment.json").unlink()
    check_same(run, "b" * 64)


def test_an_attempt_of_an_older_version_says_nothing_about_its_data(run):
    write_json(run.folder / "environment.json", {})
    write_json(run.checkpoint / "last.npz", 0)
    check_same(run, "b" * 64)


def test_cells_that_read_the_same_files_have_the_same_selection():
    split = load_split("gm_phantom")
    same = selection(cell(), split)
    assert same == selection(cell({"epochs": 7, "init": "pretrained"}, seed=3), split)
    for other in ({"data": "elsewhere"}, {"contrast": "T2w"}, {"crop": "cord"}):
        assert selection(cell(other), split) != same
    assert selection(cell({"crop": "cord", "cord_suffix": "other"}), split) != selection(
        cell({"crop": "cord"}), split
    )


def test_folds_of_the_same_subjects_have_the_same_selection(tmp_path):
    file = tmp_path / "folds.csv"
    rows = ["s1,s1,train,0", "s2,s2,val,0", "s3,s3,test,0"]
    rows += ["s1,s1,test,1", "s2,s2,train,1", "s3,s3,val,1"]
    rows += ["s1,s1,test,2", "s2,s2,train,2", "s4,s4,val,2"]
    file.write_text("\n".join(["subject,person,part,fold", *rows]) + "\n")
    split = load_split(file)
    first, second, third = (selection(cell(split=str(file), fold=f), split) for f in range(3))
    assert first == second != third


def test_folds_of_a_specific_cord_model_read_other_files():
    # Of a data set that it is not trained on, it reads the images of the test part alone.
    split = load_split("cords_phantom")
    general, specific = (make_config("cord_nnunet", {"train_on": on}) for on in (None, ["siteA"]))
    fields = {"job": "cord_nnunet", "split": "cords_phantom", "seed": 0, "split_sha256": ""}

    def of_folds(config):
        return [selection(Cell(config=config, fold=f, **fields), split) for f in range(2)]

    assert len(set(of_folds(general))) == 1
    assert len(set(of_folds(specific))) == 2
