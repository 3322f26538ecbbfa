"""Whatever happens to a cell in training, its results are those of a cell that nothing happened to.

The whole table, with the grey-matter task too and with the work lost in seconds, is printed by
benchmarks/faults.py.
"""

import pytest
import witness
from faults import CONF_LINES, FAULTS, KILL_WAIT_S, SIGNALLED, USUAL, freeze
from table import GREY_MATTER, TORCH, Table, on, undisturbed
from trials import Half

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra `gm`)")

# A TensorFlow attempt takes a quarter of a minute to start: three faults stand for all.
WITH_TENSORFLOW = (
    "preempted, REQUEUE, grace 20 s",
    "supervisor and worker killed",
    "node out of touch, worker lives on",
)
CASES = [
    pytest.param(task, fault, id=f"{task.name}-{fault.id}")
    for task in (TORCH, GREY_MATTER)
    for fault in FAULTS
    if task is TORCH or fault.name in WITH_TENSORFLOW
]


@pytest.fixture(scope="module")
def clusters(slurm_cluster, new_cluster, dev_cluster):
    signalled = new_cluster(*CONF_LINES[SIGNALLED])
    yield {USUAL: slurm_cluster, SIGNALLED: signalled}
    dev_cluster("stop", signalled).communicate()


@pytest.fixture(scope="module")
def table(request, clusters, data, tmp_path_factory):
    """The outcomes of what this session asks for, disturbed in the background."""
    table = Table(clusters, data, tmp_path_factory.mktemp("faults"))
    asked = [item.callspec.params for item in request.session.items if "fault" in item.fixturenames]
    table.start([(one["task"], one["fault"]) for one in asked])
    yield table
    table.end()


@pytest.fixture(scope="module")
def expected(clusters, data, tmp_path_factory):
    """The results of an undisturbed cell, by task."""
    known = {}

    def results(task):
        if task.name not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            half = Half(clusters[USUAL], "left")
            known[task.name] = undisturbed(on(task, data), half, folder)
        return known[task.name]

    return results


@pytest.mark.parametrize(("task", "fault"), CASES)
def test_a_disturbed_cell_ends_as_one_never_disturbed(task, fault, table, expected):
    same = expected(task)
    outcome = table.outcome(task, fault)
    assert outcome.results == same
    if fault.disturb is not freeze:  # that one wakes up in a step, and may end it before it looks
        assert witness.problems(outcome.told) == []
    assert len(outcome.told) == (outcome.attempts if task is TORCH else 0)
    assert outcome.events[0] == "started"
    assert outcome.events[-1] == "complete"
    assert outcome.launches in ([fault.launches] if fault.launches else [1, 2])
    assert outcome.attempts == fault.attempts or (fault.attempts is None and outcome.attempts > 1)
    assert len(set(outcome.jobs)) == outcome.launches  # what was cancelled never runs again
    if fault.name.startswith(("scancel", "cancel")):
        # It ended by itself: Slurm would have killed it a minute later.
        assert outcome.gone_s < KILL_WAIT_S / 2
