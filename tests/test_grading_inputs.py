"""What graders are given: the right slices in the right order, and the right place in them."""

import logging

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="PyTorch is not installed (extra `grading`)")
pytest.importorskip("pydicom", reason="pydicom is not installed (extra `grading`)")

import pydicom
import torch

from spine_tasks.configs import StenosisGrading
from spine_tasks.data import phantom_lumbar
from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.data.grades import read_grades
from spine_tasks.data.pictures import read_picture
from spine_tasks.data.stacks import read_stack
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.tasks.grading.inputs import augment, finish, read_place


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lumbar") / "data"
    return read_grades(phantom_lumbar.ensure(folder, ["sub-s01", "sub-s02"]))


def config(**knobs):
    small = {"backbone": "test_resnet", "image_px": 32, "slices": 1, "crop": 40.0, "threads": 1}
    return StenosisGrading(**small | knobs)


def picture(folder, pixels, name="a.png", **place):
    """A place in a picture of these pixels."""
    file = folder / name
    Image.fromarray(np.asarray(pixels)).save(file)
    height, width = np.shape(pixels)
    middle = {"x": width / 2, "y": height / 2}
    return GradeCase(
        id="a", subject="a", study="a", level="1", series=(file,), index=0, **middle | place
    )


def position(file, axis):
    return float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[axis])


def test_neighbours_are_those_by_position_not_by_number(data):
    for study, reverses in (("sub-s01", True), ("sub-s02", False)):
        [case] = [case for case in data.cases if case.id == f"{study}_spinal_canal_stenosis_l3_l4"]
        ordered = sorted(case.series, key=lambda file: position(file, 0))
        numbers = [int(file.stem) for file in ordered]
        assert numbers == sorted(numbers, reverse=reverses)
        at = ordered.index(case.series[case.index])
        assert 0 < at < len(ordered) - 1
        expected = np.stack([read_picture(ordered[at + n]) for n in (-1, 0, 1)])
        found = read_stack(case, 3)
        # The direction across a sagittal slice is from left to right or from right to left.
        assert np.array_equal(found.values, expected) or np.array_equal(
            found.values, expected[::-1]
        )
        assert found.spacing_mm == (2.0, 2.0)


def test_beyond_the_end_of_a_series_its_last_slice_is_repeated(data):
    [case] = [
        case for case in data.cases if case.id == "sub-s01_left_neural_foraminal_narrowing_l1_l2"
    ]
    values = read_stack(case, 3).values
    middle = read_picture(case.series[case.index])
    assert np.array_equal(values[1], middle)
    assert sum(np.array_equal(one, middle) for one in values) == 2


def copied(case, folder, edit):
    """A place in a copy of its series, of which one file is edited."""
    files = []
    for number, file in enumerate(case.series):
        read = pydicom.dcmread(file)
        if number == len(case.series) - 1:
            edit(read)
        files.append(folder / file.name)
        read.save_as(files[-1])
    return GradeCase(**vars(case) | {"series": tuple(files)})


def smaller(read):
    read.Rows = 48
    read.PixelData = read.PixelData[: 48 * 96 * 2]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (smaller, "96 x 48 px, other than"),
        (lambda read: read.__delattr__("ImagePositionPatient"), "without a position"),
        (
            lambda read: setattr(read, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]),
            "lies in another direction than its series",
        ),
        (lambda read: setattr(read, "ImagePositionPatient", [-8.5, -86, 96]), "at one position"),
    ],
)
def test_a_series_of_unlike_slices_is_refused_unless_one_slice_is_enough(
    data, tmp_path, edit, said
):
    [case] = [
        case for case in data.cases if case.id == "sub-s02_right_neural_foraminal_narrowing_l3_l4"
    ]
    case = copied(case, tmp_path, edit)
    case = GradeCase(**vars(case) | {"index": len(case.series) - 2})
    with pytest.raises(DataError, match=said):
        read_stack(case, 5)
    assert read_stack(case, 1).values.shape == (1, 96, 96)


@pytest.mark.parametrize("place", [{"x": -1.0}, {"x": 65.0}, {"y": 50.0}])
def test_a_place_outside_of_its_slice_is_refused(tmp_path, place):
    case = picture(tmp_path, np.zeros((48, 64), np.uint8), **place)
    with pytest.raises(DataError, match=r"the place of a is at .* outside of the slice of 64 x 48"):
        read_stack(case, 1)


