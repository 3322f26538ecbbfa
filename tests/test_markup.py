"""Markup after reading: cleaning, patients, neighbours, reports, and the folder that is written."""

import csv
import json
import logging
import os
import runpy
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spine_tasks.data.coco import BoxCase, read_coco
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.markup.cleaning import Rules, check_sizes, clean, without_duplicates
from spine_tasks.markup.counts import Moments, counts_text, values_text
from spine_tasks.markup.marks import MarkedImage, Markup, Note
from spine_tasks.markup.masks import read_masks
from spine_tasks.markup.naming import Naming
from spine_tasks.markup.neighbours import neighbours, warn_of_neighbours
from spine_tasks.markup.patients import with_patients
from spine_tasks.metrics.boxes import box_iou

main = runpy.run_path(str(Path(__file__).parents[1] / "jobs" / "prepare.py"))["main"]

COLUMN = [[10, 10, 40, 20], [10, 30, 40, 40], [10, 50, 40, 60]]


def image(name, boxes=COLUMN, classes=None, **more):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return MarkedImage(name=name, boxes=boxes, classes=classes or ("healthy",) * len(boxes), **more)


def markup(*images):
    return Markup(images=images, classes=("healthy", "sick"))


def cleaned(*images, size=(100, 80), **rules):
    made = markup(*images)
    return clean(made, {one.name: size for one in images}, Rules(**rules))


def notes(made):
    return [str(note) for note in made.notes]


# Cleaning


def test_iou_with_the_last_pixels_inside_is_the_studys():
    pairs = [([0, 0, 9, 9], [5, 0, 14, 9], 1 / 3), ([0, 0, 10, 10], [10, 0, 20, 10], 0.047619)]
    for first, second, expected in pairs:
        iou = box_iou(np.array([first], float), np.array([second], float), pixel=1.0)
        assert iou.item() == pytest.approx(expected, abs=5e-7)


def test_of_a_healthy_and_a_sick_box_of_one_disc_the_sick_one_stays():
    boxes = [*COLUMN, [10, 31, 40, 40]]
    classes = ("healthy", "healthy", "sick", "sick")
    made = cleaned(image("a.png", boxes, classes))
    assert made.images[0].boxes.tolist() == [COLUMN[0], COLUMN[2], [10, 31, 40, 40]]
    assert made.images[0].classes == ("healthy", "sick", "sick")
    assert notes(made) == ["1 duplicate boxes left out (IoU above 0.65, sick kept): a.png"]
    other = cleaned(image("a.png", boxes, classes), prefer=("healthy",))
    assert other.images[0].boxes.tolist() == COLUMN


def test_the_studys_iou_finds_duplicates_that_plain_iou_does_not():
    # Of 3 x 9 px: plain 18/36 = .5, with the last pixels inside 30/50 = .6
    boxes = [*COLUMN, [50, 10, 53, 19], [51, 10, 54, 19]]
    assert len(cleaned(image("a.png", boxes), merge_iou=0.55).images[0].boxes) == 5
    assert len(cleaned(image("a.png", boxes), merge_iou=0.55, pixel=1.0).images[0].boxes) == 4


def test_an_iou_at_the_threshold_is_no_duplicate_and_1_keeps_even_equal_boxes():
    halves = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    assert without_duplicates(halves, [0, 0], 0.5).all()
    assert not without_duplicates(halves, [0, 0], 0.49).all()
    assert without_duplicates(halves[[0, 0]], [0, 0], 1.0).all()


boxes = st.lists(
    st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 12)] * 2, st.integers(0, 2)), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(boxes, st.sampled_from([0.2, 0.5, 0.65]))
def test_what_stays_holds_no_duplicate_and_what_goes_has_a_stronger_one_that_stays(made, merge_iou):
    found = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in made], float).reshape(-1, 4)
    ranks = [rank for *_, rank in made]
    kept = without_duplicates(found, ranks, merge_iou)
    alike = (box_iou(found, found) > merge_iou) & ~np.eye(len(found), dtype=bool)
    assert not alike[np.ix_(kept, kept)].any()
    for place in np.flatnonzero(~kept):
        stronger = [o for o in np.flatnonzero(alike[place] & kept) if ranks[o] <= ranks[place]]
        assert stronger


