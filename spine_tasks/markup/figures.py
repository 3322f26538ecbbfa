"""What to look at before training: boxes drawn into pictures, and a histogram of their sizes."""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from spine_tasks.data.pictures import read_picture, to_uint8
from spine_tasks.markup.marks import Markup

# Okabe and Ito, https://jfly.uni-koeln.de/color: told apart with any kind of colour vision.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
ENLARGED_PX = 600  # pictures below this are drawn larger by a whole factor


def draw(markup: Markup, images: Path, folder: Path, number: int) -> None:
    """Write so many of the pictures, spread evenly over all, with their boxes as PNG files.

    A file is named by the picture's id and name.
    """
    places = np.linspace(0, len(markup.images) - 1, min(number, len(markup.images)))
    folder.mkdir()
    for place in np.unique(places.round().astype(int)):
        image = markup.images[place]
        drawn = _drawn(read_picture(images / image.name), image, markup.classes)
        drawn.save(folder / f"{place + 1}-{PurePosixPath(image.name).stem}.png")


def histogram(markup: Markup, file: Path) -> None:
    """Write a figure of the boxes' widths and heights in px, and of their number an image."""
    from matplotlib.figure import Figure  # without pyplot, so that it needs no display

    sizes = {name: _sizes(markup, name) for name in markup.classes}
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, what in enumerate(("width in px", "height in px")):
        values = [of_class[:, axis] for of_class in sizes.values()]
        edges = np.histogram_bin_edges(np.concatenate(values), 20)
        axes[axis].hist(values, edges, stacked=True, label=list(sizes), color=_colours(markup))
        axes[axis].set(xlabel=what, ylabel="boxes")
    counts = [len(image.boxes) for image in markup.images]
    axes[2].hist(counts, np.arange(min(counts), max(counts) + 2) - 0.5, color="0.5")
    axes[2].set(xlabel="boxes an image", ylabel="images")
    axes[0].legend(frameon=False)
    figure.savefig(file, dpi=120)


def _sizes(markup: Markup, name: str) -> Any:
    """Widths and heights (N, 2) in px of the boxes of a class."""
    boxes = [
        box
        for image in markup.images
        for box, label in zip(image.boxes, image.classes, strict=True)
        if label == name
    ]
    corners = np.array(boxes).reshape(-1, 4)
    return corners[:, 2:] - corners[:, :2]


def _colours(markup: Markup) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(len(markup.classes))]


def _drawn(picture: Any, image: Any, classes: tuple[str, ...]) -> Any:
    from PIL import Image, ImageDraw

    height, width = picture.shape
    factor = max(1, round(ENLARGED_PX / max(height, width)))
    grey = Image.fromarray(to_uint8(picture)).resize((width * factor, height * factor))
    canvas = grey.convert("RGB")
    pen = ImageDraw.Draw(canvas)
    for box, name in zip(image.boxes, image.classes, strict=True):
        colour = COLOURS[classes.index(name) % len(COLOURS)]
        x1, y1, x2, y2 = (box * factor).tolist()
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=colour, width=max(1, factor))
        pen.text((x1 + 2, y1 + 1), name, fill=colour)
    return canvas
