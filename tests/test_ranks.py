"""Processes that train one cell find each other, agree, part, and give what one would give."""

import dataclasses
import os
import signal
from datetime import timedelta

import pytest
from making import cell, run_folder
from rank_processes import on_ranks

from spine_tasks import environment
from spine_tasks.errors import DataError, Interrupted, RunError
from spine_tasks.files import append_line, write_json
from spine_tasks.run import Run

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

from rank_gradients import (  # noqa: E402 (after the check for PyTorch)
    IN_PARTS,
    NETWORKS,
    check_same,
    gradients,
    gradients_here,
)
from tiny_torch import (  # noqa: E402
    PLAN,
    STEPS,
    batches,
    same,
    trained,
    without_times,
)

from spine_tasks import meeting, ranks  # noqa: E402

OFTEN = dataclasses.replace(PLAN, checkpoint_s=0.0)


@pytest.fixture
def run(tmp_path):
    return run_folder(tmp_path, cell())


# What is exchanged


def exchanged(folder):
    with meeting.together(cell(), Run(folder)):
        me = ranks.rank()
        module = torch.nn.BatchNorm1d(2)
        module.running_mean += me
        ranks.take_buffers_of_first(module)
        shares = [ranks.mine(range(number)) for number in (7, 2, 0)]
        return {
            "rank": (me, ranks.count()),
            "mean": ranks.mean_over_ranks(torch.tensor([me, 3.0])).tolist(),
            "agreed": ranks.agree(me == 1, {"a": torch.tensor(me + 0.5), "b": torch.ones(())}),
            "nobody": ranks.any_rank(False),
            "shares": [list(share) for share in shares],
            "together": [ranks.everybodys([10 * one for one in share]) for share in shares],
            "of_first": ranks.of_first(lambda: f"rank {me}"),
            "buffer": module.running_mean.tolist(),
        }


def test_ranks_exchange_what_they_have(run):
    answers = on_ranks(exchanged, run.folder, ranks=3)
    assert [answer.pop("rank") for answer in answers] == [(0, 3), (1, 3), (2, 3)]
    assert [answer.pop("shares") for answer in answers] == [
        [[0, 3, 6], [0], []],
        [[1, 4], [1], []],
        [[2, 5], [], []],
    ]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] == {
        "mean": [1.0, 3.0],
        "agreed": (True, {"a": 1.5, "b": 1.0}),
        "nobody": False,
        "together": [[0, 10, 20, 30, 40, 50, 60], [0, 10], []],
        "of_first": "rank 0",
        "buffer": [0.0, 0.0],
    }
    assert not (run.folder / meeting.MEETING).exists()


def test_one_process_alone_exchanges_nothing(run):
    answer = exchanged(run.folder)
    assert answer["rank"] == (0, 1)
    assert answer["mean"] == [0.0, 3.0]
    assert answer["agreed"] == (False, {"a": 0.5, "b": 1.0})
    assert answer["together"] == [[10 * one for one in share] for share in answer["shares"]]
    assert ranks.agree(True, {}) == (True, {})


# Gradients


@pytest.fixture(scope="module")
def both_gradients(tmp_path_factory):
    torch.set_num_threads(1)
    run = run_folder(tmp_path_factory.mktemp("gradients"), cell())
    return gradients_here(), on_ranks(gradients, run.folder)


@pytest.mark.parametrize("name", [*NETWORKS, IN_PARTS])
def test_two_ranks_have_the_gradient_of_one_with_the_whole_batch(both_gradients, name):
    alone, (first, second) = both_gradients
    check_same(alone[name], first[name])
    check_same(alone[name], second[name])


# Training


def trains(folder, stop_in=None):
    """All of a training, unless the second rank is asked to stop in a step of an epoch."""
    run = Run(folder)

    def steps(epoch, first_step):
        for step, batch in enumerate(batches(epoch, first_step), first_step):
            if ranks.rank() and (epoch, step) == stop_in:
                run.stop_requested = True
            yield batch

    with meeting.together(cell(), run):
        return trained(run, OFTEN, batches=steps)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    run = run_folder(tmp_path_factory.mktemp("never"), cell())
    first, second = on_ranks(trains, run.folder)
    assert same(first, second)  # with the running means of the first
    return first, without_times(run.history())


