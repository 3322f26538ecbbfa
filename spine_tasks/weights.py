"""Where published weights are, and that they are what they claim to be."""

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from spine_tasks.errors import WeightsError
from spine_tasks.files import replacing, sha256

FOLDER = "SPINE_WEIGHTS"  # environment variable: a folder with weights that a site keeps
TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Known:
    """A published file of weights."""

    task: str
    file: str
    sha256: str
    filters: int  # channels of the network it fits
    url: str  # a zip archive that holds the file
    home: str  # page for people
    licence: str


GM_HOME = "https://github.com/spinalcordtoolbox/deepseg_gm_models"
GM_ARCHIVE = f"{GM_HOME}/releases/download/r20180205/20180205_deepseg_gm_models.zip"

KNOWN = {
    "challenge": Known(
        task="gm_segmentation",
        file="challenge_model.hdf5",
        sha256="9b44228ad2fd360930b9d7fc6957a4eb7acbfa8cf6a091d13a932f8e8815dd9e",
        filters=32,
        url=GM_ARCHIVE,
        home=GM_HOME,
        licence="MIT, as published by NeuroPoly with its own code; the archive states none",
    ),
    "large": Known(
        task="gm_segmentation",
        file="large_model.hdf5",
        sha256="85823b9585231c936f2a96cfb627647eca154de572cbb6524a810ff816f5fb27",
        filters=64,
        url=GM_ARCHIVE,
        home=GM_HOME,
        licence="none stated",
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
    if got != known.sha256:
        raise WeightsError(
            f"{where}: altered: SHA-256 {got}, expected {known.sha256}; "
            f"remove it and take {known.file} from {known.home}"
        )


def _download(known: Known, target: Path, places: list[Path]) -> None:
    import urllib.request  # slow to import, and seldom needed
    from http.client import HTTPException

    try:
        with urllib.request.urlopen(known.url, timeout=TIMEOUT_S) as answer:
            archive = answer.read()
        content = _member(archive, known.file)
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
