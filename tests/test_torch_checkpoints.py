"""Whatever happens to a checkpoint's file, what is loaded is what was once saved, or an error."""

import logging
import math

import pytest

from spine_tasks.errors import RunError

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

from spine_tasks.torch_checkpoints import load, save  # noqa: E402 (after the check for PyTorch)


def state(number):
    return {
        "model": {"weight": torch.full((2, 3), float(number)), "counts": torch.tensor(number)},
        "average": None,
        "progress": {"epoch": number, "losses": {"a": 0.1 + number}, "best": -math.inf},
    }


def is_state(loaded, number):
    expected = state(number)
    tensors, expected_tensors = loaded.pop("model"), expected.pop("model")
    same = all(torch.equal(tensors[name], value) for name, value in expected_tensors.items())
    return same and loaded == expected


@pytest.fixture
def folder(tmp_path):
    """Checkpoints 1 and 2."""
    save(tmp_path, state(1))
    save(tmp_path, state(2))
    return tmp_path


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_where_none_was_written_there_is_none(tmp_path):
    assert load(tmp_path / "never") is None


def test_the_last_is_loaded_with_every_bit_and_the_one_before_is_kept(folder):
    assert is_state(load(folder), 2)
    assert sorted(file.name for file in folder.iterdir()) == ["last.pt", "previous.pt"]
    (folder / "last.pt").unlink()  # killed between the two renames of a save
    assert is_state(load(folder), 1)


def test_a_bit_flipped_anywhere_is_noticed(folder, caplog):
    whole = (folder / "last.pt").read_bytes()
    for place in range(0, len(whole), 29):
        (folder / "last.pt").write_bytes(whole)
        flip(folder / "last.pt", place)
        assert is_state(load(folder), 1), place
        assert "last.pt cannot be read" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("left", [0, 1, 63, 64, 65, 1000, -1])
def test_a_file_that_was_cut_off_is_noticed(folder, left):
    whole = (folder / "last.pt").read_bytes()
    (folder / "last.pt").write_bytes(whole[:left])
    assert is_state(load(folder), 1)


def test_a_spoilt_file_is_put_aside_and_never_takes_the_place_of_the_whole_one(folder, caplog):
    flip(folder / "last.pt", 500)
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert "trying the checkpoint before it" in caplog.text
    assert (folder / "spoilt.pt").exists()
    save(folder, state(3))
    flip(folder / "last.pt", 500)
    assert is_state(load(folder), 1)


def test_with_none_that_can_be_read_training_is_not_begun_anew(folder):
    flip(folder / "last.pt", 500)
    flip(folder / "previous.pt", 500)
    with pytest.raises(RunError, match=r"last\.pt.*previous\.pt.*delete the folder") as raised:
        load(folder)
    assert str(folder) in str(raised.value)


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


def test_no_code_in_a_checkpoint_is_run(tmp_path):
    save(tmp_path, {"model": Harmful()})
    with pytest.raises(RunError, match="no checkpoint can be read"):
        load(tmp_path)


def test_an_error_in_saving_leaves_the_last_as_it_was(folder):
    with pytest.raises(AttributeError, match="pickle"):
        save(folder, {"model": lambda: None})
    assert is_state(load(folder), 2)
    assert sorted(file.name for file in folder.iterdir()) == ["last.pt", "previous.pt"]
