"""What a cluster says of itself, what it would refuse, and what its preemption means."""

import re
from dataclasses import replace

import pytest
from recorded_slurm import CONFIG, GPU, LARGE, LOW, RecordedSlurm, with_line

from spine_tasks.cluster import check, check_site, foreseen_start, read_cluster
from spine_tasks.errors import SiteError
from spine_tasks.preemption import preemption_case
from spine_tasks.sites import Site


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm without any command yet, in place of this machine's."""
    fake = RecordedSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(fake.folder))
    monkeypatch.setenv("SPINE_SLURM_PATIENCE_S", "0")
    return fake


def test_a_cluster_is_what_its_commands_say(slurm):
    slurm.is_cluster()
    cluster = read_cluster()
    assert (cluster.name, cluster.version) == ("alpine", "22.05.8")
    assert (cluster.max_array_size, cluster.max_job_count) == (1001, 10000)
    assert (cluster.kill_wait_s, cluster.requeue, cluster.max_requeue) == (30, True, None)
    assert (cluster.preempt_by, cluster.preempt) == ("partition_prio", "requeue")
    assert (cluster.accounting, cluster.accounts.names) == (True, ["spine", "teaching"])
    gpu, low, large = cluster.partitions
    assert (gpu.name, gpu.default, gpu.max_time_s, gpu.preempt) == ("gpu", True, 86400, "off")
    assert (low.grace_s, low.priority_tier, low.preempt) == (20, 1, "requeue")
    assert (large.max_time_s, large.qos) == (None, "big")
    assert [str(node) for node in gpu.nodes] == [
        "8 CPUs, 64 GB, gpu:a100:4, a100, ib",
        "16 CPUs, 32 GB, gpu:v100:2",
    ]
    assert large.nodes[0].mem_mb == 1048576


def test_what_newer_versions_say_is_read_too(slurm):
    config = with_line("PreemptParameters", "reclaim,send_user_signal")
    slurm.is_cluster(config=with_line("MaxBatchRequeue", "5", with_line("JobRequeue", "0", config)))
    cluster = read_cluster()
    assert (cluster.user_signal, cluster.max_requeue, cluster.requeue) == (True, 5, False)


@pytest.mark.parametrize(
    ("line", "sends"),
    [
        (("SlurmctldParameters", "enable_configless,preempt_send_user_signal"), True),
        (("SlurmctldParameters", "enable_configless"), False),
    ],
)
def test_the_user_signal_of_older_versions_is_read(slurm, line, sends):
    slurm.is_cluster(config=with_line(*line))
    assert read_cluster().user_signal is sends


@pytest.mark.parametrize(
    ("lines", "enforced"),
    [
        ({}, True),
        ({"ConstrainRAMSpace": "no"}, False),
        ({"TaskPlugin": "task/affinity"}, False),
        ({"TaskPlugin": "task/none", "JobAcctGatherParams": "OverMemoryKill"}, True),
    ],
)
def test_memory_is_enforced_by_cgroups_or_by_the_killer_of_jobs(slurm, lines, enforced):
    config = CONFIG
    for name, value in lines.items():
        config = with_line(name, value, config)
    slurm.is_cluster(config=config)
    assert read_cluster().memory_enforced is enforced


def test_a_limit_on_the_tasks_of_an_array_counts_where_it_is_lower(slurm):
    slurm.is_cluster(config=with_line("SchedulerParameters", "bf_interval=1,max_array_tasks=200"))
    assert read_cluster().max_array_size == 200


def test_without_slurmdbd_everything_else_is_read_and_nothing_is_asked_twice(slurm):
    slurm.is_cluster()
    slurm.has_no_slurmdbd()
    cluster = read_cluster()
    assert (cluster.accounting, cluster.accounts, cluster.max_submit) == (False, None, None)
    questions = slurm.asked("sacctmgr")
    assert len(set(questions)) == len(questions)
    check_site(cluster, Site(account="anything", qos="any"))


@pytest.mark.parametrize(
    ("site", "limit"),
    [
        (Site(), 30),  # the user's own, below the account's 40 and 50
        (Site(account="teaching"), 5),
        (Site(qos="debug"), 1),
        (Site(partition="large"), 20),  # the partition's QOS
        (Site(partition=["low", "large"], account="teaching"), 5),
    ],
)
def test_the_limit_on_submitted_jobs_is_the_least_of_those_that_hold(slurm, site, limit):
    slurm.is_cluster()
    assert read_cluster(site).max_submit == limit


