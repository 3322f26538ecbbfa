"""Learning rates have the values that their schedules are known by."""

import pytest

from spine_tasks.schedules import FIRST, LAST, WARM, factor


def rates(schedule, steps=100, steps_an_epoch=10, lr_drop=4):
    return [factor(schedule, step, steps, steps_an_epoch, lr_drop) for step in range(steps)]


def test_a_constant_rate_stays():
    assert set(rates("constant")) == {1.0}


def test_a_rate_that_drops_does_so_at_the_first_step_of_its_epoch():
    assert rates("step") == [1.0] * 40 + [0.1] * 60


def test_a_rate_whose_drop_is_beyond_the_end_stays():
    assert set(rates("step", lr_drop=10)) == {1.0}


def test_one_cycle_rises_to_its_peak_and_falls_below_where_it_began():
    found = rates("one_cycle")
    top = round(WARM * 100) - 1
    assert (found[0], found[top], found[-1]) == pytest.approx((FIRST, 1.0, LAST))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    middle = (top + 99) / 2  # between two steps of which one is as far above the mean as
    beside = found[int(middle)], found[int(middle + 0.5)]  # the other below
    assert sum(beside) / 2 == pytest.approx((1 + LAST) / 2, abs=1e-3)


def test_one_cycle_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=60)
    theirs = []
    for _ in range(60):
        theirs.append(peer.get_last_lr()[0])
        optimizer.step()
        if len(theirs) < 60:
            peer.step()
    assert rates("one_cycle", steps=60) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_trainings_of_a_few_steps_have_rates_too(steps):
    found = rates("one_cycle", steps=steps)
    assert all(LAST <= rate <= 1 for rate in found)
