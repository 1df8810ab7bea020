"""The reference pages of the manual: docs/commands.md from the commands, docs/settings.md from the settings.

    python -m monitor.cli.manual docs

writes them anew; a test says whether they are current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from monitor.cli.client_properties import SASL_PROPERTIES, TLS_PROPERTIES
from monitor.cli.config import example_text
from monitor.cli.main import streamgauge
from monitor.cli.settings_file import models
from monitor.settings import Settings

WIDTH = 100

COMMANDS_INTRO = """\
# Commands

<!-- Written by monitor/cli/manual.py from the commands themselves. -->

What all of them have in common:

- **Settings** come from `--config FILE`, else from `./streamgauge.yml`, else from the file that `$STREAMGAUGE_CONFIG`
  names. `--bootstrap-servers HOST:PORT`, with `--command-config FILE` for TLS and log-in, stands for all of that:
  then no settings file is read. See [Settings](settings.md).
- **Errors** are one line on stderr: what was tried, on what, what to do. `--debug`, before or after the command,
  adds the traceback.
- **Unknown** is `?` in tables, null in JSON and empty in CSV, always with its reason; it is never zero. A total of
  which a part is unknown is shown as `at least N`.
- **Names** of groups and topics may hold anything. In tables control characters and backslashes are written as escapes
  (`\\n`, `\\x1b`, `\\\\`); JSON and CSV have the names as they are.

**Exit codes**

- 0: fine.
- 1: judged bad: a consumer shown is losing_data, lost, stalled, stopped, blocked, falling_behind or over its objective;
  with `--strict` also one that is unknown, or a cluster of which a part could not be read.
- 2: wrong usage or settings.
- 3: nothing of what it needs could be reached. What failed in part goes to stderr and into the output.
- 70: a fault of streamgauge itself.
- 130, 141, 143: ended by Ctrl-C, by a closed pipe, by SIGTERM.
"""

SETTINGS_INTRO = """\
# Settings

<!-- Written by monitor/cli/manual.py from the settings themselves. -->

`streamgauge.yml` names what to watch. `streamgauge config example` prints the file below, `streamgauge config check`
says what is wrong with yours, every complaint with its line, and `streamgauge config schema` prints a JSON schema for
editors.

**Values from the environment.** A value may hold `${NAME}` or `${NAME:-default}`; the default is taken where the
variable is not set or empty. `$${` stands for the characters `${`. Values are put in after the file is parsed, so a
password may hold any character. Use it for secrets: they are never printed, logged or quoted in an error.

**Paths** are taken from the folder of the file, unless they are absolute.
"""

EXAMPLE_INTRO = """\
## An example

The settings below that start with `#` show their defaults, or an example.

"""

PROPERTIES_INTRO = """\
## Client properties

With `--bootstrap-servers`, `--command-config FILE` takes the file that Kafka's own tools take. Read of it are
`bootstrap.servers`, `security.protocol`, `ssl.endpoint.identification.algorithm` and the properties below, of which
some are librdkafka's names for the same. Others are passed over, unless they would change how a broker is reached.
Java key stores (JKS, PKCS12) are not read: certificates must be PEM, with `ssl.truststore.type=PEM`. The file may be
UTF-8 or Latin-1.

| property | setting |
|---|---|
"""


def commands_page() -> str:
    """Return docs/commands.md."""
    return "\n".join([COMMANDS_INTRO, *map(_command, commands())])


def commands(parent: click.Context | None = None) -> Iterator[click.Context]:
    """Yield the context of every command, in the order of the help; groups before what is in them."""
    if parent is None:
        parent = streamgauge.make_context("streamgauge", ["help"], terminal_width=WIDTH, max_content_width=WIDTH)
    group = parent.command
    assert isinstance(group, click.Group)  # noqa: S101 - called for groups only
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, parent, name)
        yield context
        if isinstance(command, click.Group):
            yield from commands(context)


def _command(context: click.Context) -> str:
    path = context.command_path.split()
    return f"{'#' * len(path)} {' '.join(path[1:])}\n\n```text\n{context.get_help()}\n```\n"


def settings_page() -> str:
    """Return docs/settings.md."""
    parts = (_part(place, model) for place, model in models())
    rows = {**SASL_PROPERTIES, **{name: f"tls.{field}" for name, field in TLS_PROPERTIES.items()}}
    properties = "".join(f"| `{name}` | `{field}` |\n" for name, field in rows.items())
    example = f"{EXAMPLE_INTRO}```yaml\n{example_text()}```\n"
    return "\n".join([SETTINGS_INTRO, *parts, example, PROPERTIES_INTRO + properties])


def _part(place: str, model: type[BaseModel]) -> str:
    title = "The top of the file" if model is Settings else f"`{place}`"
    rows = "".join(_field(name, field) for name, field in model.model_fields.items())
    words = " ".join((model.__doc__ or "").split())
    return f"## {title}\n\n{words}\n\n| key | holds | default | meaning |\n|---|---|---|---|\n{rows}"


def _field(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {_holds(field.annotation)} | {_default(field)} | {field.description or ''} |\n"


_WORDS: dict[object, str] = {
    str: "text", bool: "true or false", int: "whole number", float: "number", Path: "path", SecretStr: "text, secret",
}  # fmt: skip


def _holds(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "list"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys"
    # What is left is Annotated[X, …] and X | None: X says what it holds.
    return next(_holds(each) for each in get_args(annotation) if each is not NoneType)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if value is None or value == () or isinstance(value, BaseModel):
        return ""
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main(folder: Path) -> None:
    """Write the pages."""
    (folder / "commands.md").write_text(commands_page(), "utf-8")
    (folder / "settings.md").write_text(settings_page(), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