def test_limits_that_are_not_enforced_are_none(slurm):
    slurm.is_cluster(config=with_line("AccountingStorageEnforce", "associations"))
    assert read_cluster().max_submit is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)\n",
            "Unable to contact slurm controller.*out of reach: try again later",
        ),
        (
            'scontrol: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"\n',
            "munge, which proves who you are, does not work",
        ),
    ],
)
def test_a_controller_that_does_not_answer_is_an_error_in_its_words(slurm, said, message):
    slurm.says("scontrol", {"": said}, code=1, stream=2)
    with pytest.raises(SiteError, match=message):
        read_cluster()


def test_a_machine_without_slurm_is_said(slurm):
    with pytest.raises(SiteError, match="scontrol is not on this machine"):
        read_cluster()
    with pytest.raises(SiteError, match="sbatch is not on this machine"):
        foreseen_start("#!/bin/bash\n")


ASKED = {"cpus": 1, "mem_gb": 1.0, "gpus": 0, "time_min": 60}


@pytest.mark.parametrize(
    ("site", "asked"),
    [
        (Site(), {}),
        (Site(), {"cpus": 16, "mem_gb": 32.0, "gpus": 2}),  # all of a node
        (Site(), {"cpus": 8, "mem_gb": 64.0, "gpus": 4}),
        (Site(), {"time_min": 24 * 60}),
        (Site(gpu_type="a100"), {"gpus": 4}),
        (Site(partition="low,large"), {"mem_gb": 1024.0}),  # the second will do
        (Site(partition=["low", "large"]), {"time_min": 60 * 24 * 30}),
        (Site(constraint="ib"), {"gpus": 4}),
        (Site(constraint="ib&x100"), {}),  # more than a name: Slurm judges
        (Site(account="spine", qos="debug"), {}),
        (Site(account="teaching", qos="normal"), {}),
    ],
)
def test_what_a_node_and_a_partition_have_is_let_through(slurm, site, asked):
    slurm.is_cluster()
    check(read_cluster(), site, **ASKED | asked)


@pytest.mark.parametrize(
    ("site", "asked", "message"),
    [
        (Site(), {"cpus": 17}, r"no node of partition gpu has what .* \(17 CPUs, 1 GB\)"),
        (Site(), {"mem_gb": 64.01}, r"largest have \(8 CPUs, 64 GB, gpu:a100:4, a100, ib\)"),
        (Site(), {"gpus": 5}, r"gpu:5\)"),
        (Site(), {"cpus": 9, "mem_gb": 33.0}, "no node"),  # of two nodes, not of one
        (Site(gpu_type="v100"), {"gpus": 3}, r"gpu:v100:3\)"),
        (Site(gpu_type="h100"), {"gpus": 1}, r"gpu:h100:1\)"),
        (Site(constraint="h100"), {}, "h100"),
        (Site(constraint="ib"), {"cpus": 9}, r"\(9 CPUs, 1 GB, ib\)"),
        (Site(), {"time_min": 24 * 60 + 1}, "at most 1-00:00:00, and 1-00:01:00 is asked for"),
        (Site(partition="low"), {"gpus": 1}, "partition low"),
        (Site(partition="low,gpu"), {"cpus": 17}, "partition low has.*partition gpu has"),
        (Site(partition="gpuu"), {}, r"'gpuu'.*did you mean 'gpu'\? It has gpu, large, low"),
        (Site(partition=["gpu", "x"]), {}, "'x'"),
        (
            Site(account="spin"),
            {},
            r"has no such account .*did you mean 'spine'\? It has spine, teaching",
        ),
        (Site(qos="high"), {}, "account spine on .*It has debug, normal"),
        (Site(account="teaching", qos="debug"), {}, "account teaching"),
    ],
)
def test_what_could_never_run_is_refused_with_what_there_is(slurm, site, asked, message):
    slurm.is_cluster()
    with pytest.raises(SiteError, match=message):
        check(read_cluster(), site, **ASKED | asked)


def test_a_partition_caps_what_its_nodes_have(slurm):
    slurm.is_cluster(partitions=[GPU | {"cpus": 4, "mem": 8192}])
    cluster = read_cluster()
    check(cluster, Site(), **ASKED | {"cpus": 4, "mem_gb": 8.0})
    for more in ({"cpus": 5}, {"mem_gb": 8.1}):
        with pytest.raises(SiteError, match=r"largest have \(4 CPUs, 8 GB, gpu:a100:4, a100, ib\)"):
            check(cluster, Site(), **ASKED | more)


