"""Weights alone: what is kept of a checkpoint, what is left out, and what is refused."""

import argparse
import pickle
import sys

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from spine_tasks.clean_model import main
from spine_tasks.tasks.detection.weights_file import categories_of

torch.set_num_threads(1)


@pytest.fixture
def clean(tmp_path, capsys, monkeypatch):
    """The command: its exit code, stdout and stderr."""

    def cleaned(given, *options, output=tmp_path / "clean.safetensors"):
        words = ["clean_model.py", str(given), "--output", str(output), *options]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return cleaned


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 400))


def trained():
    """A network and its optimiser after a step, which doubles what a checkpoint holds."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3, 3, 3)).square().mean().backward()
    optimizer.step()
    return model, optimizer


def same(tensors, model):
    state = model.state_dict()
    return tensors.keys() == state.keys() and all(
        torch.equal(tensors[name], state[name]) for name in state
    )


def test_a_checkpoint_as_detrs_authors_publish_keeps_its_model(tmp_path, clean):
    model, optimizer = trained()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 7,
        "args": argparse.Namespace(lr=1e-4),
    }
    torch.save(state, tmp_path / "detr.pth")
    code, out, err = clean(tmp_path / "detr.pth")
    assert code == 0, err
    written = tmp_path / "clean.safetensors"
    assert same(load_file(written), model)
    for left in ("optimizer", "epoch", "args"):
        assert f"left out: {left}" in out
    before, after = ((tmp_path / n).stat().st_size for n in ("detr.pth", "clean.safetensors"))
    assert f"{after / 1e6:.2f} MB (detr.pth: {before / 1e6:.2f} MB)" in out
    assert after < before / 2
    fresh = network(seed=9)
    fresh.load_state_dict(load_file(written))  # every name arrives, counters too


def test_half_of_the_size_keeps_three_digits(tmp_path, clean):
    model, _ = trained()
    torch.save(model.state_dict(), tmp_path / "own.pt")
    code, out, _ = clean(tmp_path / "own.pt", "--half")
    assert code == 0
    assert "16 bits" in out
    halves = load_file(tmp_path / "clean.safetensors")
    assert halves["0.weight"].dtype == torch.float16
    assert halves["1.num_batches_tracked"].dtype == torch.int64
    torch.testing.assert_close(halves["0.weight"].float(), model[0].weight.data, rtol=1e-3, atol=0)
    network().load_state_dict(halves)


def test_a_number_too_large_for_16_bits_is_an_error(tmp_path, clean):
    torch.save({"w": torch.tensor([7e4])}, tmp_path / "own.pt")
    code, _, err = clean(tmp_path / "own.pt", "--half")
    assert code == 2
    assert "w has numbers above 65504" in err
    assert not (tmp_path / "clean.safetensors").exists()


def test_numbers_too_small_for_16_bits_are_counted(tmp_path, clean):
    torch.save({"w": torch.tensor([0.0, 1e-9, 1e-5, 0.1])}, tmp_path / "own.pt")
    _, out, _ = clean(tmp_path / "own.pt", "--half")
    assert "fewer or none of 2 numbers below 6e-5" in out


def test_of_a_runs_checkpoint_one_table_must_be_named(tmp_path, clean):
    from torch.optim.swa_utils import AveragedModel

    from spine_tasks import torch_checkpoints

    model, optimizer = trained()
    best, average = network(seed=1), AveragedModel(network(seed=2))
    torch_checkpoints.save(
        tmp_path,
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.state_dict(),
            "best": best.state_dict(),
            "progress": {"epoch": 3},
        },
    )
    code, _, err = clean(tmp_path / "last.pt")
    assert code == 2
    assert "several tables of weights: model" in err
    for name, expected in (("model", model), ("best", best), ("average", average.module)):
        file = tmp_path / f"{name}.safetensors"
        code, out, err = clean(tmp_path / "last.pt", "--take", name, output=file)
        assert code == 0, err
        assert same(load_file(file), expected)
        assert f"left out: {name} " not in out
    assert "n_averaged" in out


def test_parts_of_one_network_become_one_table(tmp_path, clean):
    torch.save({"backbone": {"w": torch.ones(2)}, "transformer": {"w": torch.zeros(3)}},
        tmp_path / "parts.pth")  # fmt: skip
    code, _, err = clean(tmp_path / "parts.pth", "--take", "backbone", "--take", "transformer")
    assert code == 0, err
    assert load_file(tmp_path / "clean.safetensors").keys() == {"backbone.w", "transformer.w"}


def test_the_prefix_of_a_wrapper_falls(tmp_path, clean):
    model = network()
    state = {f"module.{name}": one for name, one in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "parallel.pth")
    _, out, _ = clean(tmp_path / "parallel.pth")
    assert same(load_file(tmp_path / "clean.safetensors"), model)
    assert "names without 'module.'" in out


def test_tied_weights_are_both_kept(tmp_path, clean):
    tied = torch.arange(6.0)
    torch.save({"a": tied, "b": tied, "c": tied[::2]}, tmp_path / "tied.pt")
    code, _, err = clean(tmp_path / "tied.pt")
    assert code == 0, err
    tensors = load_file(tmp_path / "clean.safetensors")
    assert torch.equal(tensors["a"], tensors["b"])
    assert tensors["c"].tolist() == [0, 2, 4]


def test_the_weights_of_a_run_keep_their_categories(tmp_path, clean):
    run = tmp_path / "run"
    run.mkdir()
    about = {"categories": '["healthy"]', "category_ids": "[4]"}
    save_file({"w": torch.ones(3)}, run / "model.safetensors", metadata=about)
    code, _, err = clean(run, "--half")
    assert code == 0, err
    assert categories_of(tmp_path / "clean.safetensors") == (("healthy",), (4,))
    with safe_open(tmp_path / "clean.safetensors", "pt") as opened:
        assert opened.get_tensor("w").dtype == torch.float16


class Evil:
    """Would write a file when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, clean, how):
    trap = tmp_path / "run_by_loading"
    content = {"model": {"w": torch.ones(1)}, "trap": Evil(trap)}
    if how == "torch":
        torch.save(content, tmp_path / "evil.pth")
    else:
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(content))
    code, _, err = clean(tmp_path / "evil.pth")
    assert code == 2
    assert not trap.exists()
    assert not (tmp_path / "clean.safetensors").exists()
    assert "Traceback" not in err
    if how == "torch":
        assert "needs code of" in err
        assert "open" in err


