"""What a factor of a grid changes across the others, paired by person."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import pandas as pd

from spine_tasks.errors import ConfigError
from spine_tasks.stats.comparisons import TESTED, tested
from spine_tasks.stats.persons import MEASURE, side_by_side, without_round_off
from spine_tasks.stats.rank_tests import holm

EFFECT = [*MEASURE, "factor", "level", "baseline_level", "matched", *TESTED]

Levels = Mapping[str, object]  # of one arm, by factor
ArmAt = dict[frozenset[tuple[str, str]], str]  # the arm that has these levels
Contrasts = list[dict[str, int]]  # of arms to be added (1) or subtracted (-1)
Effects = dict[tuple[str, str, str], Contrasts]  # by factor, level and the baseline's level


def factor_effects(cases: pd.DataFrame, knobs: Mapping[str, Levels], baseline: str) -> pd.DataFrame:
    """What each level of each factor changes, averaged over the levels of the other factors.

    Two arms match if they differ in one factor only, of which one has the baseline's level. Their
    difference is averaged within each person over all matched pairs of arms (and, as everywhere,
    over seeds and cases); persons are the n of interval and test. A person without a value in one
    of these arms is dropped: its mean would be over fewer arms than that of others.

    Parameters
    ----------
    cases
        As in `spine_tasks.stats.persons`.
    knobs
        The factor levels of each arm by its name, such as `{"init=scratch augment=False":
        {"init": "scratch", "augment": False}}`. Arms of `cases` that are not in it are left out,
        and so are arms without a case.
    baseline
        The name of the arm whose levels others are compared with.

    Returns
    -------
    DataFrame
        Columns `label, metric, factor, level, baseline_level, matched` and those of
        `comparisons.tested`; factors and levels in the order of `knobs`. `matched` counts pairs of
        arms; the mean difference is that of `level` minus `baseline_level`. `p_holm` is corrected
        over all factors and levels of one label and metric. Empty if nothing is crossed: without a
        level that has two pairs of arms, `comparisons` says the same.

    Raises
    ------
    ConfigError
        `knobs` has no arm `baseline`, or the same levels for two arms.
    DataError
        As in `by_person`.
    """
    values = side_by_side(cases)
    effects = _effects(values, knobs, baseline, together=1)
    crossed = any(len(contrasts) > 1 for contrasts in effects.values())
    return _table(values, effects if crossed else {})


def interactions(cases: pd.DataFrame, knobs: Mapping[str, Levels], baseline: str) -> pd.DataFrame:
    """How much more a level changes where another factor has left the baseline's level, too.

    Of two factors with the baseline's levels a, b and others A, B it is the difference of
    differences (AB - aB) - (Ab - ab), averaged within each person over all such fours of arms that
    are equal in the other factors. It is 0 where effects add up.

    Returns
    -------
    DataFrame
        As `factor_effects`, a row for two factors and a level of each, named such as `init x
        augment`, `pretrained x True`, `scratch x False`; `matched` counts fours of arms. `p_holm`
        is corrected over all interactions of one label and metric.

    Raises
    ------
    ConfigError, DataError
        As in `factor_effects`.
    """
    values = side_by_side(cases)
    return _table(values, _effects(values, knobs, baseline, together=2))


def _effects(
    values: pd.DataFrame, knobs: Mapping[str, Levels], baseline: str, together: int
) -> Effects:
    """What arms tell of each level of so many factors together."""
    if baseline not in knobs:
        raise ConfigError(
            f"baseline {baseline!r} is no arm whose factor levels are known; these are {[*knobs]}"
        )
    own = knobs[baseline]
    arm_at = _arm_at({arm: levels for arm, levels in knobs.items() if arm in values})
    found: Effects = {}
    for factors, arm in product(combinations(own, together), arm_at.values()):
        levels = knobs[arm]
        if any(levels.get(factor, own[factor]) == own[factor] for factor in factors):
            continue
        if contrast := _contrast(levels, own, factors, arm_at):
            names = factors, [levels[one] for one in factors], [own[one] for one in factors]
            factor, level, baseline_level = (" x ".join(map(str, those)) for those in names)
            found.setdefault((factor, level, baseline_level), []).append(contrast)
    return found


def _arm_at(knobs: Mapping[str, Levels]) -> ArmAt:
    found: ArmAt = {}
    for arm, levels in knobs.items():
        if (other := found.setdefault(_key(levels), arm)) != arm:
            raise ConfigError(
                f"arms {other!r} and {arm!r} have the same factor levels {dict(levels)}: give each "
                "arm all factors in which arms differ"
            )
    return found


def _key(levels: Levels) -> frozenset[tuple[str, str]]:
    return frozenset((name, repr(level)) for name, level in levels.items())


def _contrast(
    levels: Levels, own: Levels, factors: Sequence[str], arm_at: ArmAt
) -> dict[str, int] | None:
    """The arm of some levels and those with factors set back to the baseline's, if all are there.

    Each factor set back changes the sign, which makes a difference of one factor, and a difference
    of differences of two.
    """
    contrast = {}
    for number in range(len(factors) + 1):
        for back in combinations(factors, number):
            arm = arm_at.get(_key({**levels, **{name: own[name] for name in back}}))
            if arm is None:
                return None
            contrast[arm] = (-1) ** number
    return contrast


def _table(values: pd.DataFrame, effects: Effects) -> pd.DataFrame:
    rows = [
        {"label": label, "metric": metric}
        | dict(zip(("factor", "level", "baseline_level"), effect, strict=True))
        | {"matched": len(contrasts)}
        | tested(_change(own, contrasts).droplevel([*MEASURE]))
        for (label, metric), own in values.groupby(MEASURE)
        for effect, contrasts in effects.items()
    ]
    table = pd.DataFrame(rows, columns=EFFECT)
    table["p_holm"] = table.groupby(MEASURE)["p"].transform(holm)
    return table


def _change(values: pd.DataFrame, contrasts: Contrasts) -> "pd.Series[float]":
    """The mean over contrasts, person by person; NaN where a value is missing."""
    signs = pd.DataFrame(contrasts).fillna(0).sum()
    change = values[signs.index].mul(signs).sum(axis=1, skipna=False) / len(contrasts)
    return without_round_off(change.to_frame(), values)[0]
