"""COCO folders: every image and box is kept, mended as said, or refused by name."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spine_tasks.data.coco import read_coco
from spine_tasks.errors import DataError

WIDTH, HEIGHT = 40, 30


def picture(file, size=(WIDTH, HEIGHT)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros(size[::-1], np.uint8)).save(file)


def image(number, name, **more):
    return {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT} | more


def mark(image_id, bbox, category_id=1, **more):
    return {"image_id": image_id, "bbox": bbox, "category_id": category_id} | more


CATEGORIES = [{"id": 7, "name": "sick"}, {"id": 1, "name": "healthy"}]  # with a gap, unordered


def content(images, marks=(), categories=CATEGORIES):
    return {"images": images, "annotations": list(marks), "categories": categories}


def put(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.fixture
def flat(tmp_path):
    """A function that writes a flat folder of images a.png and b.png with some annotations."""

    def make(*marks, images=None, categories=CATEGORIES, on_disk=("a.png", "b.png")):
        for name in on_disk:
            picture(tmp_path / "images" / name)
        images = [image(5, "b.png"), image(3, "a.png")] if images is None else images
        put(tmp_path / "instances.json", content(images, marks, categories))
        return tmp_path

    return make


def parts(folder, **of_part):
    """The layout train/, val/, ..., annotations/*.json; each image has a box at (id, part)."""
    for number, (part, images) in enumerate(of_part.items()):
        for one in images:
            picture(folder / part / one["file_name"])
        marks = [mark(one["id"], [one["id"], number, 5, 5]) for one in images]
        put(folder / "annotations" / f"{part}.json", content(images, marks))
    return folder


# What is read


def test_a_flat_folder_is_read_by_id_with_labels_in_the_order_of_the_category_ids(flat):
    folder = flat(mark(5, [1, 2, 10, 20], 7), mark(3, [0.5, 0, 4, 3]), mark(5, [3, 4, 5, 6], 1))
    data = read_coco(folder)
    assert (data.categories, data.category_ids) == (("healthy", "sick"), (1, 7))
    assert [(case.id, case.image_id, case.subject) for case in data.cases] == [
        ("a", 3, "a"),
        ("b", 5, "b"),
    ]
    first, second = data.cases
    np.testing.assert_array_equal(first.boxes, [[0.5, 0, 4.5, 3]])
    np.testing.assert_array_equal(second.boxes, [[1, 2, 11, 22], [3, 4, 8, 10]])
    np.testing.assert_array_equal(second.labels, [1, 0])
    assert (second.boxes.dtype, second.labels.dtype) == (np.float64, np.int64)
    assert (second.width, second.height) == (WIDTH, HEIGHT)
    assert second.image == folder / "images" / "b.png"
    assert data.annotations == (folder / "instances.json",)
    assert data.dropped == ()


def test_the_parts_of_a_folder_are_one_data_set_and_each_image_is_from_its_own_folder(tmp_path):
    folder = parts(tmp_path, train=[image(1, "x.png"), image(2, "y.png")], val=[image(9, "z.png")])
    data = read_coco(folder)
    assert [(case.id, case.image_id) for case in data.cases] == [("x", 1), ("y", 2), ("z", 9)]
    assert data.cases[2].image == folder / "val" / "z.png"
    assert [file.name for file in data.annotations] == ["train.json", "val.json"]


def test_the_file_names_of_coco_itself_are_known(tmp_path):
    picture(tmp_path / "train2017" / "x.png")
    put(tmp_path / "annotations" / "instances_train2017.json", content([image(1, "x.png")]))
    assert read_coco(tmp_path).cases[0].image == tmp_path / "train2017" / "x.png"


def test_colliding_image_ids_are_numbered_anew_by_file_then_id(tmp_path):
    folder = parts(
        tmp_path,
        val=[image(2, "v2.png"), image(1, "v1.png")],
        train=[image(4, "t4.png"), image(2, "t2.png")],
    )
    cases = read_coco(folder).cases
    assert {case.id: case.image_id for case in cases} == {"t2": 1, "t4": 2, "v1": 3, "v2": 4}
    corners = {case.id: case.boxes[0, :2].tolist() for case in cases}
    assert corners == {"t2": [2, 1], "t4": [4, 1], "v1": [1, 0], "v2": [2, 0]}


def test_equal_file_names_in_two_folders_get_their_folders_into_the_id(tmp_path):
    folder = parts(tmp_path, train=[image(1, "x.png"), image(2, "y.png")], val=[image(3, "x.png")])
    found = {case.id: case.image_id for case in read_coco(folder).cases}
    assert found == {"train-x": 1, "train-y": 2, "val-x": 3}


def test_images_that_differ_in_their_ending_alone_are_refused(flat):
    images = [image(1, "a.png"), image(2, "a.jpg")]
    with pytest.raises(DataError, match="without their ending: 1 more than once: images-a"):
        read_coco(flat(images=images, on_disk=("a.png", "a.jpg")))


def test_a_name_that_ends_in_a_number_has_no_ending(tmp_path):
    names = ("1.2.840.7", "1.2.840.8")
    for name in names:
        put(tmp_path / name, "pixels are not read here")
    images = [image(number, name) for number, name in enumerate(names)]
    put(tmp_path / "made.json", content(images))
    assert [case.id for case in read_coco(tmp_path).cases] == list(names)


@pytest.mark.parametrize("key", ["patient", "subject"])
def test_the_subject_is_what_the_image_says(flat, key):
    images = [image(1, "a.png", **{key: 12}), image(2, "b.png", **{key: " p-7 "})]
    data = read_coco(flat(images=images))
    assert [case.subject for case in data.cases] == ["12", "p-7"]
    assert [case.id for case in data.of_subjects(["p-7", "nobody"])] == ["b"]


def test_an_image_without_annotation_stays_as_a_negative(flat):
    data = read_coco(flat(mark(3, [1, 1, 2, 2])))
    assert data.cases[1].boxes.shape == (0, 4)
    assert data.cases[1].labels.shape == (0,)
    assert read_coco(flat()).cases[0].boxes.shape == (0, 4)  # and so may all be


def test_categories_are_chosen_by_name_in_the_order_of_the_data(flat):
    folder = flat(mark(3, [1, 1, 2, 2], 7), mark(3, [5, 5, 2, 2], 1))
    sick = read_coco(folder, ["sick"])
    assert (sick.categories, sick.category_ids, sick.dropped) == (("sick",), (7,), ())
    np.testing.assert_array_equal(sick.cases[0].boxes, [[1, 1, 3, 3]])
    np.testing.assert_array_equal(sick.cases[0].labels, [0])
    assert read_coco(folder, ["sick", "healthy"]).categories == ("healthy", "sick")


def test_hidden_files_beside_the_annotations_are_not_read(flat):
    folder = flat()
    put(folder / "._instances.json", "a resource fork")
    assert len(read_coco(folder).cases) == 2


def test_a_changed_folder_is_read_anew_an_unchanged_one_is_not(flat):
    folder = flat()
    first = read_coco(folder)
    assert read_coco(folder) is first
    assert len(read_coco(flat(mark(3, [1, 1, 2, 2]))).cases[0].boxes) == 1
    # the same length, and another time of change
    assert read_coco(flat(mark(3, [2, 1, 2, 2]))).cases[0].boxes[0, 0] == 2


# What is mended or left out


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([-5, -6, 10, 10], [0, 0, 5, 4]),
        ([35, 25, 10, 10], [35, 25, WIDTH, HEIGHT]),
        ([-1, -1, 100, 100], [0, 0, WIDTH, HEIGHT]),
        ([0, 0, WIDTH, HEIGHT], [0, 0, WIDTH, HEIGHT]),
    ],
)
def test_a_box_is_cut_at_the_border(flat, bbox, expected):
    data = read_coco(flat(mark(3, bbox)))
    np.testing.assert_array_equal(data.cases[0].boxes, [expected])
    assert data.dropped == ()


@pytest.mark.parametrize(
    "bbox",
    [
        [WIDTH, 0, 5, 5],  # begins where the image ends
        [-5, 0, 5, 5],
        [3, 100, 5, 5],
        [3, 3, 0, 5],
        [3, 3, 5, 0],
        [9, 9, -3, -3],  # corners in the wrong order
        [39.9999999, 3, 5, 5],  # leaves nothing that 32 bits can tell from a line
    ],
)
def test_a_box_without_area_in_the_image_is_left_out_and_named(flat, bbox, caplog):
    with caplog.at_level(logging.WARNING):
        data = read_coco(flat(mark(3, bbox, id=44), mark(3, [1, 1, 2, 2], 7)))
    np.testing.assert_array_equal(data.cases[0].boxes, [[1, 1, 3, 3]])
    np.testing.assert_array_equal(data.cases[0].labels, [1])
    (line,) = data.dropped
    assert line.startswith("instances.json: annotation 44 of a: no area inside the image, bbox [")
    (record,) = caplog.records
    assert "1 boxes left out, first instances.json: annotation 44" in record.getMessage()


def test_crowds_are_left_out_and_named_those_of_other_categories_are_not_mentioned(flat):
    folder = flat(mark(3, [1, 1, 9, 9], iscrowd=1, id=8), mark(3, [1, 1, 9, 9], 7, iscrowd=0))
    assert read_coco(folder).dropped == ("instances.json: annotation 8 of a: a crowd",)
    assert read_coco(folder, ["sick"]).dropped == ()
    assert len(read_coco(folder).cases[0].boxes) == 1


# What is refused


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (mark(4, [1, 1, 2, 2], id=6), "6 has image_id 4, which is none of the file's 2"),
        (mark(None, [1, 1, 2, 2]), "without id has image_id None"),
        (mark(3, [1, 1, 2, 2], 2), "has category_id 2, which is none of the file's 2"),
        (mark([3], [1, 1, 2, 2]), r"image_id \[3\]"),
        (mark(3, [1, float("nan"), 2, 2]), r"bbox must be .* finite, got \[1, nan, 2, 2\]"),
        (mark(3, [1, 1, float("inf"), 2]), "bbox must be .* got .*inf"),
        (mark(3, [1, 1, 10**400, 2]), "bbox must be"),
        (mark(3, [1, 1, 2]), "bbox must be"),
        (mark(3, ["1", 1, 2, 2]), "bbox must be"),
        (mark(3, [True, 1, 2, 2]), "bbox must be"),
        (mark(3, None), "bbox must be .* got None"),
    ],
)
def test_an_annotation_that_cannot_be_right_is_refused(flat, bad, message):
    with pytest.raises(DataError, match=rf"instances\.json: annotation .*{message}"):
        read_coco(flat(mark(3, [1, 1, 2, 2]), bad))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image(1, "a.png"), image(1, "b.png")], "ids of images: 1 more than once: 1"),
        ([image(1, "a.png"), image(2, "a.png")], r"1 more than once: .*a\.png"),
        ([image(1, "a.png"), image(2, "./a.png")], r"1 more than once: .*a\.png"),
        ([image("1", "a.png")], "images must be a whole number from 0, got '1'"),
        ([image(True, "a.png")], "whole number from 0, got True"),
        ([image(1, "")], "image 1 has no file_name"),
        ([image(1, None)], "image 1 has no file_name"),
        ([image(1, "/etc/hostname")], "leads out of its folder"),
        ([image(1, "../x/images/a.png")], "leads out of its folder"),
        ([image(1, "a.png", width=None)], r"width of a\.png must be a whole number from 1"),
        ([image(1, "a.png", height=0)], r"height of a\.png must be a whole number from 1"),
        ([image(1, "a.png", width=WIDTH + 1)], r"1 images are not .* \(41 x 30 stated, 40 x 30 px"),
        ([image(1, "a.png", width=HEIGHT, height=WIDTH)], "30 x 40 stated, 40 x 30 px"),
        ([image(1, "a.png", patient=1), image(2, "b.png")], r"1 of 2 images have no `patient`"),
        ([image(1, "a.png", patient=None)], "patient of a.png is None"),
        ([image(1, "a.png", patient="n/a")], "patient of a.png is 'n/a'"),
        ([image(1, "a.png", patient=7.0)], "patient of a.png is 7.0"),
        ([], "no image in"),
    ],
)
def test_an_image_that_cannot_be_right_is_refused(flat, images, message):
    with pytest.raises(DataError, match=message):
        read_coco(flat(images=images))


def test_all_missing_images_are_counted_and_the_first_named(flat):
    images = [image(n, f"{n}.png") for n in range(5)]
    with pytest.raises(
        DataError, match=r"4 of 5 images are missing: 1\.png, 2\.png, 3\.png, \.\.\."
    ):
        read_coco(flat(images=images, on_disk=("0.png",)))


def test_an_image_in_two_places_is_refused(flat):
    folder = flat()
    picture(folder / "a.png")
    with pytest.raises(DataError, match=r"a\.png is .*/a\.png, .*/images/a\.png; write which one"):
        read_coco(folder)


