"""The PyTorch loop resumes bit for bit at any step, and stops and keeps what it should."""

import dataclasses
import functools

import pytest

from spine_tasks.errors import Interrupted
from spine_tasks.run import Run

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

from tiny_torch import (  # noqa: E402 (after the check for PyTorch)
    EPOCHS,
    PLAN,
    STEPS,
    StopsAfter,
    adam,
    batches,
    network,
    same,
    samples,
    trained,
    without_times,
)
from torch import nn  # noqa: E402

from spine_tasks.loop_torch import Learner, fit  # noqa: E402


def checkpoint(run):
    return torch.load(run.checkpoint / "last.pt", weights_only=True)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("never"))
    return trained(run), without_times(run.history())


@pytest.mark.parametrize("looks", range(STEPS * EPOCHS + 1))
def test_a_run_stopped_at_any_step_ends_as_one_never_stopped(tmp_path, never_stopped, looks):
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, looks))
    run = Run(tmp_path)
    if looks:  # else no step was made
        progress = checkpoint(run)["progress"]
        assert progress["epoch"] * STEPS + progress["step"] == looks
    assert same(trained(run), never_stopped[0])
    assert without_times(run.history()) == never_stopped[1]


def test_a_run_stopped_at_every_step_still_ends_the_same(tmp_path, never_stopped):
    for _ in range(STEPS * EPOCHS):
        with pytest.raises(Interrupted):
            trained(StopsAfter(tmp_path, 1))
    run = Run(tmp_path)
    assert same(trained(run), never_stopped[0])
    assert without_times(run.history()) == never_stopped[1]


@pytest.mark.parametrize("dies_at", [(0, 2), (1, 0), (2, 1)])
def test_a_run_killed_between_checkpoints_trains_the_steps_since_again(
    tmp_path, never_stopped, dies_at
):
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, 1))  # the only checkpoint is of epoch 0, step 1
    with pytest.raises(MemoryError):
        trained(Run(tmp_path), batches=functools.partial(batches, dies_at=dies_at))
    assert len(Run(tmp_path).history()) == dies_at[0]
    run = Run(tmp_path)
    assert same(trained(run), never_stopped[0])
    assert without_times(run.history()) == never_stopped[1]
    written = (tmp_path / "history.jsonl").read_text().count('"epoch"')
    assert written == EPOCHS  # the records beyond the checkpoint were dropped


def test_a_stop_while_validating_costs_no_step(tmp_path, never_stopped):
    def stops(_judged):
        raise Interrupted("stopped while predicting")

    model = network()
    with pytest.raises(Interrupted):
        fit(Run(tmp_path), model, adam(model), batches, stops, PLAN)
    progress = checkpoint(Run(tmp_path))["progress"]
    assert (progress["epoch"], progress["step"]) == (0, STEPS)
    run = Run(tmp_path)
    assert same(trained(run), never_stopped[0])
    assert without_times(run.history()) == never_stopped[1]


def test_checkpoints_are_written_when_their_time_has_come(tmp_path):
    often = dataclasses.replace(PLAN, checkpoint_s=0.0)
    with pytest.raises(MemoryError):
        trained(Run(tmp_path), often, batches=functools.partial(batches, dies_at=(1, 2)))
    progress = checkpoint(Run(tmp_path))["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 2)


def test_a_finished_run_is_neither_trained_nor_saved_again(tmp_path, never_stopped):
    trained(Run(tmp_path))
    run = Run(tmp_path)
    before = run.history(), run.saved_ns()
    assert same(trained(run, batches=None), never_stopped[0])
    assert (run.history(), run.saved_ns()) == before


def test_training_stops_when_patience_is_over(tmp_path):
    plan = dataclasses.replace(PLAN, epochs=20, patience=2, min_delta=0.1)
    run = Run(tmp_path)
    trained(run, plan, scores=[0.1, 0.5, 0.55, 0.59, 0.9])  # .55 and .59 are not .1 better than .5
    assert [row["epoch"] for row in run.history()] == [0, 1, 2, 3]
    assert run.history()[-1]["best_epoch"] == 1


def test_patience_is_counted_across_a_stop(tmp_path):
    plan = dataclasses.replace(PLAN, epochs=20, patience=3)
    scores = [0.5, 0.4, 0.4, 0.4, 0.9]
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, 2 * STEPS + 1), plan, scores)
    run = Run(tmp_path)
    trained(run, plan, scores)
    assert len(run.history()) == 4


