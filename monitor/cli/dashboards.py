"""``streamgauge dashboards``: render the boards for Grafana, and have a Grafana made as wanted."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import click

from monitor.cli.dashboards_apply import add_to_dashboards


def _duration(_: click.Context, __: click.Parameter, value: str) -> str:
    if re.fullmatch(r"[1-9]\d*(ms|s|m|h)", value) is None:
        problem = f"{value!r} is not a duration such as 15s or 1m"
        raise click.BadParameter(problem)
    return value


@click.group()
def dashboards() -> None:
    """Render the Grafana boards and apply them."""


@dashboards.command()
@click.option(
    "--target",
    type=click.Choice(["grafana", "grafana-7", "configmaps"]),
    default="grafana",
    show_default=True,
    help="What is to show the boards: files for Grafana from 10 on, or for 7.5 to 9, or ConfigMaps for the sidecar of "
    "Grafana's Helm chart.",
)
@click.option("--out", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option(
    "--boards-path",
    metavar="PATH",
    type=click.Path(path_type=PurePosixPath),
    help="The folder DIR/dashboards as Grafana sees it, if it runs elsewhere or in a container.",
)
@click.option(
    "--prometheus-url",
    metavar="URL",
    default="http://127.0.0.1:9090",
    show_default=True,
    help="Where Grafana reaches Prometheus.",
)
@click.option(
    "--scrape-interval",
    metavar="DURATION",
    default="1m",  # Prometheus' own default
    show_default=True,
    callback=_duration,
    help="How often Prometheus scrapes the monitor.",
)
def render(
    target: str, out: Path, boards_path: PurePosixPath | None, prometheus_url: str, scrape_interval: str
) -> None:
    """Write the boards and the files with which Grafana provisions itself from them.

    ConfigMaps hold the boards alone: data sources are the chart's business.
    """
    from alerts.files import write
    from dashboards.files import BOARDS_FOLDER, config_maps
    from dashboards.files import render as rendered

    if target == "configmaps":
        texts = config_maps()
    else:
        where = boards_path or PurePosixPath((out / BOARDS_FOLDER).absolute())
        texts = rendered(
            where, prometheus_url=prometheus_url, scrape_interval=scrape_interval, is_old=target == "grafana-7"
        )
    for path in write(texts, out):
        click.echo(f"wrote {path}")


add_to_dashboards(dashboards)
