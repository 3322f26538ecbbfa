"""Detectors as programs that run without this project, and find the same boxes."""

import contextlib
import io
import json
import shutil
import sys
import zipfile

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch
import torchvision
from box_run import DETR_KNOBS, box_cell, trained_run
from making import ROOT, python, run_folder
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spine_tasks.configs import make_config
from spine_tasks.errors import RunError
from spine_tasks.export_model import main
from spine_tasks.predict.pictures import plain_case
from spine_tasks.run import Run
from spine_tasks.tasks.detection import export as exporting
from spine_tasks.tasks.detection.inputs import normalise, read_case
from spine_tasks.tasks.detection.networks import build
from spine_tasks.tasks.detection.predict import trained
from spine_tasks.tasks.weights_file import WEIGHTS_FILE

torch.set_num_threads(1)

DETRS = {"published": {}, "fast": {"channels": 1, "channels_last": True}}
ABOUT = {"categories": ["healthy", "sick"], "thresholds": {"healthy": 0.5, "sick": 0.25}}


def some_pictures(height, width, number=3):
    """Discs on noise, so that boxes differ from picture to picture."""
    drawn = torch.Generator().manual_seed(height)
    noise = torch.rand(number, 1, height, width, generator=drawn) * 0.3
    for index in range(number):
        noise[index, :, 8 + 9 * index : 20 + 9 * index, 10:40] += 0.6
    return (noise * 255).to(torch.uint8)


def said(*words):
    """Exit code, stdout and stderr of the command, called in this process."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["export_model.py", *map(str, words)]
    redirected = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with redirected[0], redirected[1], pytest.raises(SystemExit) as end:
        main()
    return end.value.code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose classes are so sure of noise that pictures differ in their number of boxes."""
    calm = trained_run(tmp_path_factory.getbasetemp())
    folder = tmp_path_factory.mktemp("results") / calm.folder.name
    shutil.copytree(calm.folder, folder)
    file = folder / WEIGHTS_FILE
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    tensors["roi_heads.box_predictor.cls_score.weight"] *= 100
    tensors["roi_heads.box_predictor.cls_score.bias"][0] += 7  # of the background
    save_file(tensors, file, about)
    return Run(folder)


@pytest.fixture(scope="module")
def picture(run, tmp_path_factory):
    folder = trained_run(tmp_path_factory.getbasetemp()).folder.parent
    return next(folder.glob("phantom-*/images/sub-s05_slice1.png"))


@pytest.fixture(scope="module")
def program_file(run, picture, tmp_path_factory):
    """The run's Faster R-CNN, exported once by the command; the file."""
    file = tmp_path_factory.mktemp("program") / "discs.pt2"
    code, out, err = said("--run", run.folder, "--like", picture, "--output", file)
    assert code == 0, err
    assert "96 x 72 px (height x width)" in out  # the picture has 256 x 192
    return file


@pytest.fixture(scope="module")
def loaded(program_file):
    return torch.export.load(program_file)


@pytest.fixture(scope="module")
def program(loaded):
    return loaded.module()