def test_boxes_over_the_border_are_cut_and_those_outside_or_flat_are_left_out():
    outside = [[-9, 70, 20, 90], [100, 0, 110, 9], [5, 5, 5, 9], [-8, 2, -1, 9]]
    made = cleaned(image("a.png", COLUMN + outside))
    assert made.images[0].boxes.tolist() == [*COLUMN, [0, 70, 20, 80]]
    assert notes(made) == [
        "1 boxes cut at the border of their picture: a.png",
        "3 boxes without area or outside their picture left out: a.png (3)",
    ]


def test_images_of_too_few_boxes_are_counted_after_duplicates_are_gone():
    made = cleaned(image("a.png"), image("b.png", [*COLUMN[:2], COLUMN[0]]), image("c.png", []))
    assert [one.name for one in made.images] == ["a.png"]
    assert notes(made)[-1] == "2 images with fewer than 3 boxes left out: b.png, c.png"
    assert len(cleaned(image("a.png"), image("c.png", []), min_boxes=0).images) == 2
    with pytest.raises(DataError, match="no image is left: 1 of 1 have fewer than 4 boxes"):
        cleaned(image("a.png"), min_boxes=4)


def test_images_of_a_rare_number_of_boxes_are_left_out_where_asked():
    images = [image("a.png"), image("b.png"), image("c.png", [*COLUMN, [50, 1, 60, 9]])]
    made = cleaned(*images, min_alike=2)
    assert [one.name for one in made.images] == ["a.png", "b.png"]
    assert "fewer than 2 have left out: c.png" in notes(made)[0]


def test_a_picture_of_another_size_than_was_marked_is_refused():
    check_sizes(markup(image("a.png", size=(9, 7))), {"a.png": (9, 7)})
    with pytest.raises(DataError, match=r"a\.png: its markup was made on 9 x 7 px, .* has 7 x 9"):
        check_sizes(markup(image("a.png", size=(9, 7))), {"a.png": (7, 9)})


@pytest.mark.parametrize("wrong", [{"merge_iou": 0}, {"merge_iou": 65}, {"min_boxes": -1}])
def test_rules_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="must be"):
        Rules(**wrong)


def test_a_note_counts_all_and_names_the_first():
    note = Note("boxes", (*(f"{i}.png" for i in range(10)), "0.png"))
    assert str(note) == "11 boxes: 0.png (2), " + ", ".join(f"{i}.png" for i in range(1, 8)) + (
        " and 2 more"
    )
    assert "9.png" in note.text()


# Patients and neighbours


def test_the_patient_is_the_group_of_the_pattern():
    made = markup(image("p2/17_t1.png"), image("p3/4_t2.png"))
    assert [i.patient for i in with_patients(made, r"(\d+)_t\d", None).images] == ["17", "4"]
    named = with_patients(made, r"(p)(?P<patient>\d)/", None)
    assert [i.patient for i in named.images] == ["2", "3"]


def test_the_patient_is_a_key_and_that_of_coco_readers_without_asking():
    keys = {"patient": "4", "who": "x"}
    made = markup(image("a.png", keys=keys), image("b.png", keys=keys))
    assert [i.patient for i in with_patients(made, None, "who").images] == ["x", "x"]
    assert [i.patient for i in with_patients(made, None, None).images] == ["4", "4"]
    partly = markup(image("a.png", keys=keys), image("b.png"))
    assert [i.patient for i in with_patients(partly, None, None).images] == [None, None]


@pytest.mark.parametrize(
    ("pattern", "key", "message"),
    [
        (r"(\d+)", None, r"a\.png: --patient .* does not fit"),
        (r"a", None, "has no group"),
        (r"(a", None, "no regular expression"),
        (r"a(x?)", None, "no patient"),
        (None, "whom", "has no 'whom', did you mean 'who'"),
        (None, "who", "no patient"),
    ],
)
def test_a_wrong_way_to_know_the_patient_is_refused(pattern, key, message):
    with pytest.raises((ConfigError, DataError), match=message):
        with_patients(markup(image("a.png", keys={"who": " n/a"})), pattern, key)


