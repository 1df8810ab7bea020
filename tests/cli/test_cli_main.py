"""The command itself: what it lists, how it fails, and what it costs to start."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from monitor.cli.main import COMMANDS, Streamgauge, streamgauge
from monitor.errors import SandboxError, SettingsError, StreamgaugeError, UnreachableError, UsageError

PROGRAM = Path(sys.executable).with_name("streamgauge")

HEAVY = ("numpy", "pydantic", "aiokafka", "aiohttp", "rich", "structlog", "yaml", "faust", "pyspark", "asyncio")


def failing(exception):
    """A command line program whose only command raises this."""
    group = Streamgauge("streamgauge")

    @click.command()
    def lag():
        raise exception

    group.get_command = lambda _context, name: lag if name == "lag" else None
    return group


@pytest.fixture
def run_failing(monkeypatch):
    from click.testing import CliRunner

    from monitor.cli.options import debug_option

    def invoke(exception, *args):
        return CliRunner().invoke(debug_option(failing(exception)), [*args, "lag"])

    return invoke


def test_help_lists_every_command_with_its_own_help():
    """The one-line helps that stand in the table are those of the commands."""
    context = click.Context(streamgauge)

    helps = {name: streamgauge.get_command(context, name).get_short_help_str(200) for name in COMMANDS}

    assert helps == {name: text for name, (_, text) in COMMANDS.items()}


def test_help_imports_nothing_heavy():
    """Help answers at once because nothing that takes time is imported for it."""
    code = (
        "import sys\n"
        "from monitor.cli.main import streamgauge\n"
        "try: streamgauge.main(['--help'])\n"
        "except SystemExit as end: print('exit', end.code)\n"
        f"print('imported', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ["exit 0", "imported []"] == done.stdout.splitlines()[-2:]
    assert "  lag " in done.stdout


def test_the_console_command_answers():
    """What is installed is a program of that name, which knows its version."""
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)

    assert "streamgauge 0." in done.stdout
    assert "" == done.stderr


@pytest.mark.parametrize(
    ("args", "line"),
    [
        pytest.param(["lga"], "no such command 'lga': did you mean lag? See streamgauge --help", id="command"),
        pytest.param(["confgi", "check"], "no such command 'confgi': did you mean config?", id="group"),
        pytest.param(["xyzzy"], "no such command 'xyzzy': there are lag, top, diagnose, serve", id="nothing near"),
        pytest.param(["--vershon"], "no such option --vershon: did you mean --version?", id="option"),
        pytest.param(
            ["lag", "--outptu", "json"], "no such option --outptu: did you mean --output?", id="option of lag"
        ),
        pytest.param(["lag", "-o", "xml"], "invalid value for '-o' / '--output': 'xml' is not one of", id="choice"),
        pytest.param(["serve", "--port", "99999"], "invalid value for '--port': 99999 is not in the range", id="range"),
        pytest.param(["config", "check", "extra"], "got unexpected extra argument (extra)", id="argument"),
        pytest.param(["lag", "--config"], "option '--config' requires an argument", id="no value"),
    ],
)
def test_wrong_usage_is_one_line(run, args, line):
    """Wrong usage is one line that says what is wrong and where help is, with exit code 2."""
    result = run(*args)

    assert 2 == result.exit_code
    assert "" == result.stdout
    assert result.stderr.startswith(f"streamgauge: {line}")
    assert 1 == result.stderr.count("\n")
    assert "See streamgauge" in result.stderr


def test_without_a_command_help_is_shown(run):
    """Nothing asked is wrong usage that answers with the help."""
    result = run()

    assert 2 == result.exit_code
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("exception", "code"),
    [
        pytest.param(StreamgaugeError("what: do this"), 3, id="any of ours"),
        pytest.param(UsageError("what: do this"), 2, id="usage"),
        pytest.param(UnreachableError("what: do this"), 3, id="unreachable"),
        pytest.param(SandboxError("what: do this"), 3, id="sandbox"),
    ],
)
def test_expected_failures_are_one_line(run_failing, exception, code):
    """A failure that was foreseen is one line on stderr and the exit code of its kind."""
    result = run_failing(exception)

    assert code == result.exit_code
    assert "streamgauge: what: do this\n" == result.stderr


def test_every_complaint_has_its_line(run_failing):
    """Settings that are wrong in three places are three lines."""
    result = run_failing(SettingsError(["a:1: x", "a:2: y", "a:3: z"]))

    assert 2 == result.exit_code
    assert ["streamgauge: a:1: x", "streamgauge: a:2: y", "streamgauge: a:3: z"] == result.stderr.splitlines()


def test_debug_adds_the_traceback(run_failing):
    """With --debug the traceback comes before the line."""
    result = run_failing(UnreachableError("what: do this"), "--debug")

    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("streamgauge: what: do this\n")


def test_debug_may_follow_the_command(run, in_folder):
    """--debug means the same after the command's name."""
    result = run("lag", "--debug")

    assert 2 == result.exit_code
    assert result.stderr.startswith("Traceback")


def test_a_fault_is_no_judgement(run_failing):
    """An exception nobody foresaw exits neither 1 nor 3, and its text, which may hold anything, is not shown."""
    result = run_failing(KeyError("hunter2"))

    assert 70 == result.exit_code
    assert "streamgauge: KeyError in test_cli_main.py:" in result.stderr
    assert "--debug" in result.stderr
    assert "hunter2" not in result.stderr
    assert 1 == result.stderr.count("\n")


def test_interrupted_is_quiet(run_failing):
    """Ctrl-C says nothing and exits 130."""
    result = run_failing(KeyboardInterrupt())

    assert 130 == result.exit_code
    assert "" == result.output.strip()


WRITES_AND_ENDS = """
import click, sys
from monitor.cli.main import Streamgauge
group = Streamgauge("streamgauge")
group.get_command = lambda *_: click.Command("lag", callback=lambda: sys.stdout.write("x") and None)
group.main(["lag"])
"""


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([PROGRAM, "config", "schema"], id="while it writes"),
        pytest.param([sys.executable, "-c", WRITES_AND_ENDS], id="when it ends"),
    ],
)
def test_a_closed_pipe_is_quiet(command):
    """``streamgauge … | head`` ends without a word when head has enough."""
    read, write = os.pipe()
    os.close(read)
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=buffered)
    os.close(write)

    assert (141, "") == (done.returncode, done.stderr)


def test_names_beyond_the_encoding_do_not_break_output():
    """A terminal that does not know a character gets its escape, not an exception."""
    code = "import click\nfrom monitor.cli import main\nmain.streamgauge.main = lambda: click.echo('± 日')\nmain.main()"
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environ)

    assert b"\xb1 \\u65e5\n" == done.stdout
