"""Weights are found in the order that is promised, and never altered ones."""

import hashlib
import http.server
import re
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from spine_tasks import weights
from spine_tasks.configs import MODELS, defaults_of, make_config
from spine_tasks.errors import WeightsError

CONTENT = b"some weights"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """An empty site folder and an empty cache; a known file `tiny` that no network has."""
    site, cache = tmp_path / "site", tmp_path / "cache"
    site.mkdir()
    monkeypatch.setenv("SPINE_WEIGHTS", str(site))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    known = replace(
        weights.KNOWN["challenge"],
        file="tiny.hdf5",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        url="http://127.0.0.1:9/tiny.zip",  # the discard port: nobody answers
    )
    monkeypatch.setitem(weights.KNOWN, "tiny", known)
    return site, cache / "spine_tasks" / "weights"


def put(file: Path, content: bytes = CONTENT) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_known_weights_have_a_hash_that_cannot_be_met_by_chance():
    for known in weights.KNOWN.values():
        # The publishers of PyTorch checkpoints give eight digits, in the name of the file.
        digits = 64 if known.sha256 not in known.file else 8
        assert re.fullmatch(f"[0-9a-f]{{{digits}}}", known.sha256), known
    assert all(weights.KNOWN[name].job == "gm_segmentation" for name in ("challenge", "large"))


def test_known_weights_fit_networks_that_there_are():
    for known in weights.KNOWN.values():
        fitting = [job for job in MODELS if set(known.fits) <= set(defaults_of(job))]
        assert fitting, known
        for job in fitting:
            make_config(job, known.fits)


@pytest.mark.parametrize("inside", ["tiny.hdf5", "gm/tiny.hdf5"])
def test_the_site_folder_and_its_subfolders_come_before_the_cache(folders, inside):
    site, cache = folders
    put(cache / "tiny.hdf5")
    file = put(site / inside)
    assert weights.find("tiny") == file


def test_the_cache_is_used_without_a_site_folder(folders, monkeypatch):
    monkeypatch.delenv("SPINE_WEIGHTS")
    file = put(folders[1] / "tiny.hdf5")
    assert weights.find("tiny") == file


def test_without_xdg_the_cache_is_in_the_home_folder(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    file = put(tmp_path / ".cache" / "spine_tasks" / "weights" / "tiny.hdf5")
    assert weights.find("tiny") == file


@pytest.mark.parametrize("folder", [0, 1], ids=["site", "cache"])
def test_an_altered_file_is_refused_with_both_hashes_and_where_to_get_it(folders, folder):
    file = put(folders[folder] / "tiny.hdf5", b"other bytes")
    with pytest.raises(WeightsError) as error:
        weights.find("tiny")
    for said in (
        str(file),
        hashlib.sha256(b"other bytes").hexdigest(),
        hashlib.sha256(CONTENT).hexdigest(),
        "deepseg_gm_models",
    ):
        assert said in str(error.value)


def test_without_a_network_the_message_says_where_it_looked_and_where_to_get_it(folders):
    site, cache = folders
    with pytest.raises(WeightsError) as error:
        weights.find("tiny")
    for said in (site / "tiny.hdf5", cache / "tiny.hdf5", "127.0.0.1:9", "deepseg_gm_models"):
        assert str(said) in str(error.value)
    assert not cache.exists()


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """A web server on this machine; returns a function that serves bytes as the known archive."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def served(write):
            write(folder / "archive.zip")
            url = f"http://127.0.0.1:{server.server_port}/archive.zip"
            monkeypatch.setitem(weights.KNOWN, "tiny", replace(weights.KNOWN["tiny"], url=url))

        yield served
        server.shutdown()


def zipped(name, content=CONTENT):
    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("gm_models/README.txt", "models")
            archive.writestr(name, content)

    return write


def test_a_download_is_put_into_the_cache_and_not_repeated(folders, serve, monkeypatch):
    serve(zipped("gm_models/tiny.hdf5"))
    file = weights.find("tiny")
    assert file == folders[1] / "tiny.hdf5"
    assert file.read_bytes() == CONTENT
    monkeypatch.setitem(
        weights.KNOWN, "tiny", replace(weights.KNOWN["tiny"], url="http://127.0.0.1:9/")
    )
    assert weights.find("tiny") == file


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (zipped("gm_models/tiny.hdf5", b"other bytes"), "altered"),
        (zipped("gm_models/small.hdf5"), r"no tiny\.hdf5 in the archive"),
        (lambda file: file.write_text("<html>log in first</html>"), "not a zip file"),
        (lambda file: None, "404"),
    ],
    ids=["altered", "absent", "html", "404"],
)
def test_a_bad_download_leaves_nothing_behind(folders, serve, write, message):
    serve(write)
    with pytest.raises(WeightsError, match=message):
        weights.find("tiny")
    assert not folders[1].exists()


def test_a_file_of_ones_own_is_taken_as_it_is(folders, tmp_path):
    own = put(tmp_path / "mine.hdf5", b"anything")
    assert weights.find(own) == own
    assert weights.find(str(own)) == own


@pytest.mark.parametrize("name", ["challange", "/nowhere/mine.hdf5", ""])
def test_an_unknown_name_is_answered_with_the_known_ones(folders, name):
    with pytest.raises(WeightsError, match=r"challenge, .*large"):
        weights.find(name)


def test_a_site_folder_that_is_not_there_is_an_error(folders, monkeypatch, tmp_path):
    put(folders[1] / "tiny.hdf5")
    monkeypatch.setenv("SPINE_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(WeightsError, match=r"gone: no such folder"):
        weights.find("tiny")
