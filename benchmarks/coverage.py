#!/usr/bin/env python3
"""How often 95 % intervals of a mean hold the true mean, by method, number of persons and data.

For each number of persons many studies are drawn whose true mean is known: of single values, and of
differences between two arms of the same persons (correlated .7, by a Gaussian copula). Then each
method's share of intervals with the true mean in it, and the median and the 90th percentile of
their length, as multiples of Student's t in the same studies: a method that covers by now and then
being much too long is seen there. `rule` is what `spine_tasks.stats.intervals.interval` takes.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --persons 5 6 7 8 --studies 1000
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy import stats  # noqa: E402

from spine_tasks.stats.intervals import CONFIDENCE, bootstrap_t, draws, interval  # noqa: E402

PERSONS = (5, 7, 10, 15, 30, 50, 100)
STUDIES = 2000
AT_ONCE = 250  # studies, for memory
CORRELATION = 0.7  # of two arms' values of a person
FAILING = 0.1  # share of persons on whom a network fails
TAILS = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])

Floats = NDArray[np.float64]
Ends = tuple[Floats, Floats]
Study = tuple[Floats, float]  # values, (studies, persons), and their true mean


def main() -> None:
    """Simulate and print."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--persons", type=int, nargs="+", default=PERSONS)
    flags.add_argument("--studies", type=int, default=STUDIES, help="default: %(default)s")
    asked = flags.parse_args()
    began = time.process_time()
    say(f"{asked.studies} studies each; coverage (median length, its 90th percentile)\n")
    say(f"| data | n | {' | '.join(METHODS)} | rule |")
    say(f"|---|---:|{'---|' * (len(METHODS) + 1)}")
    for name, draw in DATA.items():
        for n in asked.persons:
            rng = np.random.default_rng(n)
            parts = np.array_split(np.arange(asked.studies), -(-asked.studies // AT_ONCE))
            studied = [measured(*draw(rng, (len(part), n))) for part in parts]
            say(f"| {name} | {n} | {' | '.join(told(studied))} | {rule(n)} |")
    say(f"\n{time.process_time() - began:.0f} s of CPU time")


def rule(n: int) -> str:
    """The method that `interval` takes."""
    return interval(np.arange(float(n))).method


def measured(values: Floats, mean: float) -> dict[str, tuple[Floats, Floats]]:
    """Of each method, whether each study's interval holds the mean, and the interval's length."""
    found = {}
    for name, method in METHODS.items():
        low, high = method(values)
        found[name] = ((low <= mean) & (mean <= high), high - low)
    return found


def told(studied: list[dict[str, tuple[Floats, Floats]]]) -> list[str]:
    """A cell of the table for each method."""
    cells = []
    usual = np.concatenate([one["t"][1] for one in studied])
    for name in METHODS:
        held = np.concatenate([one[name][0] for one in studied])
        length = np.concatenate([one[name][1] for one in studied]) / usual
        middle, long = np.quantile(length, [0.5, 0.9])
        cells.append(f"{held.mean():.3f} ({middle:.2f}, {long:.2f})")
    return cells


# Methods: the ends of the interval of each row of values.


def student_t(values: Floats) -> Ends:
    """Student's t."""
    n = values.shape[-1]
    half = stats.t.ppf(TAILS[1], n - 1) * stats.sem(values, axis=-1)
    return values.mean(axis=-1) - half, values.mean(axis=-1) + half


def studentized(values: Floats) -> Ends:
    """Bootstrap-t; where it has no end, Student's t, as `interval` does."""
    ends, usual = bootstrap_t(values, draws(values.shape[-1])), student_t(values)
    defined = np.isfinite(ends).all(axis=0)
    return np.where(defined, ends[0], usual[0]), np.where(defined, ends[1], usual[1])


def percentile(values: Floats) -> Ends:
    """The bootstrap's percentiles."""
    low, high = np.quantile(_means(values), TAILS, axis=-1)
    return low, high


def bca(values: Floats) -> Ends:
    """Bias-corrected and accelerated, as `scipy.stats.bootstrap` does it for one study."""
    means, mean = _means(values), values.mean(axis=-1, keepdims=True)
    below = ((means < mean).mean(axis=-1) + (means <= mean).mean(axis=-1)) / 2
    apart = values - mean
    skew = (apart**3).sum(axis=-1) / (6 * (apart**2).sum(axis=-1) ** 1.5)
    bias = stats.norm.ppf(below)
    z = bias + stats.norm.ppf(TAILS)[:, None]
    level = stats.norm.cdf(bias + z / (1 - skew * z))
    means.sort(axis=-1)
    at = np.rint(level.T * (means.shape[-1] - 1)).astype(int)
    low, high = np.take_along_axis(means, at, axis=-1).T
    return low, high


def _means(values: Floats) -> Floats:
    return values @ draws(values.shape[-1]).T / values.shape[-1]


METHODS: dict[str, Callable[[Floats], Ends]] = {
    "BCa": bca,
    "percentile": percentile,
    "bootstrap-t": studentized,
    "t": student_t,
}


# Data: studies of a shape, and their true mean.

Shape = tuple[int, int]
DSC, WORSE_DSC = stats.beta(18, 2), stats.beta(16, 4)  # skewed to the left, means .9 and .8
DISTANCE = stats.lognorm(1)  # sigma of the logarithm


def single(law: stats.rv_continuous) -> Callable[[np.random.Generator, Shape], Study]:
    """One value a person."""
    return lambda rng, shape: (law.rvs(shape, random_state=rng), float(law.mean()))


def paired(
    arm: stats.rv_continuous, baseline: stats.rv_continuous, scale: float = 1
) -> Callable[[np.random.Generator, Shape], Study]:
    """The difference between two arms; the baseline's values are multiplied by `scale`."""

    def draw(rng: np.random.Generator, shape: Shape) -> Study:
        one, own = rng.normal(size=(2, *shape))
        other = CORRELATION * one + np.sqrt(1 - CORRELATION**2) * own
        ranks = stats.norm.cdf([one, other])
        values = arm.ppf(ranks[0]) - scale * baseline.ppf(ranks[1])
        return values, float(arm.mean() - scale * baseline.mean())

    return draw


def with_failures(rng: np.random.Generator, shape: Shape) -> Study:
    """DSC near .9, and near .3 of some persons."""
    good, bad = stats.beta(90, 10), stats.beta(3, 7)
    fails = rng.random(shape) < FAILING
    values = np.where(fails, bad.rvs(shape, random_state=rng), good.rvs(shape, random_state=rng))
    return values, float(FAILING * bad.mean() + (1 - FAILING) * good.mean())


DATA = {
    "normal": single(stats.norm()),
    "log-normal, sigma 1": single(DISTANCE),
    "Beta(18, 2)": single(DSC),
    "Beta(90, 10), a tenth Beta(3, 7)": with_failures,
    "difference of normals": paired(stats.norm(), stats.norm()),
    "difference of log-normals, one twice the other": paired(DISTANCE, DISTANCE, 2),
    "Beta(18, 2) - Beta(16, 4)": paired(DSC, WORSE_DSC),
}


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