def test_a_partition_that_takes_no_jobs_and_a_missing_default_are_said(slurm):
    slurm.is_cluster(partitions=[GPU | {"state": "INACTIVE", "default": "NO"}])
    with pytest.raises(SiteError, match="takes no jobs, its state is INACTIVE"):
        check(read_cluster(), Site(partition="gpu"), **ASKED)
    with pytest.raises(SiteError, match=r"no default partition: name one .* of gpu"):
        check(read_cluster(), Site(), **ASKED)


def test_accounts_and_qos_that_are_not_enforced_are_not_judged_but_for_names_of_nothing(slurm):
    slurm.is_cluster(config=with_line("AccountingStorageEnforce", "none"))
    check_site(read_cluster(), Site(account="anything", qos="big"))
    with pytest.raises(SiteError, match=r"'bigg'.*did you mean 'big'"):
        check_site(read_cluster(), Site(qos="bigg"))


def test_a_user_without_an_account_is_said(slurm):
    slurm.is_cluster(mine="")
    with pytest.raises(SiteError, match="has no account on cluster alpine: ask its admins"):
        check_site(read_cluster(), Site())


@pytest.mark.parametrize(
    ("partition", "cluster", "words"),
    [
        ({"mode": "OFF"}, {}, "never preempted"),
        ({"tier": 10}, {}, "never preempted"),  # nothing stands above it
        ({}, {"preempt_by": "none"}, "never preempted"),
        (
            {},
            {},
            "preempted by jobs of gpu, large: TERM, and 20 s to save, then killed; Slurm runs",
        ),
        ({}, {"user_signal": True}, "TERM and USR2, and 20 s to save"),
        ({"grace": 0}, {}, r"TERM, and 30 s \(KillWait\) to save, .* Slurm runs the cell again"),
        ({"mode": "CANCEL"}, {}, "20 s to save, then killed; Slurm only ends the job"),
        ({"mode": "GANG,SUSPEND"}, {}, "stopped where they are"),
    ],
)
def test_each_case_of_preemption_is_told_apart(slurm, partition, cluster, words):
    slurm.is_cluster(partitions=[GPU, LOW | partition, LARGE])
    here = replace(read_cluster(), **cluster)
    site = Site(partition="low")
    (queue,) = here.partitions_of(site)
    assert re.search(words, preemption_case(here, site, queue))


@pytest.mark.parametrize(
    ("qos", "words"),
    [
        (None, r"preempted by jobs of debug: TERM, and 30 s \(KillWait\).* Slurm runs"),
        ("debug", "never preempted"),
    ],
)
def test_preemption_by_qos_goes_by_the_qos_of_the_job(slurm, qos, words):
    slurm.is_cluster(config=with_line("PreemptType", "preempt/qos"))
    cluster, site = read_cluster(), Site(qos=qos)
    (queue,) = cluster.partitions_of(site)
    assert re.search(words, preemption_case(cluster, site, queue))


SCRIPT = "#!/bin/bash\n#SBATCH --array=0-3%2\n#SBATCH --dependency=afterany:<jobs>\nsrun true\n"


def test_a_foreseen_start_is_told_and_nothing_else_of_the_script_is_changed(slurm):
    said = (
        "sbatch: Job 11 to start at 2026-11-22T14:34:14 using 1 processors on nodes node1 in "
        "partition gpu\n"
    )
    slurm.says("sbatch", {"--test-only": said}, stream=2)
    sbatch = slurm.folder / "sbatch"
    sbatch.write_text(sbatch.read_text().replace("\n", f"\ncat > {slurm.folder}/script\n", 1))
    assert foreseen_start(SCRIPT) == "2026-11-22 14:34 on node1, partition gpu"
    asked = SCRIPT.replace("#SBATCH --dependency=afterany:<jobs>\n", "")
    assert (slurm.folder / "script").read_text() == asked


def test_a_start_in_unknown_words_is_told_in_those(slurm):
    slurm.says("sbatch", {"--test-only": "sbatch: some day\n"}, stream=2)
    assert foreseen_start(SCRIPT) == "sbatch: some day"


def test_what_slurm_would_refuse_is_told_in_its_words(slurm):
    said = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nallocation failure: Job violates\n"
    slurm.says("sbatch", {"--test-only": said}, code=1, stream=2)
    with pytest.raises(SiteError, match="QOSMaxSubmitJobPerUserLimit"):
        foreseen_start(SCRIPT)