def test_an_image_that_two_files_list_is_refused(tmp_path):
    folder = parts(tmp_path, train=[image(1, "x.png")])
    put(folder / "annotations" / "all.json", content([image(1, "train/x.png")]))
    with pytest.raises(
        DataError, match=r"listed in its annotation files: 1 more than once: .*x\.png"
    ):
        read_coco(folder)


@pytest.mark.parametrize("kind", ["lfs", "annex"])
def test_pointers_in_place_of_images_sayhow_to_fetch_them(flat, kind):
    folder = flat()
    for name in ("a.png", "b.png"):
        (folder / "images" / name).unlink()
        if kind == "lfs":
            put(folder / "images" / name, "version https://git-lfs.github.com/spec/v1\noid x\n")
        else:
            (folder / "images" / name).symlink_to("../.git/annex/objects/x")
    with pytest.raises(DataError, match=f"2 of 2 images are pointers .*a.png.*git {kind} "):
        read_coco(folder)


def test_a_pointer_of_a_kind_whose_header_is_not_read_is_found_too(tmp_path):
    put(tmp_path / "a.dcm", "version https://git-lfs.github.com/spec/v1\noid x\n")
    put(tmp_path / "made.json", content([image(1, "a.dcm")]))
    with pytest.raises(DataError, match=r"a\.dcm; fetch it with `git lfs pull`"):
        read_coco(tmp_path)


