"""``streamgauge alerts``: render the alert rules and have them checked and tested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from monitor.cli.alerts_backtest import backtest
from monitor.cli.dashboards_apply import add_to_alerts
from monitor.errors import UsageError

if TYPE_CHECKING:
    from monitor.settings import Settings

STDOUT = "-"


def _uid(_: click.Context, __: click.Parameter, value: str) -> str:
    import re

    if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", value) is None:
        problem = f"{value!r} is no uid of Grafana: 1 to 40 letters, digits, - and _"
        raise click.BadParameter(problem)
    return value


config_option = click.option(
    "--config",
    metavar="FILE",
    help="Settings file that says whom alerts go to (targets alertmanager and grafana). Without it: "
    "./streamgauge.yml, else the file that $STREAMGAUGE_CONFIG names, else none.",
)


@click.group()
def alerts() -> None:
    """Render, check and test the alert rules, and apply them to Grafana."""


alerts.add_command(backtest)
add_to_alerts(alerts)


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
    callback=_uid,
    default="streamgauge-prometheus",
    show_default=True,
    help="Prometheus as Grafana knows it (target grafana).",
)
@config_option
@click.option(
    "--faster",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=1,
    help="Divide every duration by N, to try the whole chain out (targets prometheus and alertmanager).",
)
def render(
    *,
    target: str,
    out: str,
    runbooks_url: str | None,
    grafana_url: str | None,
    datasource_uid: str,
    config: str | None,
    faster: int,
) -> None:
    """Write the files for one engine.

    Whom alerts go to is in the settings (notifications). Where those name nobody, or there are none, Alertmanager
    sends everything to a webhook, and Grafana what its notification policies say.
    """
    from alerts.files import write

    if target == "prometheus":
        texts = _for_prometheus(runbooks_url, grafana_url, faster)
    elif target == "grafana":
        if faster != 1:
            raise UsageError(
                "cannot make Grafana's rules faster: it evaluates no sooner than every 10 s; take --faster out"
            )
        texts = _for_grafana(datasource_uid, _settings(config), runbooks_url, grafana_url)
    else:
        texts = _for_alertmanager(_settings(config), faster)
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
@config_option
def check(target: str, config: str | None) -> None:
    """Have promtool or amtool check the files.

    promtool checks the rules, every lint on, and amtool the routes (--target alertmanager).
    """
    if target == "alertmanager":
        from alerts.alertmanager import check as amtool_check

        click.echo(amtool_check("".join(_for_alertmanager(_settings(config)).values())))
        return
    from alerts.prometheus import render as rendered
    from alerts.promtool import check as promtool_check

    click.echo(promtool_check(rendered()))


@alerts.command()
@click.pass_context
def test(ctx: click.Context) -> None:
    """Have promtool run the tests of the rules.

    Every rule has its own: it fires with these words, is silent, resolves, and survives a lost scrape. Exit code: 0 all
    pass; 1 one does not; 3 promtool is not there.
    """
    from alerts.cases import documents, jobs
    from alerts.promtool import test as tested

    written = documents()
    verdicts = tested(jobs(written))
    for name, verdict in verdicts.items():
        count = len(written[name]["tests"])
        click.echo(f"{name}: {count} passed" if verdict.passed else f"{name}: {verdict.said}")
    if not all(verdict.passed for verdict in verdicts.values()):
        ctx.exit(1)


def _for_prometheus(runbooks_url: str | None, grafana_url: str | None, faster: int) -> dict[str, str]:
    from alerts.prometheus import FILE_NAME
    from alerts.prometheus import render as rendered

    return {FILE_NAME: rendered(runbooks_url=runbooks_url, grafana_url=grafana_url, faster=faster)}


def _for_grafana(
    datasource_uid: str, settings: Settings | None, runbooks_url: str | None, grafana_url: str | None
) -> dict[str, str]:
    from alerts import grafana

    texts = grafana.render(
        datasource_uid=datasource_uid,
        receivers=grafana.receivers_of(settings) if settings else None,
        runbooks_url=runbooks_url,
        grafana_url=grafana_url,
    )
    return {**texts, **(grafana.render_contacts(settings) if settings else {})}


def _for_alertmanager(settings: Settings | None, faster: int = 1) -> dict[str, str]:
    from alerts.alertmanager import FILE_NAME
    from alerts.alertmanager import render as rendered
    from alerts.contacts import or_usual, untold
    from monitor.cli.output import complain_each

    notifications = or_usual(settings.notifications) if settings else None
    texts = {FILE_NAME: rendered(notifications, faster=faster)}
    if notifications is not None and (severities := untold(notifications)):
        complain_each([f"nobody is told of alerts with severity {' or '.join(severities)}: see notifications"])
    return texts


def _settings(config: str | None) -> Settings | None:
    """Return the settings that there are: alerts can be rendered without any."""
    import os

    from monitor.cli.options import Where
    from monitor.cli.settings_file import DEFAULT_FILE, VARIABLE, find_settings

    if not (config or Path(DEFAULT_FILE).exists() or os.environ.get(VARIABLE)):
        return None
    return find_settings(Where(config)).settings
