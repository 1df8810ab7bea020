"""Options that several commands share, each spelled and explained once. Nothing heavy is imported here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Where:
    """Where to look for the settings, as the options say it."""

    config: str | None = None
    bootstrap_servers: str | None = None
    command_config: str | None = None


def settings_options(command: Command) -> Command:
    """Add the options that say where the settings are; the command gets them as ``where``."""

    @click.option(
        "--config",
        metavar="FILE",
        help="Settings file. Without it: ./streamgauge.yml, else the file that $STREAMGAUGE_CONFIG names.",
    )
    @click.option("--bootstrap-servers", metavar="HOST:PORT[,…]", help="Brokers to ask, instead of a settings file.")
    @click.option(
        "--command-config",
        metavar="FILE",
        help="Kafka client properties (TLS, log-in) for --bootstrap-servers, as Kafka's own tools take them.",
    )
    @debug_option
    @functools.wraps(command)
    def with_where(
        *args: Any, config: str | None, bootstrap_servers: str | None, command_config: str | None, **kwargs: Any
    ) -> Any:
        return command(*args, where=Where(config, bootstrap_servers, command_config), **kwargs)

    return with_where


def output_option(*choices: str) -> Callable[[Command], Command]:
    """Add ``-o/--output`` with these choices; the first is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(choices), default=choices[0], show_default=True, help="How to print."
    )


DEBUG = "streamgauge.debug"
"""Key in click's ``meta``: whether to show tracebacks."""


def _remember_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[DEBUG] = context.meta.get(DEBUG, False) or value


def debug_option(command: Command) -> Command:
    """Add ``--debug``, which may stand before or after the command's name."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember_debug,
        help="Show tracebacks and what is logged.",
    )(command)


def is_debug(context: click.Context | None = None) -> bool:
    """Return whether ``--debug`` was given."""
    context = context or click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(DEBUG))