def check_same_boxes(program, model, config, pictures):
    """The program and the model find the same boxes; returns how many in each picture."""
    numbers = []
    for one in pictures:
        image = normalise(one, config)
        with torch.no_grad():
            [wanted] = model([image])
            boxes, labels, scores = program(image)
        assert torch.equal(labels, wanted["labels"])
        np.testing.assert_allclose(boxes, wanted["boxes"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(scores, wanted["scores"], rtol=0, atol=1e-5)
        numbers.append(len(scores))
    return numbers


@pytest.mark.parametrize("variant", DETRS)
def test_the_program_of_a_detr_finds_the_same_boxes(tmp_path, variant):
    config = make_config("cord_signal_detr", DETR_KNOBS | DETRS[variant] | {"variant": variant})
    torch.manual_seed(1)
    model = build(config, 2).eval()
    first, *others = some_pictures(64, 48)
    exporting.export(model, config, first, ABOUT, tmp_path / "detr.pt2")
    program = torch.export.load(tmp_path / "detr.pt2").module()
    assert min(check_same_boxes(program, model, config, others)) > 0


def test_the_program_of_a_run_finds_the_same_boxes_in_other_pictures(run, program):
    config = run.cell().config
    model = trained(config, run.folder)
    pictures = [*some_pictures(96, 72), torch.zeros(1, 96, 72, dtype=torch.uint8)]
    numbers = check_same_boxes(program, model, config, pictures)
    assert len(set(numbers)) > 1  # not the number that it was made with


def test_pictures_of_another_size_are_refused(run, program):
    """Not answered with wrong boxes, as a traced network would."""
    with pytest.raises(AssertionError, match="Guard failed"):
        program(normalise(some_pictures(72, 96)[0], run.cell().config))


def test_the_program_runs_without_this_project_as_its_notes_say(tmp_path, run, program_file):
    one = some_pictures(96, 72)[0]
    torch.save(one, tmp_path / "picture.pt")
    code = """
import json, sys, torch, torchvision
notes = {"about.json": "", "README.md": ""}
detect = torch.export.load(sys.argv[1], extra_files=notes).module()
about = json.loads(notes["about.json"])
grey = torch.load(sys.argv[2]).float() / 255
mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
with torch.no_grad():
    boxes, labels, scores = detect((grey - mean) / std)
assert "spine_tasks" not in sys.modules
print(json.dumps([boxes.tolist(), labels.tolist(), scores.tolist(), about, notes["README.md"]]))
"""
    answer = python(code, program_file, tmp_path / "picture.pt")
    assert answer.returncode == 0, answer.stderr
    boxes, labels, scores, about, note = json.loads(answer.stdout)
    config = run.cell().config
    with torch.no_grad():
        [wanted] = trained(config, run.folder)([normalise(one, config)])
    np.testing.assert_allclose(boxes, wanted["boxes"], atol=1e-4)
    np.testing.assert_allclose(scores, wanted["scores"], atol=1e-5)
    assert labels == wanted["labels"].tolist()
    assert about["run"] == run.folder.name
    assert about["categories"] == ["healthy", "sick", "signal_change"]
    assert about["category_ids"] == [1, 2, 5]
    assert set(about["thresholds"]) == set(about["categories"])
    assert about["input_shape"] == [3, 96, 72]
    assert (about["image_px"], about["merge_iou"]) == (96, 0.65)
    assert "healthy, sick, signal_change" in note
    assert "96 x 72" in note


def test_neither_the_picture_nor_paths_of_the_host_are_in_the_file(
    run, picture, loaded, program_file
):
    config = run.cell().config
    [[held], _] = loaded.example_inputs
    own = normalise(read_case(plain_case(picture, 1), config), config)
    assert held.shape == own.shape
    assert not torch.equal(held, own)
    assert not torch.equal(held, own.flip(-1))
    with zipfile.ZipFile(program_file) as archive:
        names = archive.namelist()
        content = b"".join(map(archive.read, names))
    assert not any("partial" in name for name in names)
    assert str(ROOT).encode() not in content
    assert str(program_file.parent).encode() not in content


class Fixed(torch.nn.Module):
    """A detector that always finds two boxes."""

    def forward(self, _images):
        boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 500, 500]])
        return [
            {"boxes": boxes, "labels": torch.tensor([0, 1]), "scores": torch.tensor([0.9, 0.8])}
        ]


def test_a_program_that_finds_other_boxes_is_refused():
    single = exporting.Single(Fixed())
    boxes, labels, scores = single(None)
    exporting._check(lambda _: (boxes, labels, scores), single, [None])
    for other in [
        (boxes + 1e-3, labels, scores),
        (boxes, labels, scores + 1e-4),
        (boxes, labels.flip(0), scores),
        (boxes[:1], labels[:1], scores[:1]),
    ]:
        with pytest.raises(RunError, match="the exported program finds"):
            exporting._check(lambda _, other=other: other, single, [None])


def test_torchvision_stays_as_it_was():
    before = torchvision.ops.boxes.batched_nms
    with exporting._traceable_nms():
        assert torchvision.ops.boxes.batched_nms is not before
    assert torchvision.ops.boxes.batched_nms is before


def test_neighbours_are_suppressed_within_a_label_only():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [90, 0, 99, 9]])
    scores, labels = torch.tensor([0.5, 0.9, 0.8, 0.1]), torch.tensor([0, 0, 3, 3])
    assert exporting._nms_by_label(boxes, scores, labels, 0.5).tolist() == [1, 2, 3]


def test_what_cannot_be_exported_is_said(tmp_path, run, picture):
    unfinished = run_folder(tmp_path / "results", box_cell(tmp_path)).folder
    flags = {"--run": run.folder, "--like": picture, "--output": tmp_path / "x.pt2"}
    for change, expected in [
        ({"--output": tmp_path / "x.onnx"}, "must end in .pt2"),
        ({"--output": run.folder / "x.pt2"}, "lies in the run"),
        ({"--like": tmp_path / "absent.png"}, "absent.png: no such file"),
        ({"--run": unfinished}, "is not complete"),
        ({"--run": tmp_path}, "is not a run's folder"),
    ]:
        words = [word for pair in (flags | change).items() for word in pair]
        code, out, err = said(*words)
        assert (code, out) == (2, "")
        assert expected in err
    assert not (tmp_path / "x.pt2").exists()
