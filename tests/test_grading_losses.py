"""Losses of grades: probabilities that are some, an order that holds, weights that weigh."""

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `grading`)")

import torch
from torch.nn import functional as F

from spine_tasks.tasks.grading.losses import (
    grade_loss,
    log_probabilities,
    outputs_of,
    weights_of,
)

LOSSES = ["cross_entropy", "focal", "ordinal"]


def some(n=7, grades=4, loss="cross_entropy"):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, outputs_of(grades, loss), generator=generator)
    return logits, torch.randint(0, grades, (n,), generator=generator)


@pytest.mark.parametrize("loss", LOSSES)
def test_probabilities_sum_to_1_also_of_extreme_outputs(loss):
    logits, _ = some(loss=loss)
    for scale in (1, 100):
        log_p = log_probabilities(scale * logits, loss)
        assert log_p.shape == (7, 4)
        assert log_p.isfinite().all()
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(7))


def test_ordinal_outputs_ask_whether_it_is_above_each_grade_in_turn():
    p = log_probabilities(torch.tensor([[0.0, 0.0], [9.0, -9.0]]), "ordinal").exp()
    torch.testing.assert_close(p[0], torch.tensor([0.5, 0.25, 0.25]))
    assert p[1].argmax() == 1


def test_cross_entropy_is_torchs_with_weights():
    logits, truth = some()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = F.cross_entropy(logits, truth, weights)
    torch.testing.assert_close(grade_loss(logits, truth, weights, "cross_entropy"), expected)


def test_the_focal_loss_counts_what_is_nearly_right_less():
    logits, truth = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    p = logits.softmax(1)[0, 0]
    expected = -((1 - p) ** 2) * p.log()
    torch.testing.assert_close(grade_loss(logits, truth, torch.ones(2), "focal"), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_unknown_grades_cost_nothing_and_give_no_gradient(loss):
    logits, truth = some(loss=loss)
    known = grade_loss(logits[:4], truth[:4], torch.ones(4), loss)
    logits.requires_grad_()
    truth[4:] = -1
    all_of = grade_loss(logits, truth, torch.ones(4), loss)
    torch.testing.assert_close(all_of, known)
    all_of.backward()
    assert (logits.grad[4:] == 0).all()
    assert (logits.grad[:4] != 0).any()
    none = grade_loss(logits, torch.full((7,), -1), torch.ones(4), loss)
    assert none == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_along_the_gradient_raises_the_true_grades_probability(loss):
    logits, truth = some(loss=loss)
    logits.requires_grad_()
    before = log_probabilities(logits, loss).gather(1, truth[:, None])
    grade_loss(logits, truth, torch.ones(4), loss).backward()
    after = log_probabilities(logits - 0.01 * logits.grad, loss).gather(1, truth[:, None])
    assert (after > before).all()


def test_balanced_weights_are_those_published():
    truth = torch.repeat_interleave(torch.arange(3), torch.tensor([5531, 485, 326]))
    found = weights_of(truth, 3, "balanced")
    torch.testing.assert_close(found, torch.tensor([1, 11.404, 16.966]), atol=1e-3, rtol=0)
    assert weights_of(truth, 3, "none").tolist() == [1, 1, 1]
    assert weights_of(truth, 3, "severity").tolist() == [1, 2, 4]


def test_a_grade_that_is_absent_weighs_1_and_unknown_ones_are_no_grade():
    assert weights_of(torch.tensor([0, 0, 2, -1]), 3, "balanced").tolist() == [1, 1, 2]
    assert weights_of(torch.tensor([-1]), 3, "balanced").tolist() == [1, 1, 1]