@pytest.mark.parametrize("stop_in", [(0, STEPS - 1), (1, 0)])  # before validation, and after
def test_a_stop_on_one_rank_stops_both_and_they_end_as_never_stopped(never_stopped, run, stop_in):
    for answer in on_ranks(trains, run.folder, stop_in):
        assert isinstance(answer, Interrupted), answer
        assert str(answer) == f"stopped in epoch {stop_in[0]}, step {stop_in[1] + 1}"
    first, second = on_ranks(trains, run.folder)
    assert same(first, never_stopped[0])
    assert same(second, never_stopped[0])
    assert without_times(run.history()) == never_stopped[1]


def test_a_spoilt_checkpoint_leaves_no_rank_at_another_step(never_stopped, run):
    on_ranks(trains, run.folder, (1, 0))
    last = run.checkpoint / "last.pt"
    last.write_bytes(last.read_bytes()[:-1])
    first, second = on_ranks(trains, run.folder)
    assert same(first, never_stopped[0])
    assert same(second, never_stopped[0])


# Ranks that are lost, or fail


def second_rank(does, folder):
    """The second rank does something in its second step."""

    def steps(epoch, first_step):
        for step, batch in enumerate(batches(epoch, first_step)):
            if step and ranks.rank():
                does()
            yield batch

    run = Run(folder)
    with meeting.together(cell(), run):
        return trained(run, batches=steps)


def fails():
    raise DataError("case 7: cannot be read")


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_rank_that_fails_is_named_by_the_first(run):
    first, second = on_ranks(second_rank, fails, run.folder)
    assert isinstance(first, RunError), first
    assert str(first).startswith("rank 1 failed: DataError: case 7: cannot be read")
    assert isinstance(second, DataError)


def test_a_rank_that_is_killed_interrupts_the_first(run):
    first, second = on_ranks(second_rank, is_killed, run.folder)
    assert isinstance(first, Interrupted), first
    assert str(first).startswith("another rank was lost")
    assert second is None


def first_rank_is_killed(folder):
    with meeting.together(cell(), Run(folder)):
        if ranks.rank() == 0:
            is_killed()
        return ranks.any_rank(True)


def test_without_the_first_rank_the_others_leave(run):
    first, second = on_ranks(first_rank_is_killed, run.folder)
    assert first is None
    assert isinstance(second, Interrupted), second


def one_does_not_come(folder, absent):
    meeting.PATIENCE = timedelta(seconds=2)
    if os.environ[environment.NODE] == absent:
        return None
    with meeting.together(cell(), Run(folder)):
        return "met"


@pytest.mark.parametrize("absent", ["0", "1"])
def test_a_rank_that_does_not_come_is_an_error(run, absent):
    answers = on_ranks(one_does_not_come, run.folder, absent)
    error = answers[1 - int(absent)]
    assert isinstance(error, RunError), error
    assert "came within 0:00:02" in str(error) or "did not come within 0:00:02" in str(error)


@pytest.fixture
def on_second_node(monkeypatch):
    variables = {environment.NODE: "1", environment.NODES: "2", environment.ATTEMPT: "7_0.1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_rank_does_not_wait_for_an_attempt_that_has_ended(run, on_second_node):
    append_line(
        run.folder / "attempts.jsonl", {"event": "failed", "job_id": "7_0", "restart": 1, "pid": 1}
    )
    with pytest.raises(Interrupted, match="rank 0 ended"), meeting.together(cell(), run):
        pass


def test_a_rank_does_not_go_to_the_meeting_of_another_attempt(run, on_second_node):
    write_json(run.folder / meeting.MEETING, {"attempt": "7_0.0", "host": "localhost", "port": 1})
    run.stop_requested = True
    with pytest.raises(Interrupted, match="rank 0 ended"), meeting.together(cell(), run):
        pass