def test_a_whole_model_is_refused_and_its_classes_are_named(tmp_path, clean):
    torch.save(network(), tmp_path / "whole.pt")
    code, _, err = clean(tmp_path / "whole.pt")
    assert code == 2
    assert "torch.nn.modules" in err
    assert "save model.state_dict()" in err


def test_what_is_no_checkpoint_or_no_new_file_is_refused(tmp_path, clean):
    good = tmp_path / "good.pt"
    torch.save({"w": torch.ones(1)}, good)
    (tmp_path / "cut.pt").write_bytes(good.read_bytes()[:-30])
    (tmp_path / "text.safetensors").write_text("no")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    (tmp_path / "there.safetensors").write_text("old")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cell.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    for given, expected in [
        ("cut.pt", "cut.pt: damaged"),
        ("text.safetensors", "text.safetensors: damaged"),
        ("list.pt", "holds a list"),
        ("none.pt", "no weights in it, but epoch"),
        ("absent.pt", "no such file"),
        ("folder", "no model.safetensors in it"),
    ]:
        code, out, err = clean(tmp_path / given)
        assert (code, out) == (2, "")
        assert expected in err
    for output, expected in [
        ("there.safetensors", "is there already"),
        ("new.pt", "must end in .safetensors"),
        ("run/new.safetensors", "lies in the run"),
    ]:
        code, _, err = clean(good, output=tmp_path / output)
        assert code == 2
        assert expected in err
    assert (tmp_path / "there.safetensors").read_text() == "old"
    code, _, err = clean(good, "--take", "model")
    assert "leave --take out" in err
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "one.pt")
    code, _, err = clean(tmp_path / "one.pt", "--take", "ema")
    assert "no table 'ema' of weights; it has model (1 tensors)" in err
