"""The manual's reference pages say what the commands and settings say."""

from pathlib import Path

import pytest

from monitor.cli.manual import commands, commands_page, settings_page
from monitor.cli.settings_file import models

DOCS = Path(__file__).parents[2] / "docs"
ADVICE = "run: python -m monitor.cli.manual docs"


@pytest.mark.parametrize(
    ("name", "page"),
    [
        pytest.param("commands.md", commands_page, id="commands"),
        pytest.param("settings.md", settings_page, id="settings"),
    ],
)
def test_the_page_is_current(name, page):
    """The page in docs/ is what is made from the program now."""
    assert page() == (DOCS / name).read_text("utf-8"), ADVICE


def test_every_command_and_option_is_documented():
    """Each command has its heading, and under it each of its options."""
    text = (DOCS / "commands.md").read_text("utf-8")

    for context in commands():
        path = context.command_path.split()[1:]
        heading = f"\n{'#' * (len(path) + 1)} {' '.join(path)}\n"
        assert heading in text, ADVICE
        section = text.partition(heading)[2].partition("\n#")[0]
        options = {option for parameter in context.command.params for option in parameter.opts if option[0] == "-"}
        assert set() == {option for option in options if option not in section}
        assert context.command.help


def test_every_option_has_a_help():
    """No option is without an explanation."""
    bare = [
        f"{context.command_path} {parameter.name}"
        for context in commands()
        for parameter in context.command.params
        if parameter.param_type_name == "option" and not getattr(parameter, "help", None)
    ]

    assert [] == bare


def test_every_setting_is_documented():
    """Each part of the settings has a heading, and under it each of its keys."""
    text = (DOCS / "settings.md").read_text("utf-8")

    for place, model in models():
        title = "\n## The top" if place == "the top of the file" else f"\n## `{place}`\n"
        section = text.partition(title)[2].partition("\n## ")[0]
        assert set() == {name for name in model.model_fields if f"| `{name}` |" not in section}
