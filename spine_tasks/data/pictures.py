"""Pictures as arrays of grey values: PNG, JPEG and their like by PIL, DICOM by pydicom.

Values stay as they are in the file, since 16 bits of an MR image are not 8: scaling is the task of
who knows what the picture is for.
"""

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.bids import how_to_fetch as how_to_fetch
from spine_tasks.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

# Named, since PIL knows formats that start other programs, such as EPS.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
GREY = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # PIL's modes of one channel
COLOUR = ("LA", "P", "PA", "RGB", "RGBA", "RGBX")  # what PIL turns into RGB without a choice
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B: ITU-R BT.601
ORIENTATION = 274  # the EXIF tag that tells a viewer to turn the picture
# PIL passes on whatever its decoders meet in a damaged file.
DAMAGED = (OSError, EOFError, SyntaxError, TypeError, ValueError, struct.error, zlib.error)
WINDOW_PERCENT = (1.0, 99.5)  # what lies outside is drawn black or white


def read_picture(file: Path) -> NDArray[np.float32]:
    """Read a picture as grey values.

    Parameters
    ----------
    file
        A picture of 1, 8, 16 or 32 bits, or a DICOM file of one frame, compressed or not.

    Returns
    -------
    (H, W) float32
        Grey values of the file, unscaled: of 8 bits 0 to 255, of 16 bits 0 to 65535. Colour whose
        channels are equal is grey; other colour becomes its luminance (ITU-R BT.601), said once a
        folder. Transparency is ignored, and said likewise. DICOM values are after its rescale slope
        and intercept or modality table, without any window; MONOCHROME1, in which high is dark, is
        mirrored within the range of its values.

    Raises
    ------
    DataError
        The file is missing, a pointer, damaged, cut off or of an unknown kind; has several frames,
        values that are not finite, colour of 16 bits a channel (PIL would drop half of them),
        print colour (CMYK, whose grey every program computes in its own way) or a DICOM colour;
        asks to be turned for display (EXIF): nobody knows whether its boxes were drawn before or
        after; or is compressed in a way that needs a package which is not installed.
    """
    if is_dicom(file):
        from spine_tasks.data.dicom_pictures import read_dicom

        picture = read_dicom(file)
    else:
        with _opened(file) as image:
            picture = _grey(file, image)
    if not np.isfinite(picture).all():
        raise DataError(f"{file}: NaN or infinity in it; repair or leave out this picture")
    return picture


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height of a picture in px, from its header alone.

    Raises
    ------
    DataError
        The file is missing, a pointer or of an unknown kind.
    """
    if is_dicom(file):
        from spine_tasks.data.dicom_pictures import dicom_size

        return dicom_size(file)
    with _opened(file) as image:
        return image.width, image.height


def to_uint8(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey values for drawing: percentiles 1 to 99.5 become 0 to 255, what lies outside is cut.

    Parameters
    ----------
    picture
        (H, W), finite.

    Returns
    -------
    (H, W) uint8
        All 0 where the two percentiles are equal.

    Examples
    --------
    >>> to_uint8(np.arange(1000, 1201, dtype=np.float32).reshape(1, -1))[0, [0, 2, 199, 200]]
    array([  0,   0, 255, 255], dtype=uint8)
    """
    low, high = np.percentile(picture, WINDOW_PERCENT)
    if low == high:
        return np.zeros(picture.shape, np.uint8)
    drawn: NDArray[np.float32] = np.clip((picture - low) / (high - low), 0, 1) * 255
    return drawn.astype(np.uint8)


@contextmanager
def _opened(file: Path) -> "Iterator[Image]":
    """A picture of which only the header is read; what goes wrong inside is a `DataError`."""
    from PIL import Image, UnidentifiedImageError  # the launcher may need no picture

    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(_no_picture(file)) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{file}: far too large for a picture ({error})") from error
    except DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: damaged or cut off ({error}); fetch or copy it again") from error


def is_dicom(file: Path) -> bool:
    """Whether a file that is there is DICOM, which has no common ending."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except FileNotFoundError as error:
        how = how_to_fetch(file) if file.is_symlink() else "fetch the data, or correct the path"
        raise DataError(f"{file}: no such file; {how}") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _no_picture(file: Path) -> str:
    if pointer := how_to_fetch(file):
        return f"{file}: its content is not here; {pointer}"
    what = "not a picture" if file.stat().st_size else "an empty file"
    return f"{file}: {what}; a picture is DICOM or {', '.join(FORMATS)}"


def _grey(file: Path, image: "Image") -> NDArray[np.float32]:
    """The grey values (H, W) of an opened picture."""
    # As in the file, of which PIL reads RGB;16B as RGB; gone as soon as its pixels are read.
    tiles = getattr(image, "tile", None)
    depth = str(tiles[0].args) if tiles else ""
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise DataError(f"{file}: {frames} pictures in one file; save each in its own")
    if (turn := image.getexif().get(ORIENTATION, 1)) != 1:
        raise DataError(
            f"{file}: its EXIF orientation {turn} asks to turn it for display, and its boxes may "
            "be drawn either way; save it upright without the mark, and check the boxes"
        )
    if image.mode not in GREY + COLOUR or (image.mode in COLOUR and ";16" in depth):
        raise DataError(
            f"{file}: colour of kind {image.mode} {depth}; save it as grey PNG of 8 or 16 bits"
        )
    if image.mode in GREY:
        return np.asarray(image).astype(np.float32)
    rgba = np.asarray(image.convert("RGBA"))  # what a palette with transparency can become
    if (rgba[..., 3] < 255).any():
        _say_once(file.parent, "pictures with transparency, which is ignored")
    channels, first = rgba[..., :3], rgba[..., 0]
    if (channels == first[..., None]).all():
        return first.astype(np.float32)
    _say_once(file.parent, "pictures in colour, read as their luminance")
    return channels.astype(np.float32) @ LUMINANCE


@cache
def _say_once(folder: Path, what: str) -> None:
    log.warning("%s: %s", folder, what)
