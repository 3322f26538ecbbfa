"""Site profiles: what is refused, and that those of the repository are read."""

import pytest

from spine_tasks.errors import ConfigError, SiteError
from spine_tasks.sites import SITES, Site, load_site


def profile(folder, text):
    (folder / "made.yaml").write_text(text)
    return load_site("made", folder)


@pytest.mark.parametrize("name", sorted(file.stem for file in SITES.glob("*.yaml")))
def test_every_profile_of_the_repository_is_read(name):
    site = load_site(name)
    assert site.gres.format(gpus=3).endswith(":3")
    assert site.max_parallel >= 1
    assert site.signal_lead_s >= 30


def test_the_annotated_profile_shows_every_key():
    text = (SITES / "example.yaml").read_text()
    assert all(f"\n{key}:" in text for key in Site.__dataclass_fields__)


def test_what_a_profile_leaves_out_or_empty_is_the_default(tmp_path):
    assert profile(tmp_path, "partition: null\naccount:\n") == Site()
    assert profile(tmp_path, "partition: gpu\n") == Site(partition="gpu")


def test_a_profile_may_be_given_by_its_path(tmp_path):
    profile(tmp_path, "qos: long\nsetup: [module load cuda]\n")
    site = load_site(str(tmp_path / "made.yaml"))
    assert (site.qos, site.setup) == ("long", ["module load cuda"])


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml", "/nowhere.yml"])
def test_an_unknown_site_is_answered_with_the_profiles_there_are(name):
    with pytest.raises(SiteError, match=r"no site '.*nowhere.*'; profiles in .*: .*default.*exam"):
        load_site(name)


def test_a_misspelt_key_is_answered_with_the_nearest_and_all(tmp_path):
    with pytest.raises(SiteError, match=r"made\.yaml: .* no 'partion', did you mean 'partition'"):
        profile(tmp_path, "partion: gpu\n")
    with pytest.raises(SiteError, match="account, constraint, gres, max_parallel, partition, pyth"):
        profile(tmp_path, "zzz: gpu\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partition: 5", "partition must be str, got 5"),
        ("account: [a]", "account must be str"),
        ("signal_lead_s: '120'", "signal_lead_s must be int, got '120'"),
        ("signal_lead_s: 2.5", "signal_lead_s must be int"),
        ("max_parallel: true", "max_parallel must be int, got True"),
        ("setup: module load cuda", "setup must be list, got 'module load cuda'"),
        ("python: /usr/bin/python", "python must be dict"),
        ("setup: [1]", "setup"),
        ("python: {torch: 3}", "python"),
        ("gres: 'gpu:{gpu}'", "gres"),
        ("gres: 'gpu:{'", "gres"),
        ("max_parallel: 0", "max_parallel"),
        ("signal_lead_s: -1", "signal_lead_s"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(tmp_path, text, message):
    with pytest.raises(SiteError, match=rf"made\.yaml: {message}"):
        profile(tmp_path, text)


def test_a_profile_that_is_not_yaml_names_the_line(tmp_path):
    with pytest.raises((SiteError, ConfigError), match=r"made\.yaml, line 2: not YAML"):
        profile(tmp_path, "partition: gpu\n\tqos: x\n")
