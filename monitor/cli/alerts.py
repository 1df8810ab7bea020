"""``streamgauge alerts``: render the alert rules and have them checked and tested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from monitor.errors import UsageError

if TYPE_CHECKING:
    from alerts.contacts import Contact
    from alerts.rule import Severity

STDOUT = "-"


@click.group()
def alerts() -> None:
    """Render, check and test the alert rules."""


@alerts.command()
@click.option(
    "--target",
    type=click.Choice(["prometheus", "grafana", "alertmanager"]),
    default="prometheus",
    show_default=True,
    help="Rules for Prometheus or for Grafana (never load both), or routes for Alertmanager.",
)
@click.option("--out", metavar="DIR", required=True, help="Folder to write to; - for standard output.")
@click.option("--runbooks-url", metavar="URL", help="Where the manual's runbooks are served: alerts then link there.")
@click.option("--grafana-url", metavar="URL", help="Where Grafana is served: alerts then link to the board.")
@click.option(
    "--datasource-uid",
    metavar="UID",
    default="streamgauge-prometheus",
    show_default=True,
    help="Prometheus as Grafana knows it (target grafana).",
)
@click.option(
    "--contact",
    "contacts",
    metavar="SEVERITY=KIND",
    multiple=True,
    help="How critical, warning, info and none are told: email, slack, pagerduty, teams or webhook "
    "(targets alertmanager and grafana).",
)
def render(
    *,
    target: str,
    out: str,
    runbooks_url: str | None,
    grafana_url: str | None,
    datasource_uid: str,
    contacts: tuple[str, ...],
) -> None:
    """Write the files for one engine."""
    from alerts.files import write

    chosen = _contacts(contacts)
    if target == "prometheus":
        texts = _for_prometheus(runbooks_url, grafana_url)
    elif target == "grafana":
        texts = _for_grafana(datasource_uid, chosen, runbooks_url, grafana_url)
    else:
        texts = _for_alertmanager(chosen)
    if out != STDOUT:
        for path in write(texts, Path(out)):
            click.echo(f"wrote {path}")
        return
    if len(texts) > 1:
        msg = f"cannot print the {len(texts)} files of target {target} as one; name a folder with --out"
        raise UsageError(msg)
    click.echo("".join(texts.values()), nl=False)


@alerts.command()
@click.option(
    "--target",
    type=click.Choice(["prometheus", "alertmanager"]),
    default="prometheus",
    show_default=True,
    help="Whose files: promtool checks the rules, amtool the routes.",
)
@click.option("--contact", "contacts", metavar="SEVERITY=KIND", multiple=True, help="As for render.")
def check(target: str, contacts: tuple[str, ...]) -> None:
    """Have promtool check the rules, every lint on, or amtool the routes."""
    chosen = _contacts(contacts)
    if target == "alertmanager":
        from alerts.alertmanager import check as amtool_check

        click.echo(amtool_check("".join(_for_alertmanager(chosen).values())))
        return
    from alerts.prometheus import render as rendered
    from alerts.promtool import check as promtool_check

    click.echo(promtool_check(rendered()))


@alerts.command()
@click.pass_context
def test(ctx: click.Context) -> None:
    """Have promtool run every rule's own tests: it fires, is silent, resolves and loses a scrape."""
    from alerts.cases import documents, jobs
    from alerts.promtool import test as tested

    written = documents()
    verdicts = tested(jobs(written))
    for name, verdict in verdicts.items():
        count = len(written[name]["tests"])
        click.echo(f"{name}: {count} passed" if verdict.passed else f"{name}: {verdict.said}")
    if not all(verdict.passed for verdict in verdicts.values()):
        ctx.exit(1)


def _for_prometheus(runbooks_url: str | None, grafana_url: str | None) -> dict[str, str]:
    from alerts.prometheus import FILE_NAME
    from alerts.prometheus import render as rendered

    return {FILE_NAME: rendered(runbooks_url=runbooks_url, grafana_url=grafana_url)}


def _for_grafana(
    datasource_uid: str, contacts: dict[Severity, Contact], runbooks_url: str | None, grafana_url: str | None
) -> dict[str, str]:
    from alerts import grafana
    from alerts.contacts import receiver_name

    receivers = {severity: receiver_name(severity) for severity in contacts}
    texts = grafana.render(
        datasource_uid=datasource_uid, receivers=receivers, runbooks_url=runbooks_url, grafana_url=grafana_url
    )
    return {**texts, **(grafana.render_contacts(contacts) if contacts else {})}


def _for_alertmanager(contacts: dict[Severity, Contact]) -> dict[str, str]:
    from alerts.alertmanager import FILE_NAME
    from alerts.alertmanager import render as rendered

    return {FILE_NAME: rendered(contacts)}


def _contacts(pairs: tuple[str, ...]) -> dict[Severity, Contact]:
    """Read SEVERITY=KIND.

    Raises:
        UsageError: a severity or a kind that there is not.
    """
    from alerts.contacts import Contact
    from alerts.rule import Severity

    chosen = {}
    for pair in pairs:
        severity, _, kind = pair.partition("=")
        if severity not in list(Severity) or kind not in list(Contact):
            msg = (
                f"cannot use --contact {pair}: write SEVERITY=KIND with one of {', '.join(Severity)} "
                f"and one of {', '.join(Contact)}"
            )
            raise UsageError(msg)
        chosen[Severity(severity)] = Contact(kind)
    return chosen
