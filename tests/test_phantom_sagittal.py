import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from spine_tasks.data import phantom_sagittal as phantom
from spine_tasks.data.phantom_sagittal_anatomy import SignalChange, sample_neck
from spine_tasks.data.phantom_sagittal_scan import HEIGHT_PX, PIXEL_MM, WIDTH_PX
from spine_tasks.data.phantom_sagittal_tissue import Tissue, tissue_map
from spine_tasks.errors import DataError
from spine_tasks.splits import PARTS, load_split

NAMES = [f"sub-s{number:02d}" for number in range(1, 13)]
CATEGORIES = {1: "healthy", 2: "sick", 5: "signal_change"}


@pytest.fixture(scope="module")
def pictures():
    return {name: phantom.slices(name) for name in NAMES}


@pytest.fixture(scope="module")
def split_folder(tmp_path_factory):
    """The data of the split, made once; tests only read it."""
    everyone = [*load_split("spine_phantom").person_of]
    return phantom.ensure(tmp_path_factory.mktemp("data") / "phantom", everyone)


def annotations(folder):
    return json.loads((folder / "annotations" / "instances.json").read_text())


def bytes_by_name(folder):
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def things(pictures, category):
    """Each with the picture it is in."""
    return [
        (picture, thing)
        for both in pictures.values()
        for picture in both
        for thing in picture.things
        if thing.category == category
    ]


# The folder


def test_the_folder_follows_from_the_set_of_subjects_alone(tmp_path):
    once = phantom.ensure(tmp_path / "once", NAMES[:3])
    # Another process, hash seed, order and number of calls must not show.
    code = (
        "import pathlib, sys; from spine_tasks.data import phantom_sagittal as phantom\n"
        "for name in sys.argv[2:]: phantom.ensure(pathlib.Path(sys.argv[1]), [name])"
    )
    grown = tmp_path / "grown"
    root = Path(phantom.__file__).parents[2]
    environment = {"PYTHONPATH": str(root), "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", code, grown, *reversed(NAMES[:3]), NAMES[2]],
        check=True,
        env=environment,
        cwd=root,
    )
    assert bytes_by_name(grown) == bytes_by_name(once)


