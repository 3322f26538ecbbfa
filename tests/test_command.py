"""What every command line shares."""

import argparse

import pytest
from making import environment, python

from spine_tasks.command import no_repeats, parser, run_command, selection, setting, yaml_value
from spine_tasks.errors import ConfigError, RunError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("epochs=5", ("epochs", 5)),
        ("augment=true", ("augment", True)),
        ("spacing_mm=null", ("spacing_mm", None)),
        ("learning_rate=1.0e-3", ("learning_rate", 0.001)),
        ("weights=a=b.h5", ("weights", "a=b.h5")),
        ("folds=[0, 2]", ("folds", [0, 2])),
        ("resources.time='01:00:00'", ("resources.time", "01:00:00")),
        ("data=", ("data", None)),
    ],
)
def test_a_setting_is_read_as_yaml_reads_it(text, value):
    assert setting(text) == value


@pytest.mark.parametrize("text", ["epochs", "=5", "", "epochs=[1"])
@pytest.mark.parametrize("read", [setting, selection])
def test_what_is_no_setting_is_told_by_the_parser(read, text):
    if read is selection and text == "epochs=[1":
        text = "epochs=1,[2"
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected .*=value|cannot read"):
        read(text)


def test_a_selection_has_one_value_or_several():
    assert selection("init=scratch") == ("init", ["scratch"])
    assert selection("augment=true,false") == ("augment", [True, False])
    assert selection("spacing_mm=null,0.5") == ("spacing_mm", [None, 0.5])


def test_a_name_given_twice_is_refused_rather_than_overwritten():
    assert no_repeats([("a", 1), ("b", 2)], "--set") == {"a": 1, "b": 2}
    with pytest.raises(ConfigError, match="--set a is given twice"):
        no_repeats([("a", 1), ("b", 2), ("a", 1)], "--set")


def test_help_ends_with_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        parser("What it does.", "python jobs/it.py --now").parse_args(["--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.endswith("example:\n  python jobs/it.py --now\n")


def exit_code(command):
    with pytest.raises(SystemExit) as stop:
        run_command(command)
    return stop.value.code


def test_a_problem_is_told_as_its_message_alone_and_ends_with_2(capsys):
    def fail():
        raise RunError("a.json: is spoilt; delete it")

    assert exit_code(fail) == 2
    assert capsys.readouterr().err == "error: a.json: is spoilt; delete it\n"


def test_ctrl_c_ends_with_130_and_says_how_to_continue(capsys):
    def stop():
        raise KeyboardInterrupt

    assert exit_code(stop) == 130
    assert "run the same command again to continue" in capsys.readouterr().err


def test_the_code_of_a_command_is_the_exit_code():
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: 1) == 1


def test_an_error_of_the_program_keeps_its_traceback():
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(fail)


def test_a_reader_that_has_gone_ends_the_command_quietly():
    code = """
import subprocess, sys
lines = "import sys; from spine_tasks.command import run_command; " \\
    "run_command(lambda: [print(n, flush=True) for n in range(100_000)] and 0)"
writer = subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE)
writer.stdout.readline()
writer.stdout.close()
sys.exit(writer.wait())
"""
    answer = python(code, env=environment())
    assert (answer.returncode, answer.stderr) == (141, "")


def test_text_that_is_no_yaml_is_told():
    with pytest.raises(argparse.ArgumentTypeError, match=r"cannot read '{a'"):
        yaml_value("{a")
