"""Logistic regression on features of a backbone: what every network is to beat, or starts from."""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from spine_tasks.errors import Interrupted
from spine_tasks.run import Run
from spine_tasks.tasks.grading.model import Grader
from spine_tasks.tasks.grading.places import Places

PLACES = 64  # features are computed of at once
ITERATIONS = 5000  # at most; on real features some hundreds are needed

log = logging.getLogger(__name__)


def fit_logistic(run: Run, model: Grader, places: Places) -> None:
    """Give each condition's answer the weights of scikit-learn's regression.

    Features are standardised by the training part; of a place with several views each is a row.

    Raises
    ------
    Interrupted
        A stop was requested; the next attempt begins anew, which takes seconds.
    """
    config = places.config
    views = range(1 if config.augment == "none" else config.views or 1)
    features = np.concatenate([np.stack(list(_features(run, model, places, v))) for v in views])
    mean, sd = features.mean(axis=0), features.std(axis=0)
    sd[sd == 0] = 1.0
    for at, name in enumerate(model.conditions):
        truth = np.tile(places.grades[:, at].numpy(), len(views))
        known = truth >= 0
        weights = getattr(model, f"weights_{name}").cpu().numpy()
        regression = LogisticRegression(
            C=config.logistic_c,
            max_iter=ITERATIONS,
            class_weight=dict(enumerate(weights.tolist())),
        ).fit((features[known] - mean) / sd, truth[known])
        answer = model.answers[name]
        assert isinstance(answer, nn.Linear)
        _put(answer, regression, mean, sd)
        log.info("%s: logistic regression in %s iterations", name, regression.n_iter_.tolist())


def _features(run: Run, model: Grader, places: Places, view: int) -> Iterator[np.ndarray]:
    device = next(model.parameters()).device
    for first in range(0, len(places.cases), PLACES):
        if run.stop_requested:
            raise Interrupted("stopped while computing features")
        index = list(range(first, min(first + PLACES, len(places.cases))))
        images = places.inputs([(view, at) for at in index])
        with torch.inference_mode():
            found = model.eval().features(images.to(device), places.levels[index].to(device))
        yield from found.double().cpu().numpy()


def _put(
    answer: nn.Linear, regression: LogisticRegression, mean: np.ndarray, sd: np.ndarray
) -> None:
    """The regression as a layer on features that are not standardised.

    A grade that the training part lacks gets a probability of nearly 0.
    """
    slope, start = regression.coef_ / sd, regression.intercept_ - regression.coef_ @ (mean / sd)
    if len(regression.classes_) == 2:  # one row says all
        slope, start = np.vstack([0 * slope, slope]), np.concatenate([[0.0], start])
    weight, bias = torch.zeros_like(answer.weight), torch.full_like(answer.bias, -30.0)
    weight[regression.classes_] = torch.as_tensor(slope, dtype=weight.dtype)
    bias[regression.classes_] = torch.as_tensor(start, dtype=bias.dtype)
    answer.load_state_dict({"weight": weight, "bias": bias})
