"""Reading and writing NIfTI: every bad file is named, every good one comes back as it was."""

import gzip
import logging
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spine_tasks.data.nifti import load_image, load_mask, save_mask
from spine_tasks.errors import DataError

AFFINE = np.array([[-0.5, 0, 0, 9], [0, 0.4, -0.3, -7], [0, 0.3, 4, 2], [0, 0, 0, 1]])
SHAPE = (5, 4, 3)


def write(file, array, affine=AFFINE):
    nib.Nifti1Image(array, affine).to_filename(file)
    return file


@pytest.fixture
def image(tmp_path):
    values = np.arange(60, dtype=np.int16).reshape(SHAPE)
    return load_image(write(tmp_path / "image.nii.gz", values))


def mask_file(tmp_path, array, affine=AFFINE):
    return write(tmp_path / "mask.nii.gz", array, affine)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_an_image_keeps_values_order_and_affine(tmp_path, name, kind):
    values = np.arange(60, dtype=np.int16).reshape(SHAPE)
    kind(values, AFFINE).to_filename(tmp_path / name)
    image = load_image(tmp_path / name)
    array = image.get_fdata(dtype=np.float32)
    assert array.dtype == np.float32
    assert array[1, 2, 0] == 18  # (1 * 4 + 2) * 3 + 0
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert np.shares_memory(array, image.get_fdata(dtype=np.float32))  # read once


def test_the_scaling_of_the_header_is_applied(tmp_path):
    raw = bytearray(nib.Nifti1Image(np.full(SHAPE, 10, np.int16), AFFINE).to_bytes())
    raw[112:120] = np.array([2, 5], "<f4").tobytes()  # scl_slope and scl_inter
    (tmp_path / "image.nii").write_bytes(raw)
    assert (load_image(tmp_path / "image.nii").get_fdata() == 25).all()


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.nii\.gz: no such file"):
        load_image(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("kept", [10, 200, -9, -1])
def test_a_cut_off_gz_is_refused_even_when_only_its_checksum_lacks(tmp_path, kept):
    file = write(tmp_path / "image.nii.gz", np.random.default_rng(0).random(SHAPE))
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"image\.nii\.gz: damaged or cut off"):
        load_image(file)


@pytest.mark.parametrize("lost", [1, 200])
def test_a_cut_off_nii_is_refused(tmp_path, lost):
    file = write(tmp_path / "image.nii", np.ones(SHAPE, np.float32))
    file.write_bytes(file.read_bytes()[:-lost])
    with pytest.raises(DataError, match=r"image\.nii: damaged or cut off"):
        load_image(file)


def test_a_flipped_byte_in_a_gz_is_refused(tmp_path):
    file = write(tmp_path / "image.nii.gz", np.random.default_rng(0).random(SHAPE))
    content = bytearray(file.read_bytes())
    content[-7] ^= 1  # inside the checksum
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged or cut off"):
        load_image(file)


