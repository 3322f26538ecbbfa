"""All metrics of the grades of one run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.data.rsna_names import CONDITIONS, GRADES
from spine_tasks.grade_predictions import Probabilities
from spine_tasks.metrics import grades as g
from spine_tasks.metrics import rsna
from spine_tasks.metrics.grades import Floats, Integers

ALL = "all"  # the label of what is over all conditions
SET = "*"  # subject and case of a metric of all places together

Row = tuple[str, str, str, str, float]
Values = dict[tuple[str, str], Floats]  # (label, metric) -> (B,)


@dataclass(frozen=True)
class Places:
    """The places of one part that have a grade of one condition, and what was found there."""

    cases: Sequence[GradeCase]  # (N,)
    p: Floats  # (N, K)
    truth: Integers  # (N,)

    def at_level(self, level: str) -> "Places":
        """Those of one level."""
        at = [number for number, case in enumerate(self.cases) if case.level == level]
        return Places([self.cases[number] for number in at], self.p[at], self.truth[at])


def places_of(
    cases: Sequence[GradeCase], found: Probabilities, conditions: Mapping[str, Sequence[str]]
) -> dict[str, Places]:
    """The graded places of each condition; a place whose grade is not known is in none."""
    places = {}
    for condition, names in conditions.items():
        graded = [case for case in cases if case.grades.get(condition) is not None]
        p = np.array([found[case.id, condition] for case in graded]).reshape(-1, len(names))
        truth = np.array([case.grades[condition] for case in graded], np.int64)
        places[condition] = Places(graded, p, truth)
    return places


def grades_known(
    cases: Sequence[GradeCase], conditions: Mapping[str, Sequence[str]]
) -> dict[str, Integers]:
    """The grades of some cases by condition, those that are known."""
    known = {name: [case.grades.get(name) for case in cases] for name in conditions}
    return {
        name: np.array([one for one in grades if one is not None], np.int64)
        for name, grades in known.items()
    }


def score_grades(
    test: Mapping[str, Places],
    val: Mapping[str, Places],
    train_grades: Mapping[str, Integers],
    conditions: Mapping[str, Sequence[str]],
    levels: Sequence[str],
) -> Iterator[Row]:
    """Every metric of the grades given in the test part, in a fixed order.

    Parameters
    ----------
    test, val
        Condition -> its places of that part; temperatures are fitted on the validation part.
    train_grades
        Condition -> grades in the training part: what a guess by majority or frequency knows.
    conditions
        Condition -> names of its grades, mildest first.
    levels
        Of the data.

    Returns
    -------
    iterator of (str, str, str, str, float)
        Subject, case, label, metric, value. First of each place `right` and `log_loss_place`.
        Then, with `*` as subject and case, what is defined for a set of places: of each condition,
        of each of its grades (label `condition: grade`), its confusion table over all levels and
        of each level (label `condition level: grade`, metric `graded_as_x`), and, where the data
        has the challenge's three conditions, its metric (label `all`).
    """
    for condition, places in test.items():
        losses = g.log_losses(places.p, places.truth)
        right = places.p.argmax(axis=1) == places.truth
        for case, loss, is_right in zip(places.cases, losses, right, strict=True):
            yield case.subject, case.id, condition, "right", float(is_right)
            yield case.subject, case.id, condition, "log_loss_place", float(loss)
    weights = {name: _once(places) for name, places in test.items()}
    values = set_metrics(test, weights, temperatures(val), train_grades, conditions)
    for (label, metric), value in values.items():
        yield SET, SET, label, metric, float(value[0])
    for condition, places in test.items():
        for level, at_level in [("", places), *((one, places.at_level(one)) for one in levels)]:
            where = f"{condition} {level}" if level else condition
            if level and not len(at_level.truth):
                continue
            [table] = g.tables(at_level.p, at_level.truth, _once(at_level))
            for true, row in zip(conditions[condition], table, strict=True):
                for given, count in zip(conditions[condition], row, strict=True):
                    yield SET, SET, f"{where}: {true}", f"graded_as_{given}", float(count)


def temperatures(val: Mapping[str, Places]) -> dict[str, float]:
    """The temperature of each condition by the validation part; NaN where it has no place."""
    return {name: g.temperature(places.p, places.truth) for name, places in val.items()}


def set_metrics(
    test: Mapping[str, Places],
    weights: Mapping[str, Floats],
    temperature: Mapping[str, float],
    train_grades: Mapping[str, Integers],
    conditions: Mapping[str, Sequence[str]],
) -> Values:
    """What is defined for a set of places, for each of many weights of them.

    Parameters
    ----------
    weights
        Condition -> (B, N): how often each place counts.
    temperature
        Condition -> that of the validation part.

    Returns
    -------
    dict of (str, str) to ndarray
        (label, metric) -> (B,), as `score_grades` describes.
    """
    values: Values = {}
    for condition, places in test.items():
        own = weights[condition]
        named = _of_condition(places, own, temperature[condition], train_grades[condition])
        values |= {(condition, metric): value for metric, value in named.items()}
        for grade, name in enumerate(conditions[condition]):
            for metric, value in _of_grade(places, own, grade).items():
                values[f"{condition}: {name}", metric] = value
    if all(tuple(conditions.get(name, ())) == GRADES for name in CONDITIONS):
        rows = {name: _rsna_rows(test[name], weights[name]) for name in CONDITIONS}
        terms = rsna.rsna(rows)
        values |= {(ALL, metric): terms[metric] for metric in ("any_severe_spinal", "rsna")}
        values |= {(name, "log_loss_weighted"): terms[name] for name in CONDITIONS}
    return values


def _of_condition(
    places: Places, weights: Floats, temperature: float, train_grades: Integers
) -> dict[str, Floats]:
    p, truth = places.p, places.truth
    table = g.tables(p, truth, weights)
    cooled = g.tempered(p, temperature)
    counts = np.bincount(train_grades, minlength=p.shape[1])
    prior = np.broadcast_to(counts / max(counts.sum(), 1), p.shape)
    return {
        "accuracy": g.accuracy(table),
        "accuracy_majority": g.accuracy(g.tables(prior, truth, weights)),
        "balanced_accuracy": g.recalls(table).mean(axis=-1),
        "precision_macro": g.precisions(table).mean(axis=-1),
        "F1_macro": g.f1s(table).mean(axis=-1),
        "AUROC": np.mean([_auroc(places, weights, k) for k in _one_against_rest(p)], axis=0),
        "kappa": g.kappa(table),
        "kappa_mean_grade": g.kappa(g.tables(p, truth, weights, mean=True)),
        "log_loss": g.log_loss(p, truth, weights),
        "log_loss_prior": g.log_loss(prior, truth, weights),
        "ECE": g.ece(p, truth, weights),
        "temperature": np.full(len(weights), temperature),
        "log_loss_tempered": g.log_loss(cooled, truth, weights),
        "ECE_tempered": g.ece(cooled, truth, weights),
    }


def _of_grade(places: Places, weights: Floats, grade: int) -> dict[str, Floats]:
    table = g.tables(places.p, places.truth, weights)
    return {
        "precision_grade": g.precisions(table)[:, grade],
        "recall_grade": g.recalls(table)[:, grade],
        "F1_grade": g.f1s(table)[:, grade],
        "AUROC_grade": _auroc(places, weights, grade),
    }


def _once(places: Places) -> Floats:
    return np.ones((1, len(places.truth)))


def _one_against_rest(p: Floats) -> range:
    """The grades whose AUROCs are averaged; of two, one says all."""
    return range(1, 2) if p.shape[1] == 2 else range(p.shape[1])


def _auroc(places: Places, weights: Floats, grade: int) -> Floats:
    return g.auroc(places.p[:, grade], places.truth == grade, weights)


def _rsna_rows(places: Places, weights: Floats) -> rsna.Graded:
    return rsna.Graded(places.p, places.truth, [case.study for case in places.cases], weights)