def test_a_picture_that_is_none_is_named(flat):
    folder = flat()
    put(folder / "images" / "a.png", "text")
    with pytest.raises(DataError, match=r"a\.png: not a picture"):
        read_coco(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON; correct or export it again"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "fetch it with `git lfs pull`"),
        ("[]", "not COCO, which has lists of images, annotations, categories"),
        ('{"images": [], "annotations": []}', "not COCO"),
        ('{"images": {}, "annotations": [], "categories": []}', "not COCO"),
        ('{"images": [], "annotations": [3], "categories": []}', "not COCO"),
        ('{"images": [], "annotations": [], "categories": []}', "no categories in it"),
    ],
)
def test_json_that_is_not_coco_is_refused(tmp_path, text, message):
    put(tmp_path / "instances.json", text)
    with pytest.raises(DataError, match=rf"instances\.json: .*{message}"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "ids of categories: 1 more than once"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "categories: 1 more than once: a"),
        ([{"id": 1}], "a category's name is None"),
        ([{"name": "a"}], "categories must be a whole number from 0, got None"),
    ],
)
def test_categories_without_a_meaning_are_refused(flat, categories, message):
    with pytest.raises(DataError, match=message):
        read_coco(flat(categories=categories))


def test_files_that_disagree_about_categories_are_refused(tmp_path):
    folder = parts(tmp_path, train=[image(1, "x.png")], val=[image(2, "y.png")])
    other = [{"id": 1, "name": "sick"}, {"id": 7, "name": "healthy"}]
    put(folder / "annotations" / "val.json", content([image(2, "y.png")], categories=other))
    with pytest.raises(DataError, match=r"val\.json: other categories than train\.json; .*'sick'"):
        read_coco(folder)
    put(
        folder / "annotations" / "val.json",
        content([image(2, "y.png")], categories=CATEGORIES[::-1]),  # order alone is no difference
    )
    assert len(read_coco(folder).cases) == 2