@pytest.mark.parametrize("content", [b"", b"/annex/objects/MD5-s1", b"x" * 600])
def test_a_file_that_is_not_nifti_is_refused(tmp_path, content):
    (tmp_path / "image.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match="not a NIfTI file"):
        load_image(tmp_path / "image.nii.gz")


def test_a_folder_with_the_name_of_an_image_cannot_be_read(tmp_path):
    (tmp_path / "image.nii.gz").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        load_image(tmp_path / "image.nii.gz")


def test_a_time_series_is_refused_by_axis_and_length(tmp_path):
    file = write(tmp_path / "image.nii.gz", np.zeros((*SHAPE, 7), np.float32))
    with pytest.raises(DataError, match=r"axis 3 has length 7"):
        load_image(file)


def test_a_trailing_axis_of_length_one_is_dropped_and_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    values = np.arange(60, dtype=np.float32).reshape(*SHAPE, 1)
    image = load_image(write(tmp_path / "image.nii.gz", values))
    np.testing.assert_array_equal(image.get_fdata(), values[..., 0])
    assert image.shape == SHAPE
    assert image.header.get_zooms() == pytest.approx((0.5, 0.5, np.hypot(4, 0.3)))
    assert "shape (5, 4, 3, 1) read as (5, 4, 3)" in caplog.text


@pytest.mark.parametrize(
    ("shape", "message"),
    [((5, 4), "needs 3 axes"), ((5, 0, 3), "empty image"), ((0, 4, 3), "empty image")],
)
def test_an_image_without_volume_is_refused(tmp_path, shape, message):
    file = write(tmp_path / "image.nii.gz", np.zeros(shape, np.float32))
    with pytest.raises(DataError, match=message):
        load_image(file)


def test_nan_and_infinity_are_counted(tmp_path):
    values = np.zeros(SHAPE)
    values[0, 0, :2] = np.nan
    values[1, 0] = [np.inf, -np.inf, 1e300]  # the last is beyond float32
    with pytest.raises(DataError, match=r"2 voxels are NaN and 3 infinite, of 60"):
        load_image(write(tmp_path / "image.nii.gz", values))


def test_a_complex_image_is_refused(tmp_path):
    with pytest.raises(DataError, match="needs real numbers, got complex64"):
        load_image(write(tmp_path / "image.nii.gz", np.zeros(SHAPE, np.complex64)))


@pytest.mark.parametrize("edge", [0.0, -0.5, np.nan, np.inf])
def test_a_spacing_that_is_not_positive_is_refused(tmp_path, edge):
    file = write(tmp_path / "image.nii", np.zeros(SHAPE, np.float32))
    content = bytearray(file.read_bytes())
    content[84:88] = np.array([edge], "<f4").tobytes()  # pixdim[2], the spacing along Y
    file.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"spacing must be positive, got [0.5, {edge}")):
        load_image(file)


def test_a_spacing_that_contradicts_the_affine_is_refused(tmp_path):
    stored = nib.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE)
    stored.header["pixdim"][1] = 1.0  # as left behind by a resampling that forgot the header
    stored.to_filename(tmp_path / "image.nii")
    with pytest.raises(DataError, match="two spacings"):
        load_image(tmp_path / "image.nii")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_a_mask_is_bool_where_the_file_is_one(tmp_path, image, dtype):
    marked = np.zeros(SHAPE, dtype)
    marked[1, 2, 0] = 1
    mask = load_mask(mask_file(tmp_path, marked), image)
    assert mask.dtype == bool
    assert np.argwhere(mask).tolist() == [[1, 2, 0]]


def test_a_mask_without_a_voxel_is_a_mask(tmp_path, image):
    assert not load_mask(mask_file(tmp_path, np.zeros(SHAPE, np.uint8)), image).any()


def test_a_mask_of_another_shape_is_refused_with_both(tmp_path, image):
    with pytest.raises(DataError, match=r"shape \(4, 5, 3\), but its image has \(5, 4, 3\)"):
        load_mask(mask_file(tmp_path, np.zeros((4, 5, 3), np.uint8)), image)


@pytest.mark.parametrize("values", [(0, 255), (0, 0.5), (0, 1, 2), (0, -1)])
def test_a_mask_with_other_values_is_refused_and_they_are_listed(tmp_path, image, values):
    array = np.resize(np.array(values, np.float32), SHAPE)
    shown = ", ".join(f"{value:g}" for value in sorted(values))
    with pytest.raises(DataError, match=f"got {len(values)} values: {shown}; threshold first"):
        load_mask(mask_file(tmp_path, array), image)


def moved(axis, mm):
    affine = AFFINE.copy()
    affine[axis, 3] += mm
    return affine


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_half_a_voxel_away_is_refused_with_both_affines(tmp_path, image, axis):
    file = mask_file(tmp_path, np.zeros(SHAPE, np.uint8), moved(axis, 0.25))
    with pytest.raises(
        DataError, match=r"0\.25 mm from its image's, allowed are 0\.125; affine of"
    ):
        load_mask(file, image)


def test_a_flipped_mask_is_refused_though_its_shape_fits(tmp_path, image):
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    with pytest.raises(DataError, match="a corner lies"):
        load_mask(mask_file(tmp_path, np.zeros(SHAPE, np.uint8), AFFINE @ flip), image)


