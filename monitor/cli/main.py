"""The streamgauge command: which commands there are, and what becomes of what they raise.

A command's module is imported when the command is used, so that ``--help`` and completion answer at once; that is
why the one-line helps stand here (a test compares them with the commands). A command raises
``monitor.errors.StreamgaugeError`` for what it expects to go wrong and returns its exit code, or None for 0.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from monitor.cli.options import debug_option, is_debug
from monitor.errors import SettingsError, StreamgaugeError

NAME = "streamgauge"

COMMANDS = {
    "lag": ("monitor.cli.lag:lag", "Ask once how late every consumer is, and judge it."),
    "top": ("monitor.cli.top:top", "Show live how late every consumer is, the gravest first."),
    "diagnose": (
        "monitor.cli.diagnose:diagnose",
        "Name what makes a consumer late, with numbers and the setting to change.",
    ),
    "serve": ("monitor.cli.serve:serve", "Run the monitor: metrics, status page and API."),
    "doctor": ("monitor.cli.doctor:doctor", "Check settings, connections, versions and permissions."),
    "config": ("monitor.cli.config:config", "Check the settings file, print its schema or an example."),
    "demo": ("monitor.cli.demo:demo", "Start a real pipeline and show its true lag."),
    "sandbox": ("monitor.cli.sandbox:sandbox", "Start a real Kafka on this machine, for trying things out."),
    "worker": ("monitor.cli.worker:worker", "Run a Faust stream processor."),
    "spark": ("monitor.cli.spark:spark", "Run Spark jobs."),
    "dlq": ("monitor.cli.dlq:dlq", "List and replay the dead letters that processors set aside."),
    "alerts": ("monitor.cli.alerts:alerts", "Render, check and test the alert rules, and apply them to Grafana."),
    "dashboards": ("monitor.cli.dashboards:dashboards", "Render the Grafana boards and apply them."),
}
"""Name of each command: where it is, and its help in one line."""

EXIT_USAGE = 2
EXIT_FAULT = 70
"""A fault of ours (EX_SOFTWARE of sysexits.h): 1 is a judgement about consumers, 3 one about what was asked."""
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
"""What a shell shows for a program that SIGPIPE ended."""


class Streamgauge(click.Group):
    """The group of all commands: imports them on use, and turns what they raise into a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands, most used first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command meant, or name the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            problem = f"no such command {args[0]!r}: {advice}"
            raise click.UsageError(problem, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and exit with its code; wrong usage is one line."""
        extra |= {"standalone_mode": False, "prog_name": extra.get("prog_name") or NAME}
        try:
            code = super().main(*args, **extra)
        except click.Abort:
            code = EXIT_INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as exc:
            exc.show()
            code = EXIT_USAGE
        except click.ClickException as exc:
            complain(_usage_line(exc))
            code = EXIT_USAGE
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it raises becomes a line on stderr and an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a closed pipe can still be handled
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            _leave_stdout()
            raise click.exceptions.Exit(EXIT_PIPE_CLOSED) from None
        except StreamgaugeError as exc:
            _traceback(ctx)
            for line in exc.complaints if isinstance(exc, SettingsError) else [str(exc)]:
                complain(line)
            raise click.exceptions.Exit(exc.exit_code) from exc
        except Exception as exc:
            _traceback(ctx)
            complain(_fault_line(exc, is_debug(ctx)))
            raise click.exceptions.Exit(EXIT_FAULT) from exc
        return result


@click.group(cls=Streamgauge, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=NAME, prog_name=NAME, message="%(prog)s %(version)s")
@debug_option
def streamgauge() -> None:
    """How late is every reader of a Kafka cluster, how sure is that, why, and what to do."""


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # Names of groups and topics may hold what the terminal's encoding has not.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    streamgauge.main()


def complain(text: str) -> None:
    """Print a line to stderr."""
    click.echo(f"{NAME}: {text}", err=True)


def _usage_line(exc: click.ClickException) -> str:
    """Return click's complaint as one line that says where help is."""
    text = exc.format_message().rstrip(".")
    text = f"{text[:1].lower()}{text[1:]}".replace("no such option: ", "no such option ")
    text = text.replace(". Did you mean", " Did you mean").replace(" Did you mean", ": did you mean")
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else NAME
    end = "" if text.endswith("?") else "."
    return f"{' '.join(text.split())}{end} See {path} --help"


def _fault_line(exc: Exception, debug: bool) -> str:
    """Return a line about an exception that nobody expected; its own text is left out, it may hold anything."""
    from traceback import extract_tb

    frame = extract_tb(exc.__traceback__)[-1]
    where = f"{type(exc).__name__} in {os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119 - pathlib costs start-up
    advice = "please report it" if debug else "run again with --debug for a traceback to report"
    return f"{where}: this is a fault of {NAME}: {advice}"


def _traceback(ctx: click.Context) -> None:
    if is_debug(ctx):
        from traceback import print_exc

        print_exc()


def _leave_stdout() -> None:
    """Let the interpreter flush into nothing at exit, as Python's manual advises for SIGPIPE."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
