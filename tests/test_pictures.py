"""Pictures: values as they are in the file, and every other kind is refused by name."""

import logging
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from spine_tasks.data import pictures
from spine_tasks.data.pictures import picture_size, read_picture, to_uint8
from spine_tasks.errors import DataError

GRADIENT = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6) * 10  # 4 high, 6 wide


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    pictures._say_once.cache_clear()


def saved(file, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, **options)
    return file


def png(file, bits, kind, raw, width=2, height=2):
    """A PNG as its standard says, of kinds that PIL does not write."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return file


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_values_stay_as_they_are(tmp_path, kind):
    values = GRADIENT.astype(kind) * (257 if kind is np.uint16 else 1)
    file = saved(tmp_path / "a.png", values)
    picture = read_picture(file)
    assert picture.dtype == np.float32
    np.testing.assert_array_equal(picture, values)
    assert picture_size(file) == (6, 4)


def test_16_bits_are_read_in_the_order_of_the_standard_and_one_bit_as_0_and_1(tmp_path):
    # 2 x 2: each line is a filter byte and two values
    deep = png(tmp_path / "deep.png", 16, 0, struct.pack(">BHHBHH", 0, 1, 256, 0, 40000, 65535))
    np.testing.assert_array_equal(read_picture(deep), [[1, 256], [40000, 65535]])
    flat = png(tmp_path / "flat.png", 1, 0, b"\0\x80\0\x40")
    np.testing.assert_array_equal(read_picture(flat), [[1, 0], [0, 1]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_equal_channels_are_grey_and_nothing_is_said(tmp_path, mode, caplog):
    file = saved(tmp_path / "a.png", GRADIENT, mode)
    np.testing.assert_array_equal(read_picture(file), GRADIENT)
    assert not caplog.records


def test_colour_becomes_luminance_and_is_said_once_a_folder(tmp_path, caplog):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    files = [saved(tmp_path / f"{name}.png", colours) for name in "ab"]
    with caplog.at_level(logging.WARNING):
        for file in files:
            expected = [[0.299 * 255, 0.587 * 255, 0.114 * 255, 255]]
            np.testing.assert_allclose(read_picture(file), expected, rtol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: pictures in colour, read as their luminance"
    ]


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([200, 200, 200, 7, 7, 7])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), [[200, 7]])


def test_transparency_is_ignored_and_said(tmp_path, caplog):
    channels = np.dstack([GRADIENT] * 3 + [np.full_like(GRADIENT, 9)])
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.png", channels)), GRADIENT)
    assert "transparency, which is ignored" in caplog.text


def test_a_grey_jpeg_is_near_what_was_saved(tmp_path):
    file = saved(tmp_path / "a.jpg", np.repeat(GRADIENT, 8, axis=1), quality=95)
    assert np.abs(read_picture(file) - np.repeat(GRADIENT, 8, axis=1)).max() < 12
    assert picture_size(file) == (48, 4)


def test_colour_of_16_bits_is_refused_rather_than_halved(tmp_path):
    file = png(tmp_path / "a.png", 16, 2, (b"\0" + bytes(12)) * 2)
    with pytest.raises(DataError, match=r"a\.png: colour of kind RGB RGB;16B; save it as grey PNG"):
        read_picture(file)
    with pytest.raises(DataError, match="LA;16B"):
        read_picture(png(file, 16, 4, (b"\0" + bytes(8)) * 2))


def test_print_colour_is_refused(tmp_path):
    file = saved(tmp_path / "a.jpg", GRADIENT, "CMYK")
    with pytest.raises(DataError, match="colour of kind CMYK"):
        read_picture(file)


def test_a_picture_that_asks_to_be_turned_is_refused_an_upright_one_is_not(tmp_path):
    for turn in (1, 6):
        exif = Image.Exif()
        exif[pictures.ORIENTATION] = turn
        saved(tmp_path / f"{turn}.png", GRADIENT, exif=exif)
        saved(tmp_path / f"{turn}.jpg", GRADIENT, exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "1.png"), GRADIENT)
    assert read_picture(tmp_path / "1.jpg").shape == (4, 6)
    for ending in ("png", "jpg"):
        with pytest.raises(DataError, match=rf"6\.{ending}: its EXIF orientation 6"):
            read_picture(tmp_path / f"6.{ending}")


def test_several_pictures_in_one_file_are_refused(tmp_path):
    more = [Image.fromarray(255 - GRADIENT)]
    saved(tmp_path / "a.tif", GRADIENT, save_all=True, append_images=more)
    with pytest.raises(DataError, match=r"a\.tif: 2 pictures in one file"):
        read_picture(tmp_path / "a.tif")


def test_a_float_picture_keeps_its_values_and_must_be_finite(tmp_path):
    values = np.array([[-1.5, 2.25]], np.float32)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.tif", values)), values)
    with pytest.raises(DataError, match="NaN or infinity"):
        read_picture(saved(tmp_path / "b.tif", np.array([[np.nan, 1]], np.float32)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_a_file_cut_off_anywhere_is_named_and_never_half_read(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 255, (24, 24), np.uint8)
    whole = saved(tmp_path / f"whole.{ending}", noise).read_bytes()
    file = tmp_path / f"cut.{ending}"
    for length in range(0, len(whole) - 24, 11):  # after it come checksums and end marks
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=re.escape(str(file))):
            read_picture(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"a,b\n1,2\n", r"not a picture; a picture is DICOM or PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "its content is not here.*git lfs pull",
        ),
    ],
)
def test_what_is_no_picture_is_said(tmp_path, content, message):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    for read in (read_picture, picture_size):
        with pytest.raises(DataError, match=rf"a\.png: {message}"):
            read(file)


def test_a_missing_file_a_folder_and_a_broken_link_are_named(tmp_path):
    (tmp_path / "link.png").symlink_to(".git/annex/objects/x")
    (tmp_path / "folder.png").mkdir()
    for name, message in (
        ("absent", "no such file"),
        ("folder", "cannot be read"),
        ("link", "git annex get"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.png: .*{message}"):
            read_picture(tmp_path / f"{name}.png")


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    file = png(tmp_path / "a.png", 8, 0, b"", width=60000, height=60000)
    with pytest.raises(DataError, match="far too large"):
        read_picture(file)


# DICOM


def dicom(file, values, **tags):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra `detection`)")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    made = pydicom.dataset.FileDataset(str(file), {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PixelRepresentation = int(values.dtype == np.int16)
    made.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(made, name, value)
    made.save_as(file, enforce_file_format=True)
    return made


STORED = np.array([[0, 100, 4000], [7, 8, 9]], np.uint16)


def test_dicom_values_are_rescaled_and_its_ending_does_not_matter(tmp_path):
    file = tmp_path / "IM0001"
    dicom(file, STORED, RescaleSlope="0.5", RescaleIntercept="-10")
    np.testing.assert_array_equal(read_picture(file), STORED * 0.5 - 10)
    assert picture_size(file) == (3, 2)


def test_signed_dicom_values_stay_signed(tmp_path):
    dicom(tmp_path / "a.dcm", -STORED.astype(np.int16) // 2)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.dcm"), -STORED.astype(int) // 2)


def test_monochrome1_is_mirrored_after_rescaling(tmp_path):
    tags = {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": "2", "RescaleIntercept": 5}
    dicom(tmp_path / "a.dcm", STORED, **tags)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.dcm"), 8010 - (STORED * 2 + 5.0))


def test_compressed_dicom_pixels_are_decoded(tmp_path):
    file = tmp_path / "a.dcm"
    plain = dicom(file, STORED)
    import pydicom

    plain.compress(pydicom.uid.RLELossless)
    plain.save_as(file)
    np.testing.assert_array_equal(read_picture(file), STORED)


def test_a_compression_without_decoder_names_the_packages(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra `detection`)")
    pixels = pydicom.encaps.encapsulate([bytes(64)])
    dicom(tmp_path / "a.dcm", STORED, syntax=pydicom.uid.JPEGLSLossless, PixelData=pixels)
    with pytest.raises(DataError, match=r"a\.dcm: compressed as JPEG-LS Lossless.*pylibjpeg"):
        read_picture(tmp_path / "a.dcm")
    assert picture_size(tmp_path / "a.dcm") == (3, 2)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": 2, "PixelData": STORED.tobytes() * 2}, "of 2 frames; convert it"),
        ({"SharedFunctionalGroupsSequence": []}, "enhanced DICOM of 1 frames"),
        ({"PhotometricInterpretation": "RGB"}, "kind RGB, not of grey values"),
        ({"PixelData": bytes(4)}, "damaged or no image"),
        ({"Rows": None}, "damaged or no image"),
        ({"BitsAllocated": 7}, "damaged or no image"),
    ],
)
def test_dicom_that_is_not_one_grey_picture_is_refused(tmp_path, tags, message):
    dicom(tmp_path / "a.dcm", STORED, **tags)
    with pytest.raises(DataError, match=rf"a\.dcm: .*{message}"):
        read_picture(tmp_path / "a.dcm")


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_dicom_cut_off_anywhere_is_named(tmp_path):
    file = tmp_path / "a.dcm"
    dicom(file, STORED)
    whole = file.read_bytes()
    for length in range(132, len(whole), 5):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.dcm"):
            read_picture(file)


# Drawing


def test_drawing_cuts_the_tails_and_keeps_the_order():
    values = np.random.default_rng(0).normal(1000, 50, (40, 50)).astype(np.float32)
    values[0, 0], values[0, 1] = 1e6, -1e6
    drawn = to_uint8(values)
    assert (drawn[0, 0], drawn[0, 1]) == (255, 0)
    assert 100 < drawn.mean() < 155  # one wild value does not darken the rest
    order = np.argsort(values, axis=None)
    assert (np.diff(drawn.ravel()[order].astype(int)) >= 0).all()


def test_a_picture_of_one_value_is_drawn_black():
    assert not to_uint8(np.full((3, 3), 7, np.float32)).any()
