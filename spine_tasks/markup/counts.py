"""What a prepared data set holds, in numbers: boxes, their sizes, and the pictures' values."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.pictures import read_picture
from spine_tasks.errors import DataError
from spine_tasks.markup.marks import Markup

CHANNELS = ("red", "green", "blue")
BINS = 10  # of the table of sizes


class Moments:
    """Mean and standard deviation of many values that are never in memory at once."""

    def __init__(self) -> None:
        self.number, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in the values of one picture."""
        # Chan, Golub and LeVeque: differences from the means, so that no large squares cancel.
        number, mean = values.size, float(values.mean(dtype=np.float64))
        difference, total = mean - self.mean, self.number + number
        self.squares += float(np.square(values - mean, dtype=np.float64).sum())
        self.squares += difference**2 * self.number * number / total
        self.mean += difference * number / total
        self.number = total

    @property
    def std(self) -> float:
        """Standard deviation over all values (divided by their number); NaN without any."""
        return float(np.sqrt(self.squares / self.number)) if self.number else float("nan")


def counts_text(markup: Markup) -> str:
    """Images, patients and boxes; boxes of each class; how many images have how many boxes."""
    labels = Counter(name for image in markup.images for name in image.classes)
    images = {n: sum(n in image.classes for image in markup.images) for n in markup.classes}
    numbers = Counter(len(image.boxes) for image in markup.images)
    patients = {image.patient for image in markup.images} - {None}
    of_patients = f" of {len(patients)} patients" if patients else ""
    lines = [f"{len(markup.images)} images{of_patients}, {labels.total()} boxes"]
    lines += [f"  {n}: {labels[n]} boxes in {images[n]} images" for n in markup.classes]
    spread = ", ".join(f"{n} ({numbers[n]})" for n in sorted(numbers))
    return "\n".join([*lines, f"  boxes an image (images): {spread}"])


def sizes_text(markup: Markup) -> str:
    """A table of the boxes' widths and heights: medians, and numbers in bins of equal width."""
    sizes = np.concatenate([image.boxes[:, 2:] - image.boxes[:, :2] for image in markup.images])
    if not len(sizes):
        return "no box, so no sizes"
    edges = np.histogram_bin_edges(sizes, BINS)
    numbers = [np.histogram(sizes[:, axis], edges)[0].tolist() for axis in (0, 1)]
    width, height = np.median(sizes, axis=0).tolist()
    rows = [
        f"  {low:8.1f} {high:8.1f} {wide:8d} {tall:8d}"
        for low, high, wide, tall in zip(edges[:-1], edges[1:], *numbers, strict=True)
    ]
    head = f"  {'from px':>8} {'to px':>8} {'widths':>8} {'heights':>8}"
    return "\n".join([f"sizes of boxes: median {width:g} x {height:g} px", head, *rows])


def values_text(files: Iterable[Path]) -> str:
    """Mean and standard deviation of grey values, and of 8-bit pictures' channels.

    Grey values are in the unit of the files; channels are fractions of 255, as training on RGB
    pictures normalises them. Both are over all pixels of all pictures.
    """
    grey, channels, eight_bit = Moments(), [Moments() for _ in CHANNELS], 0
    for file in files:
        grey.add(read_picture(file))
        rgb = _rgb(file)
        if rgb is not None:
            eight_bit += 1
            for moments, channel in zip(channels, np.moveaxis(rgb, 2, 0), strict=True):
                moments.add(channel.astype(np.float32) / 255)
    lines = [f"grey values: mean {grey.mean:.6g}, std {grey.std:.6g}"]
    if eight_bit:
        lines.append(f"channels of the {eight_bit} pictures of 8 bits, as fractions of 255:")
        lines += [
            f"  {name}: mean {moments.mean:.4f}, std {moments.std:.4f}"
            for name, moments in zip(CHANNELS, channels, strict=True)
        ]
    return "\n".join(lines)


def _rgb(file: Path) -> NDArray[np.uint8] | None:
    """The channels (H, W, 3) of a picture; None if it is not of 8 bits."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode not in ("L", "LA", "P", "RGB", "RGBA"):
                return None
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:  # DICOM
        return None
    except OSError as error:
        raise DataError(f"{file}: damaged or cut off ({error}); fetch or copy it again") from error