def test_the_best_epochs_weights_are_kept_also_across_a_stop(tmp_path, never_stopped):
    best_first = dataclasses.replace(PLAN, keep_best=True)
    scores = [0.9, 0.1, 0.1]
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path / "a", 2 * STEPS), best_first, scores)
    best = trained(Run(tmp_path / "a"), best_first, scores)
    one_epoch = trained(Run(tmp_path / "b"), dataclasses.replace(PLAN, epochs=1), scores)
    assert same(best, one_epoch)
    assert not same(best, never_stopped[0])
    again = trained(Run(tmp_path / "a"), best_first, batches=None)  # complete but not predicted
    assert same(again, best)


def test_the_history_has_the_mean_of_each_term(tmp_path):
    plain = dataclasses.replace(PLAN, epochs=1, factor=lambda _: 0.0, ema=None)
    run = Run(tmp_path)
    trained(run, plain, model=network(normalised=False, dropout=0.0))
    with torch.no_grad():
        error = network(normalised=False, dropout=0.0).eval()(samples()[0]) - samples()[1]
    [row] = run.history()
    assert row["loss_squared"] == pytest.approx(float(error.square().mean()), abs=1e-6)
    assert row["loss_absolute"] == pytest.approx(0.1 * float(error.abs().mean()), abs=1e-6)
    assert row["loss"] == pytest.approx(row["loss_squared"] + row["loss_absolute"])


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named_and_the_step_is_not_made(tmp_path, broken):
    calls = iter([1.0] * 4 + [broken])  # in the second step of the second epoch
    model = network(breaks=lambda: next(calls))
    message = rf"epoch 1, step 1: of the loss absolute is {broken}; a lower learning_rate"
    with pytest.raises(FloatingPointError, match=message):
        trained(Run(tmp_path / "a"), model=model)
    assert not (tmp_path / "a" / "checkpoint").exists()
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path / "b", 4))
    before = checkpoint(Run(tmp_path / "b"))["model"]
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name, _ in model.named_parameters())


def gradient(parts, model):
    """Of a batch of 4 in equal parts."""
    [[(x, y)]] = list(batches(0, 2))
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=1.0), PLAN)
    terms = learner.step(list(zip(x.chunk(parts), y.chunk(parts), strict=True)), epoch=0, step=2)
    return [value.grad.clone() for value in model.parameters()], terms


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_gradient_and_the_losses_of_the_whole(parts):
    exact = {"normalised": False, "dropout": 0.0}
    whole, whole_terms = gradient(1, network(**exact))
    split, split_terms = gradient(parts, network(**exact))
    for one, other in zip(whole, split, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(whole_terms, split_terms)


def test_each_step_draws_its_own_random_numbers_whatever_was_drawn_before():
    model, batch = network(), next(batches(0, 0))
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=1.0), PLAN)

    def loss(epoch, step):
        torch.rand(epoch + 7 * step)
        return float(learner.step(batch, epoch, step)["squared"])

    places = [(epoch, step) for epoch in range(3) for step in range(3)]
    first = [loss(*place) for place in places]
    assert len(set(first)) > 5  # 4 x 4 units are dropped or not, so two may be alike
    assert [loss(*place) for place in places] == first


@pytest.mark.parametrize(("clip_norm", "moved"), [(0.25, 0.25), (None, 3.0), (7.0, 3.0)])
def test_the_gradient_is_clipped_to_a_norm_and_never_stretched(clip_norm, moved):
    model = nn.Linear(1, 1, bias=False)
    before = float(model.weight.detach())
    plan = dataclasses.replace(PLAN, clip_norm=clip_norm, factor=lambda _: 1.0)
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=1.0), plan)
    model.weight.grad = torch.tensor([[3.0]])
    learner.update(0)
    assert before - float(model.weight.detach()) == pytest.approx(moved, rel=1e-5)


def test_the_averaged_weights_are_judged_and_follow_by_their_decay():
    model = nn.Linear(1, 1, bias=False)
    plan = dataclasses.replace(PLAN, clip_norm=None, ema=0.75, factor=lambda _: 1.0)
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=1.0), plan)
    average = None
    for step, gradient in enumerate([1.0, -2.0, 0.5]):
        model.weight.grad = torch.tensor([[gradient]])
        learner.update(step)
        now = float(model.weight.detach())
        average = now if average is None else 0.75 * average + 0.25 * now
        assert float(learner.judged.weight.detach()) == pytest.approx(average)
    assert learner.judged is not model


def test_the_rate_of_each_group_follows_the_schedule_over_all_epochs(tmp_path):
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            super().step(closure)

    model = network()
    groups = [{"params": model.first.parameters(), "lr": 0.2}, {"params": model.last.parameters()}]
    plan = dataclasses.replace(PLAN, factor=lambda step: 0.5**step)
    fit(Run(tmp_path), model, Watched(groups, lr=1.0), batches, lambda _: 0.0, plan)
    assert seen == [[0.2 * 0.5**step, 0.5**step] for step in range(STEPS * EPOCHS)]