def test_a_ramp_stays_monotone(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    case = picture(tmp_path, ramp)
    for knobs in ({"crop_unit": "image"}, {"crop_unit": "px", "crop": 200.0}):
        row = read_place(case, config(image_px=64, **knobs))[0, 32].int()
        assert (row.diff() >= 0).all()
        assert row[-1] > row[0] + 100


def test_the_place_is_in_the_middle_and_as_large_as_asked(tmp_path):
    pixels = np.zeros((100, 100), np.uint8)
    pixels[40:50, 20:40] = 200  # 20 x 10 px around (30, 45)
    pixels[0, :50] = 255
    case = picture(tmp_path, pixels, x=30.0, y=45.0, width=20.0, height=10.0)
    for knobs in ({"crop_unit": "box", "crop": 2.0}, {"crop_unit": "px", "crop": 40.0}):
        knobs = config(**knobs)
        image = finish(read_place(case, knobs) / 255, knobs)[0]
        bright = image > image.min() + 0.5 * (image.max() - image.min())
        rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
        # Of 40 px in 32: 20 x 10 px become 16 x 8, in the middle.
        assert (columns[0], columns[-1], rows[0], rows[-1]) == (8, 23, 12, 19)


def test_a_box_is_stretched_to_a_square_by_its_own_sides(tmp_path):
    pixels = np.zeros((100, 100), np.uint8)
    pixels[40:50, 20:40] = 200
    case = picture(tmp_path, pixels, x=30.0, y=45.0, width=20.0, height=10.0)
    knobs = config(crop_unit="sides", crop=2.0)
    image = finish(read_place(case, knobs) / 255, knobs)[0]
    bright = image > image.min() + 0.5 * (image.max() - image.min())
    rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
    # Half of either side of 32 px.
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (8, 23, 8, 23)


def test_millimetres_follow_the_spacing_of_rows_and_columns(data, tmp_path):
    [case] = [case for case in data.cases if case.id == "sub-s01_spinal_canal_stenosis_l3_l4"]

    def flatten(read):
        read.PixelSpacing = [1.0, 2.0]

    files = []
    for file in case.series:
        read = pydicom.dcmread(file)
        flatten(read)
        files.append(tmp_path / file.name)
        read.save_as(files[-1])
    flat = GradeCase(**vars(case) | {"series": tuple(files)})
    assert read_stack(flat, 1).spacing_mm == (1.0, 2.0)
    assert not read_place(flat, config()).equal(read_place(case, config()))
    with pytest.raises(DataError, match="is a point, not a box"):
        read_place(case, config(crop_unit="box"))


def test_a_picture_without_spacing_has_no_millimetres(tmp_path):
    case = picture(tmp_path, np.zeros((48, 64), np.uint8))
    with pytest.raises(
        DataError, match="spacing is not known; take crop_unit=box, sides, px or image"
    ):
        read_place(case, config())


def test_a_picture_of_one_value_is_zeros_and_said(tmp_path, caplog):
    case = picture(tmp_path, np.full((48, 64), 7, np.uint8))
    with caplog.at_level(logging.WARNING):
        assert not read_place(case, config(crop_unit="px")).any()
    assert "every pixel is 7" in caplog.text


def test_places_of_the_right_side_are_mirrored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    one = {side: picture(tmp_path, pixels, side=side) for side in ("left", "right", "")}
    knobs = config(crop_unit="px")
    left, right, middle = (read_place(one[side], knobs) for side in ("left", "right", ""))
    assert right.equal(left.flip(2))
    assert middle.equal(left)
    assert read_place(one["right"], config(crop_unit="px", mirror=False)).equal(left)


def test_inverted_dicom_looks_as_the_other(data, tmp_path):
    [case] = [case for case in data.cases if case.id == "sub-s01_spinal_canal_stenosis_l3_l4"]
    plain = read_place(case, config())
    file = tmp_path / "inverted.dcm"
    read = pydicom.dcmread(case.series[case.index])
    pixels = read.pixel_array
    read.PixelData = (pixels.max() + pixels.min() - pixels).astype(np.uint16).tobytes()
    read.PhotometricInterpretation = "MONOCHROME1"
    read.save_as(file)
    found = read_place(GradeCase(**vars(case) | {"series": (file,), "index": 0}), config())
    assert found.equal(plain)


def test_variants_differ_by_their_generator_alone_and_keep_the_place(tmp_path):
    pixels = np.zeros((100, 100), np.uint8)
    pixels[40:60, 40:60] = 200
    pixels[0] = 255
    knobs = config(crop_unit="px", crop=60.0)
    image = read_place(picture(tmp_path, pixels), knobs) / 255
    before = torch.get_rng_state()
    made = [augment(image, knobs, torch.Generator().manual_seed(seed)) for seed in (0, 1, 0)]
    assert torch.get_rng_state().equal(before)
    assert made[0].equal(made[2])
    assert not made[0].equal(made[1])
    for seed in range(10):
        found = finish(augment(image, knobs, torch.Generator().manual_seed(seed)), knobs)[0]
        assert found[14:18, 14:18].min() > found[0, 0]  # the middle of the square is still bright
    assert augment(image, config(augment="none"), torch.Generator()) is image


def test_images_are_normalised_as_the_backbones_weights_know_them(tmp_path):
    case = picture(tmp_path, np.tile(np.arange(64, dtype=np.uint8), (64, 1)))
    grey = torch.full((1, 40, 40), 0.5)
    assert finish(grey, config(backbone="tf_efficientnet_lite0")).abs().max() == 0
    imagenet = finish(grey, config(backbone="resnet18"))[:, 0, 0]
    expected = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(imagenet, expected)
    assert finish(grey.expand(5, 40, 40), config(slices=5)).shape == (5, 32, 32)
    with pytest.raises(ConfigError, match=r"no network of timm; similar names: .*resnet"):
        finish(read_place(case, config(crop_unit="px")) / 255, config(backbone="resnet5"))