def test_subjects_added_later_change_nothing_of_those_there(tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", [NAMES[4]])
    before, listed = bytes_by_name(folder / "images"), annotations(folder)
    phantom.ensure(folder, [NAMES[1], NAMES[7]])
    after, now = bytes_by_name(folder / "images"), annotations(folder)
    assert len(after) == 6
    assert before.items() <= after.items()
    for key in ("images", "annotations"):
        assert all(entry in now[key] for entry in listed[key])


def test_a_whole_folder_is_not_written_to(tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", NAMES[:2])
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    phantom.ensure(folder, NAMES[1:2])
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_two_processes_at_once_make_one_whole_data_set(tmp_path):
    code = (
        "import pathlib, sys; from spine_tasks.data import phantom_sagittal as phantom;"
        "phantom.ensure(pathlib.Path(sys.argv[1]), sys.argv[2:])"
    )
    root = Path(phantom.__file__).parents[2]
    command = [sys.executable, "-c", code, tmp_path / "shared", *NAMES[:3]]
    racers = [subprocess.Popen(command, cwd=root, env={"PYTHONPATH": str(root)}) for _ in range(2)]
    assert [racer.wait() for racer in racers] == [0, 0]
    alone = phantom.ensure(tmp_path / "alone", NAMES[:3])
    assert bytes_by_name(tmp_path / "shared") == bytes_by_name(alone)


def cut_off(folder):
    file = folder / "images" / f"{NAMES[0]}_slice2.png"
    file.write_bytes(file.read_bytes()[:-100])


def lose_an_image(folder):
    (folder / "images" / f"{NAMES[0]}_slice1.png").unlink()


def cut_off_annotations(folder):
    file = folder / "annotations" / "instances.json"
    file.write_bytes(file.read_bytes()[:1000])


def lose_annotations(folder):
    (folder / "annotations" / "instances.json").unlink()


@pytest.mark.parametrize("spoil", [cut_off, lose_an_image, cut_off_annotations, lose_annotations])
def test_a_spoilt_folder_is_made_again(spoil, tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", NAMES[:2])
    whole = bytes_by_name(folder)
    spoil(folder)
    assert bytes_by_name(folder) != whole
    phantom.ensure(folder, NAMES[:2])
    assert bytes_by_name(folder) == whole


def test_an_image_that_nobody_asked_for_now_is_mended_too_and_said(tmp_path, caplog):
    folder = phantom.ensure(tmp_path / "phantom", NAMES[:2])
    whole = bytes_by_name(folder)
    cut_off(folder)
    phantom.ensure(folder, NAMES[1:2])
    assert bytes_by_name(folder) == whole
    assert "images of 1 subjects were spoilt, made again" in caplog.text


def test_what_a_killed_process_left_does_not_matter(tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", NAMES[:2])
    lose_annotations(folder)
    (folder / "images" / ".partial-host-7-sub-s01_slice1.png").write_bytes(b"half")
    phantom.ensure(folder, NAMES[:2])
    assert len(annotations(folder)["images"]) == 4


@pytest.mark.parametrize("name", ["thesis.txt", "images/scan.png", "annotations/train.json"])
def test_a_folder_of_something_else_is_left_alone(name, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    with pytest.raises(DataError, match=f"not a phantom data set, it holds {file.name}; remove it"):
        phantom.ensure(tmp_path, NAMES[:1])
    assert bytes_by_name(tmp_path) == {name: b"precious"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "phantom").write_text("precious")
    with pytest.raises(DataError, match="is not a phantom data set"):
        phantom.ensure(tmp_path / "phantom", NAMES[:1])


@pytest.mark.parametrize("content", ['{"images": []}', "[]", '{"info": {"version": "0"}}'])
def test_annotations_of_something_else_are_refused(content, tmp_path):
    file = tmp_path / "annotations" / "instances.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(DataError, match=r"instances\.json: got .*remove it"):
        phantom.ensure(tmp_path, NAMES[:1])
    assert file.read_text() == content


def test_files_of_another_version_are_refused(tmp_path, monkeypatch):
    folder = phantom.ensure(tmp_path / "phantom", NAMES[:1])
    monkeypatch.setattr(phantom, "INFO", phantom.INFO | {"version": "another"})
    with pytest.raises(DataError, match=r"'another'.*remove it"):
        phantom.ensure(folder, NAMES[:1])


@pytest.mark.parametrize(
    "name",
    [
        *("", "s01", "sub-01", "sub-s", "sub-s1", "sub-s001", "sub-s00", "sub-s200000", "sub-s-1"),
        *("sub-s1\n", "sub-s01_slice1", "../sub-s01", "sub-s²", "sub-s" + "9" * 5000),
    ],
)
def test_an_unknown_id_is_named_with_what_is_allowed(name, tmp_path):
    with pytest.raises(DataError, match=r"sub-s followed by a number from 01 to") as refusal:
        phantom.slices(name)
    assert repr(name) in str(refusal.value)
    with pytest.raises(DataError):
        phantom.ensure(tmp_path / "phantom", [NAMES[0], name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("subjects", [[], "sub-s01"])
def test_subjects_are_a_list_of_at_least_one(subjects, tmp_path):
    with pytest.raises(DataError, match="list of at least one id"):
        phantom.ensure(tmp_path / "phantom", subjects)


# The annotations


def test_boxes_are_those_around_the_drawn_masks(tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", NAMES[:2])
    listed = annotations(folder)
    found = {image["id"]: [] for image in listed["images"]}
    for one in listed["annotations"]:
        found[one["image_id"]].append((CATEGORIES[one["category_id"]], one["bbox"], one["area"]))
    for image in listed["images"]:
        picture = phantom.slices(image["patient"])[int(image["file_name"][-5]) - 1]
        known = []
        for category, mask in picture.things:
            # SciPy's own bounding box, as a second opinion.
            ((rows, columns),) = ndimage.find_objects(mask.astype(np.uint8))
            width, height = columns.stop - columns.start, rows.stop - rows.start
            known.append((category, [columns.start, rows.start, width, height], width * height))
        assert found[image["id"]] == known
        assert np.array_equal(
            np.asarray(Image.open(folder / "images" / image["file_name"])), picture.pixels
        )


def test_the_folder_is_what_coco_tools_expect(split_folder):
    listed = annotations(split_folder)
    assert [(one["id"], one["name"]) for one in listed["categories"]] == [*CATEGORIES.items()]
    assert {"info", "licenses"} <= listed.keys()
    for image in listed["images"]:
        with Image.open(split_folder / "images" / image["file_name"]) as stored:
            assert stored.size == (image["width"], image["height"]) == (WIDTH_PX, HEIGHT_PX)
            assert stored.mode == "L"
        assert image["file_name"].startswith(image["patient"] + "_slice")
    for key in ("images", "annotations"):
        ids = [one["id"] for one in listed[key]]
        assert len(set(ids)) == len(ids)
        assert all(0 < one < 2**31 for one in ids)


def test_the_last_subject_has_ids_below_2_to_the_31(tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", ["sub-s199999"])
    assert all(one["id"] < 2**31 for one in annotations(folder)["annotations"])


def test_pycocotools_reads_it_and_scores_the_reference_as_perfect(split_folder):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    reference = coco.COCO(str(split_folder / "annotations" / "instances.json"))
    found = [one | {"score": 0.9} for one in reference.loadAnns(reference.getAnnIds())]
    scores = COCOeval(reference, reference.loadRes(found), "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(1)


def test_no_box_touches_the_border(split_folder):
    for one in annotations(split_folder)["annotations"]:
        x, y, width, height = one["bbox"]
        assert min(x, y) > 0
        assert x + width < WIDTH_PX
        assert y + height < HEIGHT_PX
        assert min(width, height) > 0


def test_boxes_have_the_sizes_of_discs_and_signal_changes(split_folder):
    for one in annotations(split_folder)["annotations"]:
        width, height = one["bbox"][2:]
        if CATEGORIES[one["category_id"]] == "signal_change":
            assert 3 <= height * PIXEL_MM <= 13
            assert 1.5 <= width * PIXEL_MM <= 8
        else:
            assert 15 <= width <= 40
            assert height < width


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_split_has_every_category(part, split_folder):
    subjects = load_split("spine_phantom").part(0, part)
    listed = annotations(split_folder)
    images = {image["id"] for image in listed["images"] if image["patient"] in subjects}
    assert len(images) == 2 * len(subjects)
    seen = {one["category_id"] for one in listed["annotations"] if one["image_id"] in images}
    assert seen == CATEGORIES.keys()


def test_some_subjects_are_healthy_and_about_half_of_the_images_have_a_signal(split_folder):
    listed = annotations(split_folder)
    images = {image["id"]: image["patient"] for image in listed["images"]}
    sick = {images[one["image_id"]] for one in listed["annotations"] if one["category_id"] == 2}
    signal = {one["image_id"] for one in listed["annotations"] if one["category_id"] == 5}
    discs = [one["category_id"] for one in listed["annotations"] if one["category_id"] != 5]
    assert 0.7 < len(sick) / len(set(images.values())) < 1
    assert 0.4 < len(signal) / len(images) < 0.65
    assert 0.25 < np.mean(np.equal(discs, 2)) < 0.5


# The pictures


def test_sick_discs_are_darker_and_flatter_on_average_but_overlap_with_healthy_ones(pictures):
    def signs(category):
        found = [
            (picture.pixels[mask].mean(), np.count_nonzero(mask) / phantom.box(mask)[2])
            for picture, (_, mask) in things(pictures, category)
        ]
        return np.array(found).T

    for healthy, sick in zip(signs("healthy"), signs("sick"), strict=True):
        assert healthy.mean() > 1.15 * sick.mean()
        assert sick.max() > np.percentile(healthy, 10)


def test_signal_changes_lie_inside_the_cord_and_are_brighter_than_it(pictures):
    changes = things(pictures, "signal_change")
    assert len(changes) > 5
    for picture, (_, mask) in changes:
        assert not (mask & ~picture.cord).any()
        rows = mask.any(axis=1)
        beside = picture.cord & ~ndimage.binary_dilation(mask, iterations=2)
        beside[~ndimage.binary_dilation(rows, iterations=15)] = False
        assert picture.pixels[mask].mean() > 1.1 * picture.pixels[beside].mean()


def test_the_cord_runs_through_the_whole_image_behind_the_discs(pictures):
    for both in pictures.values():
        for picture in both:
            assert picture.cord.any(axis=1).all()
            for category, mask in picture.things:
                if category != "signal_change":
                    assert not (mask & picture.cord).any()
                    x, y, width, height = phantom.box(mask)
                    middle = np.flatnonzero(picture.cord[y + height // 2])
                    assert middle.min() >= x + width - 2  # a tilted disc's box reaches further


def test_csf_is_brighter_than_cord_and_air_is_dark(pictures):
    for both in pictures.values():
        for picture in both:
            around = ndimage.binary_dilation(picture.cord, iterations=2)
            rim = around & ~ndimage.binary_dilation(picture.cord)
            inner = ndimage.binary_erosion(picture.cord)
            assert np.median(picture.pixels[rim]) > 1.3 * np.median(picture.pixels[inner])
            assert np.percentile(picture.pixels, 5) < 40
            assert picture.pixels.max() == 255


def test_things_do_not_overlap(pictures):
    for both in pictures.values():
        for picture in both:
            assert np.sum([mask for _, mask in picture.things], axis=0).max() == 1
            assert all(ndimage.label(mask)[1] == 1 for _, mask in picture.things)


def test_neighbouring_slices_are_similar_but_not_the_same(pictures):
    firsts = [both[0].pixels.ravel() for both in pictures.values()]
    across = np.corrcoef(firsts)[~np.eye(len(firsts), dtype=bool)]
    for first, second in pictures.values():
        similar = np.corrcoef(first.pixels.ravel(), second.pixels.ravel())[0, 1]
        assert across.mean() + 0.1 < similar < 0.999
        discs = [
            [thing.category for thing in one.things if thing.category != "signal_change"]
            for one in (first, second)
        ]
        shorter = min(map(len, discs))
        assert discs[0][:shorter] == discs[1][:shorter]  # a disc is sick in both or in none


def test_every_subject_is_another(pictures):
    assert len({picture.pixels.tobytes() for both in pictures.values() for picture in both}) == 24


def test_a_subject_does_not_depend_on_which_were_made_before(pictures):
    again = phantom.slices(NAMES[-1])
    for one, other in zip(again, pictures[NAMES[-1]], strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert [thing.category for thing in one.things] == [t.category for t in other.things]


def test_a_signal_change_lies_behind_the_disc_that_bulges_most_mostly():
    behind = total = 0
    for seed in range(300):
        neck = sample_neck(np.random.default_rng(seed))
        worst = max(neck.discs[:6], key=lambda disc: disc.bulge_mm)
        if worst.bulge_mm > 1.2 and neck.signal_changes:
            total += 1
            behind += abs(neck.signal_changes[0].s_mm - worst.s_mm) < 5
    assert total > 50
    assert 0.75 < behind / total < 1


def test_a_bulge_takes_from_the_canal_and_dents_the_cord_but_never_cuts_it():
    neck = sample_neck(np.random.default_rng(0))
    x, y = np.linspace(-70, 70, 281)[None, :], np.linspace(-90, 90, 361)[:, None]
    none, large = (
        tissue_map(
            dataclasses.replace(
                neck,
                signal_changes=(),
                discs=[dataclasses.replace(d, bulge_mm=mm, bulge_z_mm=0) for d in neck.discs],
            ),
            x,
            y,
            0.0,
        )
        for mm in (0.0, 6.0)
    )
    assert (large >= Tissue.ANNULUS).sum() > 1.1 * (none >= Tissue.ANNULUS).sum()
    assert (large == Tissue.CSF).sum() < 0.97 * (none == Tissue.CSF).sum()
    assert (large == Tissue.CORD).sum() < 0.99 * (none == Tissue.CORD).sum()
    assert (large == Tissue.CORD).any(axis=1).all()


def test_a_signal_change_fades_out_across_slices_and_is_never_shorter_than_stated():
    change = SignalChange(s_mm=0, z_mm=1, length_mm=8, depth=0.5, half_thickness_mm=5, raised=0.5)
    assert change.share_at(1) == 1
    assert change.share_at(4) == change.share_at(-2) == pytest.approx(0.8)
    assert change.share_at(1 + 5 * np.sqrt(0.74)) > 0.5  # 4.08 mm
    assert change.share_at(1 + 5 * np.sqrt(0.76)) == 0  # 3.92 mm
    assert change.share_at(20) == 0


def test_a_signal_change_takes_the_place_of_cord_only():
    neck = sample_neck(np.random.default_rng(0))
    deeper_than_the_cord = SignalChange(
        s_mm=40, z_mm=0, length_mm=12, depth=3, half_thickness_mm=5, raised=0.5
    )
    x, y = np.linspace(-70, 70, 281)[None, :], np.linspace(-90, 90, 361)[:, None]
    without, changed = (
        tissue_map(dataclasses.replace(neck, signal_changes=changes), x, y, 0.0)
        for changes in ((), (deeper_than_the_cord,))
    )
    new = without != changed
    assert new.any()
    assert set(without[new]) == {Tissue.CORD}
    assert set(changed[new]) == {Tissue.SIGNAL}


def test_the_tissue_at_a_point_does_not_depend_on_the_pixel_grid():
    neck = sample_neck(np.random.default_rng(3))
    x, y = np.linspace(-70, 70, 281)[None, :], np.linspace(-90, 90, 361)[:, None]
    whole = tissue_map(neck, x, y, 0.0)
    part = tissue_map(neck, x[:, 40:200:4], y[30:300:3], 0.0)
    assert np.array_equal(whole[30:300:3, 40:200:4], part)
    assert set(Tissue) - set(np.unique(whole).tolist()) <= {Tissue.SIGNAL}
