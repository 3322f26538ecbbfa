"""Boxes in pictures of one's own: what is written, drawn, scored and refused."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch
from box_making import case, found
from box_run import DETR_KNOBS, box_cell, trained_run
from making import command, run_folder
from test_predict import command as in_this_process

from spine_tasks.data.coco import read_coco
from spine_tasks.figures.drawing import COLOURS, draw_boxes
from spine_tasks.predict.pictures import find_pictures
from spine_tasks.predictions import load_boxes

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A complete run; its results folder has the phantom that it was trained on."""
    return trained_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def phantom(run):
    [folder] = run.folder.parent.glob("phantom-*")
    return folder


@pytest.fixture
def predict(run):
    """Predict by the tiny run, in this process; without thresholds of validation unless asked."""

    def predicted(images, output, *options, runs=(run.folder,), score="0.2"):
        words = [word for folder in runs for word in ("--run", folder)]
        words += ["--input", images, "--output", output, *options]
        return in_this_process([*words, *(("--score", score) if score else ())])

    return predicted


@pytest.fixture
def pictures(tmp_path, phantom):
    """Two pictures of the phantom in a folder of their own."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("sub-s05_slice1.png", "sub-s05_slice2.png"):
        shutil.copy(phantom / "images" / name, folder)
    return folder


def boxes_of(folder):
    return json.loads((folder / "boxes.json").read_text())


def rows_of(file):
    with file.open(newline="") as lines:
        return {
            (row["case"], row["label"], row["metric"]): float(row["value"])
            for row in csv.DictReader(lines)
        }


def test_the_test_part_is_predicted_as_the_run_did(tmp_path, run, phantom, pictures, predict):
    code, _, err = predict(pictures, tmp_path / "out")
    assert code == 0, err
    data = read_coco(phantom)
    cases = data.of_subjects(["sub-s05"])
    expected = load_boxes(run.predictions / "test.json", cases, data.category_ids)
    assert sum(len(one.scores) for one in expected) > 5
    rows = boxes_of(tmp_path / "out")
    for number, one in enumerate(expected, start=1):
        own = [row for row in rows if row["image_id"] == number]
        xywh = np.array([row["bbox"] for row in own])
        np.testing.assert_allclose(xywh[:, :2], one.boxes[:, :2], atol=2e-6)
        np.testing.assert_allclose(xywh[:, :2] + xywh[:, 2:], one.boxes[:, 2:], atol=2e-6)
        assert [data.category_ids[label] for label in one.labels] == [
            row["category_id"] for row in own
        ]
        assert [row["score"] for row in own] == pytest.approx(one.scores.tolist(), abs=1e-6)


def test_the_boxes_can_be_loaded_by_cocos_own_code(tmp_path, pictures, predict):
    from pycocotools.coco import COCO

    predict(pictures, tmp_path / "out")
    loaded = COCO(tmp_path / "out" / "images.json").loadRes(str(tmp_path / "out" / "boxes.json"))
    assert loaded.loadImgs(2)[0]["file_name"] == "sub-s05_slice2.png"
    assert loaded.getCatIds() == [1, 2, 5]
    assert len(loaded.getAnnIds()) == len(boxes_of(tmp_path / "out"))


def test_boxes_follow_the_pixel_grid_of_their_picture(tmp_path, pictures, predict):
    """A picture twice as large, with the same content, has boxes twice as large."""
    [first, second] = sorted(pictures.iterdir())
    second.unlink()
    image = Image.open(first)
    twice = image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST)
    twice.save(pictures / "twice.png")
    predict(pictures, tmp_path / "out")
    one, two = (
        [row for row in boxes_of(tmp_path / "out") if row["image_id"] == number]
        for number in (1, 2)
    )
    # The surest box of each; resampling differs a little.
    np.testing.assert_allclose(np.array(one[0]["bbox"]) * 2, two[0]["bbox"], atol=8)


def test_thresholds_are_those_of_the_run_unless_given(tmp_path, run, pictures, predict):
    thresholds = {
        label: value
        for (_, label, metric), value in rows_of(run.scores).items()
        if metric == "threshold"
    }
    chosen = {name: 0.5 if math.isnan(one) else one for name, one in thresholds.items()}
    code, out, err = predict(pictures, tmp_path / "own", score=None)
    assert code == 0, err
    for name, one in chosen.items():
        assert f"{name} {one:.3g}" in err
    assert "chosen on the validation part" in err
    labels = {1: "healthy", 2: "sick", 5: "signal_change"}
    sure = [
        row
        for row in boxes_of(tmp_path / "own")
        if row["score"] >= chosen[labels[row["category_id"]]]
    ]
    assert 0 < len(sure) < len(boxes_of(tmp_path / "own"))
    assert f"│ {len(sure)} │" in " ".join(out.splitlines()[-3].split())
    _, _, err = predict(pictures, tmp_path / "given", score="0.9")
    assert "healthy 0.9, sick 0.9, signal_change 0.9 (as asked)" in err
    assert boxes_of(tmp_path / "given") == boxes_of(tmp_path / "own")


def test_a_run_without_its_scores_has_no_thresholds(tmp_path, run, pictures, predict):
    copy = shutil.copytree(run.folder, tmp_path / "copy" / run.folder.name)
    (copy / "scores.csv").write_text("person,subject\n")
    code, _, err = predict(pictures, tmp_path / "out", runs=[copy], score=None)
    assert code == 2
    assert "scores.csv was cut off" in err
    assert "--score" in err


def test_pictures_are_scored_against_references(tmp_path, phantom, pictures, predict):
    reference = phantom / "annotations" / "instances.json"
    shutil.copy(phantom / "images" / "sub-s04_slice1.png", pictures / "unknown.png")
    options = ("--reference", reference)
    code, out, err = predict(pictures, tmp_path / "out", *options, score="0")
    assert code == 0, err
    assert "does not list them: unknown.png" in err
    assert "3 pictures predicted, 2 scored" in out
    from spine_tasks.metrics.box_scores import score_boxes

    data = read_coco(phantom)
    cases = data.of_subjects(["sub-s05"])
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    number_of = {one["file_name"]: one["id"] for one in images}
    results = [
        row | {"image_id": one.image_id}
        for one in cases
        for row in boxes_of(tmp_path / "out")
        if row["image_id"] == number_of[one.image.name]
    ]
    (tmp_path / "same.json").write_text(json.dumps(results))
    same = load_boxes(tmp_path / "same.json", cases, data.category_ids)
    rows = rows_of(tmp_path / "out" / "scores.csv")
    expected = {
        (name, label, metric): value
        for _, name, label, metric, value in score_boxes(cases, same, cases, same, data.categories)
    }
    for key in [("*", "all", "AP50"), ("*", "sick", "AP"), ("*", "healthy", "AP50")]:
        assert rows[key] == expected[key]
    boxes = sum(len(one.labels) for one in cases)
    assert rows["*", "all", "recall_set"] * boxes == pytest.approx(
        rows["*", "all", "precision_set"] * len(results)
    )
    assert rows["*", "sick", "threshold"] == 0
    assert not any(name == "unknown" for name, _, _ in rows)


def test_perfect_boxes_have_perfect_scores_and_a_shifted_one_has_not():
    from spine_tasks.predict.boxes_report import box_scores

    one = case("a", (0, 0, 10, 10, 0), (20, 20, 40, 40, 1), subject="p")
    boxes = found((0, 0, 10, 10, 0, 0.9), (30, 20, 50, 40, 1, 0.8), (20, 20, 40, 40, 1, 0.1))
    rows = {row[:4]: row[4] for row in box_scores([(one, boxes)], ("x", "y"), np.array([0.5, 0.5]))}
    assert rows["p", "a", "x", "F1"] == 1
    assert rows["*", "*", "x", "AP50"] == pytest.approx(1)
    assert rows["p", "a", "y", "F1"] == rows["*", "*", "y", "recall_set"] == 0
    assert rows["*", "*", "y", "AP50"] == pytest.approx(0.5)  # found, but behind a wrong one
    assert rows["*", "*", "all", "precision_set"] == 0.5
    lax = {row[:4]: row[4] for row in box_scores([(one, boxes)], ("x", "y"), np.array([0.5, 0.1]))}
    assert lax["*", "*", "y", "recall_set"] == 1


def test_several_runs_are_fused(tmp_path, run, pictures, predict):
    """Two runs that find the same fuse to the same."""
    copy = shutil.copytree(run.folder, tmp_path / "copy" / run.folder.name)
    code, _, err = predict(pictures, tmp_path / "one")
    code, _, err = predict(pictures, tmp_path / "two", runs=[run.folder, copy])
    assert code == 0, err
    assert "boxes of 2 runs, fused by weighted box fusion" in err
    one, two = (boxes_of(tmp_path / name) for name in ("one", "two"))
    assert one[0]["bbox"] == pytest.approx(two[0]["bbox"], abs=30)  # mean of its cluster
    assert 0 < len(two) <= len(one)
    code, _, err = predict(pictures, tmp_path / "3", runs=[run.folder, run.folder])
    assert code == 2
    assert "given twice" in err


def test_runs_of_other_categories_cannot_be_fused(tmp_path, run, pictures, predict):
    other = other_categories(run, tmp_path)
    code, _, err = predict(pictures, tmp_path / "out", runs=[run.folder, other])
    assert code == 2
    assert "finds healthy, sick, but" in err
    assert not (tmp_path / "out").exists()


def other_categories(run, folder):
    """A run whose weights say that they tell two categories apart."""
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(run.folder, folder / "other" / run.folder.name)
    about = {"categories": '["healthy", "sick"]', "category_ids": "[1, 2]"}
    save_file(load_file(run.folder / "model.safetensors"), copy / "model.safetensors", about)
    return copy


def test_weights_of_another_network_are_refused(tmp_path, run, pictures, predict):
    code, _, err = predict(pictures, tmp_path / "out", "--set", "head_features=8")
    assert code == 2
    assert "not the weights of this network" in err


def test_a_detr_predicts_too(tmp_path, run, phantom, pictures, predict):
    """Its class head is set by hand to find nothing but signal changes, all with one score."""
    from spine_tasks.tasks.detection.networks import build
    from spine_tasks.tasks.detection.weights_file import save_weights
    from spine_tasks.tasks.weights_file import WEIGHTS_FILE

    own = run_folder(tmp_path / "detr", box_cell(tmp_path, job="cord_signal_detr"))
    torch.manual_seed(0)
    model = build(own.cell().config, 3)
    with torch.no_grad():
        model.class_embed.weight.zero_()
        model.class_embed.bias.copy_(torch.tensor([0, 0, math.log(7), 0]))
        model.bbox_embed.layers[-1].weight.zero_()
        # cxcywh .5, .5, .5, .25 of the picture
        model.bbox_embed.layers[-1].bias.copy_(torch.tensor([0, 0, 0, -math.log(3)]))
    save_weights(own.folder / WEIGHTS_FILE, model, read_coco(phantom))
    own.predictions.mkdir()
    (own.predictions / "test.json").write_text("[]")
    own.finish()
    code, _, err = predict(pictures, tmp_path / "out", runs=[own.folder])
    assert code == 0, err
    first = boxes_of(tmp_path / "out")[0]
    assert (first["image_id"], first["category_id"]) == (1, 5)
    assert first["score"] == pytest.approx(0.7, abs=1e-6)
    width, height = Image.open(pictures / "sub-s05_slice1.png").size
    expected = [width / 4, height * 3 / 8, width / 2, height / 4]
    assert first["bbox"] == pytest.approx(expected, abs=1e-3)
    assert len(boxes_of(tmp_path / "out")) == 2 * DETR_KNOBS["queries"]


# What can be wrong with pictures


def test_bad_pictures_are_named_and_the_others_are_predicted(tmp_path, phantom, pictures, predict):
    whole = (pictures / "sub-s05_slice1.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "text.png").write_text("not a picture")
    (pictures / "gone.png").symlink_to(tmp_path / "nowhere")
    (pictures / "notes.txt").write_text("left out")
    (pictures / "deeper").mkdir()
    (pictures / "._hidden.png").write_text("left out")
    (tmp_path / "out" / "drawn").mkdir(parents=True)
    (tmp_path / "out" / "drawn" / "cut.png").write_text("of an earlier prediction")
    code, out, err = predict(pictures, tmp_path / "out")
    assert code == 1
    for name in ("cut.png: damaged", "text.png: not a picture", "gone.png: no such file"):
        assert name in err
    assert "left out, as no pictures by their names: ._hidden.png, deeper, notes.txt" in err
    assert "3 of 5 pictures failed" in err
    assert "2 pictures predicted" in out
    assert {row["image_id"] for row in boxes_of(tmp_path / "out")} == {3, 4}  # by name of all five
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [one["id"] for one in images] == [3, 4]
    assert {file.name for file in (tmp_path / "out" / "drawn").iterdir()} == {
        "sub-s05_slice1.png",
        "sub-s05_slice2.png",
    }


def test_a_bad_picture_alone_is_an_error_and_leaves_the_old_output(tmp_path, predict):
    (tmp_path / "bad.png").write_text("not a picture")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "boxes.json").write_text("old")
    code, _, err = predict(tmp_path / "bad.png", tmp_path / "out")
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {tmp_path / 'bad.png'}: not a picture")
    assert "Traceback" not in err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["boxes.json"]
    assert (tmp_path / "out" / "boxes.json").read_text() == "old"


def test_when_all_pictures_fail_nothing_is_written(tmp_path, predict):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_text("no")
    code, _, err = predict(tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert "2 of 2 pictures failed" in err
    assert not (tmp_path / "out").exists()


def test_many_kinds_of_pictures_are_predicted(tmp_path, phantom, predict):
    folder = tmp_path / "in"
    folder.mkdir()
    grey = np.asarray(Image.open(phantom / "images" / "sub-s05_slice1.png"))
    Image.fromarray(grey).save(folder / "eight bits.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(folder / "sixteen_ü.tif")
    Image.fromarray(grey[:7, :5]).save(folder / "<b>&amp;.bmp")  # below every anchor
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(folder / "empty.jpg")
    write_dicom(folder / "IM0001", grey.astype(np.uint16) * 3 + 5)
    code, _, err = predict(folder, tmp_path / "out")
    assert code == 0, err
    drawn = {file.name for file in (tmp_path / "out" / "drawn").iterdir()}
    names = ("eight bits", "sixteen_ü", "<b>&amp;", "empty", "IM0001")
    assert drawn == {f"{name}.png" for name in names}
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    by_name = {one["file_name"]: one["id"] for one in images}
    rows = boxes_of(tmp_path / "out")
    own = {
        name: [row["bbox"] + [row["score"]] for row in rows if row["image_id"] == by_name[name]]
        for name in ("eight bits.png", "sixteen_ü.tif", "IM0001")
    }
    # Grey values are windowed by their percentiles, so their scale and offset play no role.
    for other in ("sixteen_ü.tif", "IM0001"):
        assert own[other][0] == pytest.approx(own["eight bits.png"][0], abs=1e-2)


def write_dicom(file, values):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    about = FileMetaDataset()
    about.TransferSyntaxUID = ExplicitVRLittleEndian
    about.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    about.MediaStorageSOPInstanceUID = generate_uid()
    one = FileDataset(str(file), {}, file_meta=about, preamble=b"\0" * 128)
    one.SOPClassUID = about.MediaStorageSOPClassUID
    one.SOPInstanceUID = about.MediaStorageSOPInstanceUID
    one.Rows, one.Columns = values.shape
    one.SamplesPerPixel, one.PixelRepresentation = 1, 0
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit = 15
    one.PhotometricInterpretation = "MONOCHROME2"
    one.PixelData = values.astype("<u2").tobytes()
    pydicom.dcmwrite(file, one, enforce_file_format=True)


def test_no_box_found_is_a_result(tmp_path, pictures, predict):
    code, out, err = predict(pictures, tmp_path / "out", "--set", "score=0.99")
    assert code == 0, err
    assert boxes_of(tmp_path / "out") == []
    assert len(list((tmp_path / "out" / "drawn").iterdir())) == 2
    assert "│ all" in out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"--input": "absent"}, "absent: no such file or folder"),
        ({"--input": "empty"}, "empty: no picture in it, 0 other files"),
        ({"--input": "twice"}, "names of pictures without their ending: 1 more than once: a;"),
        ({"--output": "in"}, "is the folder of the pictures"),
        ({"--output": "in/a.png"}, "is a file; name a folder"),
        ({"--output": "used"}, "has other.png, scores.csv of other predictions"),
        ({"--input": "loop/drawn", "--output": "loop"}, "is an input too"),
        ({"--output": "loop", "--reference": "loop/images.json"}, "is an input too"),
        ({"--reference": "in/a.png"}, "not JSON"),
        ({"--reference": "other.json"}, "lists none of the 1 pictures, such as a.png"),
        ({"--reference": "lacking.json"}, "no category 'signal_change', which the run finds"),
        ({"--reference": "size.json"}, "100 x 100"),
        ({"--score": "1.5"}, "--score must be in [0, 1], got 1.5"),
        ({"--mask-suffix": "gmseg"}, "--mask-suffix is for masks"),
        ({"--set": "scor=.5"}, "did you mean 'score'?"),
        ({"--run": "nothing"}, "is not a run's folder"),
        ({"--task": "gm_segmentation"}, "is a run of disc_faster_rcnn"),
        ({"--places": "in/a.png"}, "--places is for grades"),
        (
            {"--run": None, "--task": "disc_faster_rcnn", "--weights": "fasterrcnn_v1"},
            "fasterrcnn_v1 cannot predict for disc_faster_rcnn; known weights that can: none",
        ),
        (
            {"--run": None, "--task": "disc_faster_rcnn", "--weights": "in/a.png"},
            "boxes are predicted by complete runs",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path, monkeypatch, run, change, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "twice/a.png", "twice/a.bmp", "loop/drawn/a.png", "used/drawn/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30)).save(tmp_path / name)
    (tmp_path / "used" / "drawn" / "b.png").rename(tmp_path / "used" / "drawn" / "other.png")
    (tmp_path / "used" / "scores.csv").write_text("old")
    (tmp_path / "empty").mkdir()
    names = ["healthy", "sick", "signal_change"]
    write_coco("other.json", "b.png", names)
    write_coco("lacking.json", "a.png", names[:2])
    write_coco("size.json", "a.png", names)
    write_coco("loop/images.json", "a.png", names)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    flags = {"--run": run.folder, "--input": "in", "--output": "out", "--score": "0.5"} | change
    words = [word for flag, value in flags.items() if value is not None for word in (flag, value)]
    code, out, err = in_this_process(words)
    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def write_coco(file, name, categories):
    with open(file, "w") as stream:  # noqa: PTH123
        json.dump(
            {
                "images": [{"id": 7, "file_name": name, "width": 100, "height": 100}],
                "categories": [{"id": i, "name": one} for i, one in enumerate(categories, 1)],
                "annotations": [],
            },
            stream,
        )


def test_nothing_is_written_into_a_run(run, pictures, predict):
    for place in (run.folder, run.predictions, run.folder / "new" / "deep"):
        code, _, err = predict(pictures, place)
        assert code == 2
        assert f"lies in the run {run.folder.name}" in err
    assert not (run.folder / "new").exists()


def test_a_run_that_is_not_complete_is_refused(tmp_path, pictures, predict):
    unfinished = run_folder(tmp_path / "results", box_cell(tmp_path))
    code, _, err = predict(pictures, tmp_path / "out", runs=[unfinished.folder])
    assert code == 2
    assert "is not complete" in err


def test_masks_have_no_flags_of_boxes(tmp_path):
    from making import cell
    from test_predict import KNOBS as MASKS

    masks = run_folder(tmp_path, cell(MASKS))
    masks.predictions.mkdir()
    (masks.predictions / "a.nii.gz").write_bytes(b"mask")
    masks.finish()
    words = ["--run", masks.folder, "--input", tmp_path, "--output", tmp_path / "out"]
    for more, expected in (
        (["--score", ".5"], "--score is for boxes"),
        (["--run", masks.folder], "several --run are for boxes"),
    ):
        code, _, err = in_this_process([*words, *more])
        assert code == 2
        assert expected in err


def test_the_command_works_in_a_process_of_its_own(tmp_path, run, pictures):
    words = ("--run", run.folder, "--input", pictures / "sub-s05_slice1.png")
    answer = command("predict", *words, "--output", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "out" / "drawn" / "sub-s05_slice1.png").exists()
    assert not (tmp_path / "out" / "scores.csv").exists()


# Drawings

BLANK = np.tile(np.linspace(0, 1, 512, dtype=np.float32), (512, 1))


def test_boxes_and_references_are_drawn_where_they_are():
    """A full line around what was found, dashes around the reference, each in its colour."""
    one = case("a", (300, 300, 400, 400, 1))
    drawn = draw_boxes(BLANK, one, found((50, 100, 150, 200, 0, 0.5)), ["x", "y"])
    zoom = drawn.width // 512
    pixels = np.asarray(drawn)[: 512 * zoom]
    of_x, of_y = ((pixels == COLOURS[label]).all(2) for label in (0, 1))
    edge = of_x[100 * zoom, 50 * zoom : 150 * zoom]
    assert edge.all()
    dashes = of_y[300 * zoom, 300 * zoom : 400 * zoom]
    assert 0.3 < dashes.mean() < 0.7
    rows, columns = np.nonzero(of_y)
    assert (rows.min(), columns.min()) == (300 * zoom, 300 * zoom)
    assert rows.max() == columns.max() == 400 * zoom - 1


def test_a_picture_without_boxes_stays_as_it_is():
    drawn = draw_boxes(BLANK, case("a"), found(), ["x"])
    pixels = np.asarray(drawn)[:512]
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert drawn.height > pixels.shape[0]  # the legend is below it


@pytest.mark.parametrize(
    "box", [(0, 0, 512, 512), (-50, -50, 3, 3), (510, 510, 512, 512), (100, 100, 100, 100)]
)
def test_boxes_at_the_border_and_without_area_are_drawn(box):
    name = "<b>" + "very " * 20 + "long\nname"
    drawn = draw_boxes(BLANK, case("a", (*box, 0)), found((*box, 0, 1.0)), [name] * 12)
    pixels = np.asarray(drawn)
    assert (pixels == COLOURS[0]).all(2).any()


def test_texts_of_neighbours_do_not_cover_each_other():
    boxes = found(*[(200, 20 + 30 * at, 300, 40 + 30 * at, 0, 0.5) for at in range(8)])
    drawn = draw_boxes(BLANK, case("a"), boxes, ["x"])
    zoom = drawn.width // 512
    beside = np.asarray(drawn)[: 512 * zoom, 305 * zoom : 325 * zoom]
    plates = (beside == COLOURS[0]).all(2).mean(1) > 0.2
    starts = np.flatnonzero(np.diff(plates.astype(int)) == 1)
    assert len(starts) == 8


def test_pictures_of_a_folder_are_taken_by_name(tmp_path):
    for name in ("b.PNG", "a.tiff", "c.txt", "1.2.840.5"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" if name[0] == "1" else b"x")
    assert [file.name for file in find_pictures(tmp_path)] == ["1.2.840.5", "a.tiff", "b.PNG"]
