"""Metrics of grades: known values, scikit-learn's where it has them, and laws of weights."""

import numpy as np
import pytest
from sklearn import metrics as sk

from spine_tasks.metrics import grades as g
from spine_tasks.metrics import rsna

RNG = np.random.default_rng(0)


def graded(n=60, k=4):
    """Probabilities that know something of the truth, with ties, and whole weights."""
    truth = RNG.integers(0, k, n)
    p = RNG.dirichlet(np.ones(k), n) + 0.5 * np.eye(k)[truth]
    p = (p / p.sum(axis=1, keepdims=True)).round(1) + 1e-3
    return p / p.sum(axis=1, keepdims=True), truth, RNG.integers(0, 3, (5, n)).astype(float)


@pytest.mark.parametrize("k", [2, 4])
def test_scikit_learn_has_the_same_values_with_weights(k):
    p, truth, weights = graded(k=k)
    found = p.argmax(axis=1)
    table = g.tables(p, truth, weights)
    names = range(k)
    for b, w in enumerate(weights):
        kept = {"sample_weight": w}
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            truth, found, labels=names, zero_division=np.nan, **kept
        )
        assert table[b] == pytest.approx(sk.confusion_matrix(truth, found, labels=names, **kept))
        assert g.accuracy(table)[b] == pytest.approx(sk.accuracy_score(truth, found, **kept))
        assert g.recalls(table)[b] == pytest.approx(recall)
        assert g.precisions(table)[b] == pytest.approx(precision, nan_ok=True)
        assert g.f1s(table)[b] == pytest.approx(f1)
        expected = sk.cohen_kappa_score(truth, found, weights="quadratic", **kept)
        assert g.kappa(table)[b] == pytest.approx(expected)
        expected = sk.log_loss(truth, p, labels=names, **kept)
        assert g.log_loss(p, truth, weights)[b] == pytest.approx(expected)
        for grade in names:
            expected = sk.roc_auc_score(truth == grade, p[:, grade], **kept)
            got = g.auroc(p[:, grade], truth == grade, weights)[b]
            assert got == pytest.approx(expected), grade


def test_a_weight_of_two_is_the_place_twice():
    p, truth, weights = graded()
    for w in weights:
        often = np.repeat(np.arange(len(truth)), w.astype(int))
        once = np.ones((1, len(often)))
        for metric in (g.log_loss, g.ece):
            assert metric(p, truth, w[None]) == pytest.approx(metric(p[often], truth[often], once))


def test_the_mean_grade_is_rounded_and_of_equal_grades_the_mildest_is_given():
    p, once = np.array([[0.5, 0.0, 0.5], [0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]), np.ones((1, 3))
    truth = np.array([1, 1, 1])
    assert g.tables(p, truth, once)[0].tolist() == [[0, 0, 0], [2, 1, 0], [0, 0, 0]]
    assert g.tables(p, truth, once, mean=True)[0].tolist() == [[0, 0, 0], [0, 3, 0], [0, 0, 0]]


def test_what_is_not_defined_is_nan():
    p, none, once = np.array([[0.9, 0.1], [0.8, 0.2]]), np.zeros((1, 2)), np.ones((1, 2))
    truth = np.array([0, 0])
    assert np.isnan(g.log_loss(p, truth, none)).all()
    assert np.isnan(g.auroc(p[:, 1], truth == 1, once)).all()
    assert np.isnan(g.kappa(g.tables(p, truth, once))).all()
    assert g.recalls(g.tables(p, truth, once))[0].tolist() == pytest.approx(
        [1, np.nan], nan_ok=True
    )
    assert np.isnan(g.temperature(p[:0], truth[:0]))
    assert np.isnan(g.tempered(p, float("nan"))).all()


def test_a_place_that_is_surely_wrong_costs_much_but_not_all():
    losses = g.log_losses(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1]))
    assert losses == pytest.approx([34.538776, 0])


def test_calibration_error_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    truth = np.array([0, 1, 0, 1])
    # Bins of .9 (half of two right) and of .6 (both right): (2 * .4 + 2 * .4) / 4.
    assert g.ece(p, truth, np.ones((1, 4))) == pytest.approx([0.4])


def test_the_temperature_undoes_what_was_done_to_the_logarithms():
    true = RNG.dirichlet(np.ones(3), 20_000)
    truth = (true.cumsum(axis=1) < RNG.random((20_000, 1))).sum(axis=1)
    assert g.temperature(g.tempered(true, 0.4), truth) == pytest.approx(1 / 0.4, rel=0.05)
    assert g.temperature(true, truth) == pytest.approx(1, rel=0.05)
    assert g.tempered(g.tempered(true, 3), 1 / 3) == pytest.approx(true)


def challenge(p_of):
    """Four studies with 25 rows each, and what is given for a true grade."""
    rows = {name: ([], [], []) for name in rsna.CONDITIONS}
    places = [rsna.CANAL, *[rsna.CONDITIONS[1]] * 2, *[rsna.CONDITIONS[2]] * 2]
    for study in range(4):
        for place, condition in enumerate(places):
            for level in range(5):
                digit = (7 * study + 3 * place + 2 * level) % 10
                grade = 0 if digit < 6 else 1 if digit < 8 else 2
                for column, value in zip(rows[condition], (p_of(grade), grade, study), strict=True):
                    column.append(value)
    return {
        name: rsna.Graded(np.array(p, float), np.array(truth), studies, np.ones((1, len(truth))))
        for name, (p, truth, studies) in rows.items()
    }


@pytest.mark.parametrize(
    ("p_of", "score"),
    [
        (lambda _: [1 / 3] * 3, 1.0986123),
        (lambda grade: np.full(3, 0.1) + 0.7 * np.eye(3)[grade], 0.2231436),
        (lambda _: [0.6, 0.25, 0.15], 1.4654088),
    ],
)
def test_the_challenges_metric_has_its_known_values(p_of, score):
    assert rsna.rsna(challenge(p_of))["rsna"] == pytest.approx([score])


def test_a_study_without_a_severe_canal_is_scored_too():
    rows = challenge(lambda _: [0.6, 0.25, 0.15])
    canal = rows[rsna.CANAL]
    mild = rsna.Graded(canal.p, np.zeros_like(canal.truth), canal.studies, canal.weights)
    terms = rsna.rsna(rows | {rsna.CANAL: mild})
    assert terms["any_severe_spinal"] == pytest.approx([-np.log(0.85)])


def test_majority_and_frequency_of_the_published_counts():
    truth = np.repeat([0, 1, 2], [5531, 485, 326])
    prior = np.broadcast_to(np.bincount(truth) / len(truth), (len(truth), 3))
    once = np.ones((1, len(truth)))
    assert g.accuracy(g.tables(prior, truth, once)) == pytest.approx([0.8721], abs=5e-5)
    weighted = np.broadcast_to([0.7086, 0.1243, 0.1671], (len(truth), 3))
    loss = g.log_loss(weighted, truth, rsna.WEIGHTS[truth][None])
    assert loss == pytest.approx([0.80215], abs=5e-5)