def test_images_that_may_share_a_patient_are_named_where_nobody_says_who_is_who():
    made = markup(
        image("im_0010.png"), image("im_9.png"), image("other_11.png"), image("im_12.png")
    )
    (note,) = with_patients(made, None, None).notes
    assert str(note).startswith("1 pairs of images are numbered as neighbouring slices")
    assert str(note).endswith("im_9.png and im_0010.png")
    assert not with_patients(made, r"(\d+)", None).notes


def test_a_split_in_order_of_the_file_names_parts_neighbours_at_its_seams_only():
    names = [PurePosixPath(f"img_{n:05d}.jpg") for n in (1, 2, 3, 7, 8, 12)]
    assert neighbours(names) == [(0, 1), (1, 2), (3, 4)]
    assert (
        neighbours([PurePosixPath(n) for n in ("a/1.png", "b/2.png", "x1y.png", "x2y.png")]) == []
    )


def case(name, subject=None):
    return BoxCase(
        id=Path(name).stem,
        image_id=1,
        subject=subject or Path(name).stem,
        image=Path(name),
        width=9,
        height=9,
        boxes=np.zeros((0, 4)),
        labels=np.zeros(0, np.int64),
    )


def test_neighbouring_slices_in_different_parts_are_named(caplog):
    cases = [case(f"images/img_{n}.png") for n in (1, 2, 3, 9, 10)]
    parts = dict.fromkeys(("img_1", "img_2", "img_9"), "train") | {"img_3": "test", "img_10": "val"}
    with caplog.at_level(logging.WARNING):
        found = warn_of_neighbours(cases, parts)
    assert [(a.id, b.id) for a, b in found] == [("img_2", "img_3"), ("img_9", "img_10")]
    assert "2 pairs of neighbouring slices" in caplog.text
    assert "img_2 (train) and img_3 (test), img_9 (train) and img_10 (val)" in caplog.text


def test_slices_of_one_part_or_subject_and_those_outside_the_split_are_no_worry(caplog):
    cases = [
        case("train/im_1.png", "p"),
        case("train/im_2.png", "p"),
        case("im_3.png"),
        case("4.png"),
    ]
    assert not warn_of_neighbours(cases, {"p": "train", "4": "test"})
    assert not caplog.text
    assert warn_of_neighbours(cases, {"p": "train", "im_3": "test"})


# Numbers


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9), min_size=1))
def test_moments_of_parts_are_those_of_the_whole(parts):
    moments = Moments()
    for part in parts:
        moments.add(np.array(part, np.float32))
    whole = np.concatenate(parts).astype(np.float64)
    assert moments.mean == pytest.approx(whole.mean(), abs=1e-3)
    assert moments.std == pytest.approx(whole.std(), abs=1e-2)


def test_values_are_over_all_pixels_and_channels_are_fractions_of_255(tmp_path):
    Image.new("RGB", (3, 1), (255, 0, 51)).save(tmp_path / "colour.png")
    Image.new("L", (1, 1), 255).save(tmp_path / "grey.png")
    text = values_text([tmp_path / "colour.png", tmp_path / "grey.png"])
    assert "channels of the 2 pictures of 8 bits" in text
    assert "red: mean 1.0000, std 0.0000" in text
    assert "green: mean 0.2500, std 0.4330" in text
    assert "blue: mean 0.4000, std 0.3464" in text
    grey = (0.299 * 255 + 0.114 * 51) * 3 / 4 + 255 / 4
    assert f"grey values: mean {grey:.6g}" in text


def test_16_bits_count_as_they_are_and_have_no_channels(tmp_path):
    Image.fromarray(np.array([[1000, 3000]], np.uint16)).save(tmp_path / "a.png")
    assert values_text([tmp_path / "a.png"]) == "grey values: mean 2000, std 1000"


def test_boxes_are_counted_a_class_and_an_image():
    made = markup(
        image("a.png", COLUMN, ("healthy", "sick", "sick"), patient="1"),
        image("b.png", COLUMN[:1], ("sick",), patient="1"),
    )
    assert counts_text(made).splitlines() == [
        "2 images of 1 patients, 4 boxes",
        "  healthy: 1 boxes in 1 images",
        "  sick: 3 boxes in 2 images",
        "  boxes an image (images): 1 (1), 3 (1)",
    ]