def test_an_unknown_category_is_answered_with_the_nearest_and_all(flat):
    with pytest.raises(
        DataError, match=r"no category 'sik' \(nearest: sick\); it has healthy, sick"
    ):
        read_coco(flat(), ["healthy", "sik"])
    with pytest.raises(DataError, match="no category 'cord'; it has healthy, sick"):
        read_coco(flat(), ["cord"])


def test_a_folder_that_is_missing_or_has_no_annotations_is_named(tmp_path):
    with pytest.raises(DataError, match="absent: no such folder"):
        read_coco(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no annotations/\*\.json and no \*\.json in it"):
        read_coco(tmp_path)


# Real data


@pytest.mark.parametrize(
    ("name", "images", "boxes", "subjects"),
    [
        ("spider-midsagittal", 113, {"intervertebral_disc": 749}, 75),
        ("spider-t2space-seg", 87, {"vertebra": 916, "disc": 668}, 29),
    ],
)
@pytest.mark.skipif("SPINE_TEST_DATA" not in os.environ, reason="SPINE_TEST_DATA names no folder")
def test_real_data_has_the_stated_numbers(name, images, boxes, subjects):
    data = read_coco(Path(os.environ["SPINE_TEST_DATA"]) / name)
    assert len(data.cases) == images
    labels = np.concatenate([case.labels for case in data.cases])
    assert dict(zip(data.categories, np.bincount(labels).tolist(), strict=True)) == boxes
    assert len({case.subject for case in data.cases}) == subjects
    assert data.dropped == ()