def test_a_mask_turned_about_its_first_voxel_is_refused(tmp_path, image):
    tilt = np.eye(4)
    tilt[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    turned = tilt @ AFFINE
    turned[:3, 3] = AFFINE[:3, 3]
    with pytest.raises(DataError, match="a corner lies"):
        load_mask(mask_file(tmp_path, np.zeros(SHAPE, np.uint8), turned), image)


def test_a_mask_a_tenth_of_a_voxel_away_is_read_with_a_warning(tmp_path, image, caplog):
    load_mask(mask_file(tmp_path, np.zeros(SHAPE, np.uint8), moved(0, 0.05)), image)
    assert "mask.nii.gz: a corner lies 0.05 mm from its image's" in caplog.text


def test_a_mask_of_rounded_numbers_is_read_without_a_warning(tmp_path, image, caplog):
    load_mask(mask_file(tmp_path, np.zeros(SHAPE, np.uint8), moved(0, 5e-4)), image)
    assert not caplog.records


@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 2), (1, 4)])
def test_a_saved_mask_comes_back_in_the_geometry_of_its_image(tmp_path, qform, sform):
    stored = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    rigid = AFFINE.copy()
    rigid[:3, 2] = [0, -0.3 * 4 / 0.4, 4]  # a qform holds no shear
    stored.header.set_qform(rigid, qform)
    stored.header.set_sform(rigid, sform)
    stored.header["descrip"] = b"a name"
    stored.header["cal_max"] = 4095
    nib.Nifti1Image(stored.dataobj, None, stored.header).to_filename(tmp_path / "image.nii.gz")
    image = load_image(tmp_path / "image.nii.gz")
    mask = np.random.default_rng(0).random(SHAPE) > 0.5
    file = tmp_path / "predictions" / "case.nii.gz"
    save_mask(file, mask, image)
    np.testing.assert_array_equal(load_mask(file, image), mask)
    saved = nib.load(file)
    np.testing.assert_array_equal(saved.affine, image.affine)
    assert (int(saved.header["qform_code"]), int(saved.header["sform_code"])) == (qform, sform)
    assert saved.get_data_dtype() == np.uint8
    assert saved.header["descrip"].item() == b""
    assert saved.header["cal_max"] == 0
    assert list(file.parent.iterdir()) == [file]  # no partial file is left


def test_a_mask_saved_twice_has_the_same_bytes_whatever_its_name(tmp_path, image):
    mask = np.ones(SHAPE, bool)
    save_mask(tmp_path / "a.nii.gz", mask, image)
    save_mask(tmp_path / "longer_name.nii.gz", mask, image)
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "longer_name.nii.gz").read_bytes()
    assert content[3] & 8 == 0  # no file name in the gzip header
    assert content[4:8] == bytes(4)  # nor a time


@pytest.mark.parametrize(
    "mask", [np.zeros(SHAPE, np.uint8), np.zeros((4, 5, 3), bool), np.zeros((*SHAPE, 1), bool)]
)
def test_what_is_no_mask_of_the_image_is_not_saved(tmp_path, image, mask):
    with pytest.raises(DataError, match="a mask must be bool"):
        save_mask(tmp_path / "case.nii.gz", mask, image)
    assert not (tmp_path / "case.nii.gz").exists()


real = pytest.mark.skipif(
    "SPINE_TEST_DATA" not in os.environ, reason="SPINE_TEST_DATA names no folder of real images"
)


@real
def test_real_masks_fit_their_images_and_survive_saving(tmp_path):
    folder = Path(os.environ["SPINE_TEST_DATA"]) / "gm-challenge"
    for file in sorted(folder.glob("sub-*/anat/*_T2starw.nii.gz")):
        image = load_image(file)
        labels = folder / "derivatives" / "labels" / file.parent.relative_to(folder)
        stem = file.name.removesuffix(".nii.gz")
        gray_matter = load_mask(labels / f"{stem}_gmseg-manual.nii.gz", image)
        assert 0 < gray_matter.mean() < 0.01
        save_mask(tmp_path / file.name, gray_matter, image)
        np.testing.assert_array_equal(load_mask(tmp_path / file.name, image), gray_matter)
        np.testing.assert_array_equal(nib.load(tmp_path / file.name).affine, image.affine)