# The whole command


@pytest.fixture
def source(tmp_path):
    """A folder with three pictures and a list of their boxes."""
    folder = tmp_path / "source"
    (folder / "p2").mkdir(parents=True)
    names = ("im_1.png", "im_2.png", "p2/c.png")
    for value, name in enumerate(names, start=1):
        Image.new("L", (100, 80), value).save(folder / name)
    marks = [{"label": 1 + n % 2, "bbox": box} for n, box in enumerate(COLUMN)]
    entries = [{"img_path": name, "annotation": marks} for name in names]
    (folder / "list.json").write_text(json.dumps(entries))
    return folder


def run(source, output, *more):
    flags = ["--from", "json", "--input", str(source / "list.json"), "--output", str(output)]
    return main(["markup", *flags, *map(str, more)])


def test_a_folder_is_written_that_holds_all(tmp_path, source, capsys):
    output = tmp_path / "made" / "out"
    assert run(source, output, "--histogram", "--draw", 2) == 0
    said = capsys.readouterr().out
    assert "3 images, 9 boxes" in said
    assert "sizes of boxes: median 30 x 10 px" in said
    assert "im_1.png and im_2.png" in said
    coco = json.loads((output / "instances.json").read_text())
    assert coco["categories"] == [{"id": 1, "name": "healthy"}, {"id": 2, "name": "sick"}]
    assert coco["images"][2] == {
        "id": 3,
        "file_name": "images/p2/c.png",
        "width": 100,
        "height": 80,
    }
    assert coco["annotations"][4] == {
        "id": 5,
        "image_id": 2,
        "category_id": 2,
        "bbox": [10, 30, 30, 10],
        "area": 300,
        "iscrowd": 0,
    }
    for name in ("im_1.png", "im_2.png", "p2/c.png"):
        assert (output / "images" / name).read_bytes() == (source / name).read_bytes()
    assert "3 images, 9 boxes" in (output / "report.txt").read_text()
    assert sorted(f.name for f in (output / "drawn").iterdir()) == ["1-im_1.png", "3-c.png"]
    drawn = np.asarray(Image.open(output / "drawn" / "1-im_1.png"))
    assert drawn[60, 120].tolist() == [0xE6, 0x9F, 0x00]  # a corner of the first box, 6 fold
    assert Image.open(output / "box_sizes.png").size > (0, 0)
    assert [path.name for path in output.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("placing", ["copy", "link", "keep"])
def test_pictures_are_found_from_the_output_however_they_are_placed(tmp_path, source, placing):
    output = tmp_path / "out"
    assert run(source, output, "--place", placing) == 0
    coco = json.loads((output / "instances.json").read_text())
    for entry, name in zip(coco["images"], ("im_1.png", "im_2.png", "p2/c.png"), strict=True):
        assert (output / entry["file_name"]).samefile(source / name) == (placing != "copy")
        assert (output / entry["file_name"]).read_bytes() == (source / name).read_bytes()
    data = read_coco(output)
    assert data.categories == ("healthy", "sick")
    assert [one.boxes.tolist() for one in data.cases] == [COLUMN] * 3
    assert [one.labels.tolist() for one in data.cases] == [[0, 1, 0]] * 3


def test_patients_reach_the_images(tmp_path, source, capsys):
    assert run(source, tmp_path / "out", "--patient", r"(\w)\.png|_(?P<patient>\d)") == 2
    assert "no patient ('')" in capsys.readouterr().err
    assert run(source, tmp_path / "out", "--patient", r"^(im|p2)") == 0
    coco = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert [entry["patient"] for entry in coco["images"]] == ["im", "im", "p2"]
    assert "3 images of 2 patients" in capsys.readouterr().out


def test_equal_pictures_under_two_names_are_said(tmp_path, source, capsys):
    (source / "p2/c.png").write_bytes((source / "im_1.png").read_bytes())
    assert run(source, tmp_path / "out") == 0
    assert "under several names: im_1.png = p2/c.png" in capsys.readouterr().out


def test_an_output_that_is_there_is_never_touched(tmp_path, source, capsys):
    (tmp_path / "out").mkdir()
    assert run(source, tmp_path / "out") == 2
    assert "exists already and is never overwritten" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prefer", "sik"], "--prefer: no class 'sik', did you mean 'sick'"),
        (["--min-area", "9"], "--min-area is for --from masks only"),
        (["--min-boxes", "4"], "no image is left"),
        (["--classes", "absent.yaml"], "absent.yaml: not a YAML file"),
        (["--images", "absent"], "there is no picture im_1.png in absent"),
    ],
)
def test_a_wrong_flag_is_answered_in_one_line_and_leaves_nothing(
    tmp_path, source, capsys, flags, message
):
    assert run(source, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_damaged_picture_leaves_no_half_made_folder(tmp_path, source, capsys):
    file = source / "p2/c.png"
    file.write_bytes(file.read_bytes()[:60])
    assert run(source, tmp_path / "out") == 2
    assert "c.png: damaged or cut off" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# Real data


def data_folder(name):
    if "SPINE_TEST_DATA" not in os.environ:
        pytest.skip("SPINE_TEST_DATA names no folder with real data")
    return Path(os.environ["SPINE_TEST_DATA"]) / name


def coco_boxes(file):
    """Name of a picture -> its boxes with their class, sorted."""
    coco = json.loads(file.read_text())
    names = {entry["id"]: Path(entry["file_name"]).name for entry in coco["images"]}
    classes = {entry["id"]: entry["name"] for entry in coco["categories"]}
    found = {name: [] for name in names.values()}
    for mark in coco["annotations"]:
        found[names[mark["image_id"]]].append((classes[mark["category_id"]], mark["bbox"]))
    return {name: sorted(marks) for name, marks in found.items()}


def xywh(one):
    corners = zip(one.classes, one.boxes.tolist(), strict=True)
    return [(name, [x1, y1, x2 - x1, y2 - y1]) for name, (x1, y1, x2, y2) in corners]


def test_parts_of_real_masks_are_the_boxes_that_were_published_with_them():
    folder = data_folder("spider-t2space-seg")
    published = coco_boxes(folder / "instances.json")
    # The published boxes leave out vertebrae below 800 px and discs below 150 px.
    for value, name, area in ((1, "vertebra", 800), (2, "disc", 150)):
        naming = Naming(classes={str(value): name, "*": None})
        found = read_masks(folder / "masks", folder / "images", naming, min_area=area)
        assert {one.name: sorted(xywh(one)) for one in found.images} == {
            image: [mark for mark in marks if mark[0] == name] for image, marks in published.items()
        }


def test_real_grades_make_the_sick_discs_that_the_table_of_gradings_has(tmp_path, capsys):
    folder = data_folder("spider-midsagittal")
    flags = ["--from", "graded", "--input", folder / "instances.json", "--place", "keep"]
    assert main(["markup", *map(str, flags), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "98 images of 66 patients, 660 boxes" in said
    assert "15 images without grades of every box left out" in said
    with (folder / "radiological_gradings.csv").open(newline="") as stream:
        sick = {
            (row["Patient"], row["IVD label"]): int(row["Pfirrman grade"]) > 3
            or "1" in (row["Disc narrowing"], row["Disc bulging"], row["Disc herniation"])
            for row in csv.DictReader(stream)
        }
    coco = json.loads((folder / "instances.json").read_text())
    images = {entry["id"]: entry for entry in coco["images"]}
    expected = {name: [] for name in coco_boxes(tmp_path / "out" / "instances.json")}
    for mark in coco["annotations"]:
        entry = images[mark["image_id"]]
        if (name := Path(entry["file_name"]).name) in expected:
            state = sick[str(entry["patient"]), str(mark["ivd_label"])]
            expected[name].append(("sick" if state else "healthy", mark["bbox"]))
    made = coco_boxes(tmp_path / "out" / "instances.json")
    assert made == {name: sorted(marks) for name, marks in expected.items()}
