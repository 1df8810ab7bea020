"""``streamgauge alerts``: render the alert rules and have them checked."""

from __future__ import annotations

from pathlib import Path

import click

STDOUT = "-"


@click.group()
def alerts() -> None:
    """Render the alert rules."""


@alerts.command()
@click.option(
    "--target",
    type=click.Choice(["prometheus"]),
    default="prometheus",
    show_default=True,
    help="The engine that is to evaluate the rules.",
)
@click.option("--out", metavar="DIR", required=True, help="Folder to write to; - for standard output.")
@click.option("--runbooks-url", metavar="URL", help="Where the manual's runbooks are served: alerts then link there.")
def render(target: str, out: str, runbooks_url: str | None) -> None:
    """Write the rule file: load it with rule_files in prometheus.yml."""
    from alerts.files import write
    from alerts.prometheus import FILE_NAME
    from alerts.prometheus import render as rendered

    text = rendered(runbooks_url=runbooks_url)
    if out == STDOUT:
        click.echo(text, nl=False)
        return
    for path in write({FILE_NAME: text}, Path(out)):
        click.echo(f"wrote {path}")


@alerts.command()
def check() -> None:
    """Have promtool check the rules, every lint on."""
    from alerts.prometheus import render as rendered
    from alerts.promtool import check as checked

    click.echo(checked(rendered()))
