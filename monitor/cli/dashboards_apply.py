"""``plan``, ``apply``, ``drift`` and ``destroy``: Grafana made as wanted, by ``dashboards`` and by ``alerts``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.options import Command, Where, debug_option, output_option
from monitor.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from dashboards.grafana import Grafana
    from dashboards.provision import Item, Kind, Provisioner, Step
    from monitor.settings import Grafana as GrafanaSettings
    from monitor.settings import Settings

EXIT_PENDING = 1


# --- options -----------------------------------------------------------------------------------------


def grafana_options(command: Command) -> Command:
    """Add the options that say which Grafana; the command gets ``target``, a function that finds it."""

    @click.option(
        "--config",
        metavar="FILE",
        help="Settings file, with grafana in it. Without it: ./streamgauge.yml, else the file that $STREAMGAUGE_CONFIG "
        "names, else none.",
    )
    @click.option(
        "--grafana-url",
        metavar="URL",
        help="The Grafana, instead of the settings' one; without either $GRAFANA_URL. Its log-in is then "
        "$GRAFANA_TOKEN, or $GRAFANA_USER and $GRAFANA_PASSWORD.",
    )
    @debug_option
    @functools.wraps(command)
    def with_target(*args: Any, config: str | None, grafana_url: str | None, **kwargs: Any) -> Any:
        return command(*args, target=functools.partial(find_target, config, grafana_url, os.environ), **kwargs)

    return with_target


force_option = click.option("--force", is_flag=True, help="Write over what somebody else changed, and delete it.")
prune_option = click.option(
    "--prune/--no-prune",
    default=True,
    show_default=True,
    help="Whether to delete what carries our mark and is not wanted any more.",
)


class Target:
    """A Grafana and what the settings want of it."""

    def __init__(self, grafana: GrafanaSettings, settings: Settings | None) -> None:
        from dashboards.grafana import connect

        self.server: Grafana = connect(grafana)
        self.grafana = grafana
        self.settings = settings

    def boards(self) -> tuple[Provisioner, list[Item]]:
        """Return what ``dashboards`` applies."""
        from dashboards.desired import FOLDER, reads_old_models, wanted_boards
        from dashboards.provision import FOR_BOARDS, Provisioner
        from dashboards.shelves import shelves

        wanted = wanted_boards(self.grafana, is_old=reads_old_models(self.server))
        return Provisioner(shelves(self.server, FOLDER, self._kinds(FOR_BOARDS))), wanted

    def alerts(self) -> tuple[Provisioner, list[Item]]:
        """Return what ``alerts`` applies.

        Raises:
            UnreachableError: this Grafana takes no rules.
        """
        from dashboards.desired import FOLDER, wanted_alerts
        from dashboards.provision import FOR_ALERTS, Provisioner
        from dashboards.shelves import require_alerting, shelves

        require_alerting(self.server)
        wanted = wanted_alerts(self.grafana, self.settings, os.environ)
        return Provisioner(shelves(self.server, FOLDER, self._kinds(FOR_ALERTS))), wanted

    def _kinds(self, kinds: Sequence[Kind]) -> list[Kind]:
        """Leave data sources alone where one of somebody else's is used: only admins may even list them."""
        from dashboards.provision import Kind

        return [kind for kind in kinds if kind is not Kind.DATASOURCE or self.grafana.datasource_uid is None]

    def everything(self) -> tuple[Provisioner, list[Item]]:
        """Return both and all that is ours, without alerts where this Grafana takes none."""
        from dashboards.desired import FOLDER, reads_old_models, wanted_alerts, wanted_boards
        from dashboards.provision import Kind, Provisioner
        from dashboards.shelves import shelves

        found = shelves(self.server, FOLDER)
        wanted = wanted_boards(self.grafana, is_old=reads_old_models(self.server))
        if Kind.RULE_GROUP in found:
            more = wanted_alerts(self.grafana, self.settings, os.environ)
            wanted += [item for item in more if item.kind in {Kind.CONTACT_POINT, Kind.RULE_GROUP}]
        return Provisioner(found), wanted


FindTarget = Callable[[], Target]


def find_target(config: str | None, grafana_url: str | None, environ: Mapping[str, str]) -> Target:
    """Return the Grafana that options, settings and environment name.

    Raises:
        UsageError: none is named, or how to log in to it is not said.
    """
    from monitor.cli.settings_file import DEFAULT_FILE, VARIABLE, find_settings

    settings = None
    if config or Path(DEFAULT_FILE).exists() or environ.get(VARIABLE):
        settings = find_settings(Where(config), environ).settings
    return Target(grafana_settings(settings.grafana if settings else None, grafana_url, environ), settings)


def grafana_settings(
    said: GrafanaSettings | None, grafana_url: str | None, environ: Mapping[str, str]
) -> GrafanaSettings:
    """Return the settings with what is left out filled in from the environment.

    Another address than that of the settings is not given the settings' log-in.

    Raises:
        UsageError: no address.
        SettingsError: what was given does not fit.
    """
    from pydantic import ValidationError

    from dashboards.grafana import login_of
    from monitor.settings import Grafana

    fields = {name: getattr(said, name) for name in said.model_fields_set} if said else {}
    if grafana_url and grafana_url.rstrip("/") != fields.get("url", "").rstrip("/"):
        fields = {name: value for name, value in fields.items() if name not in {"token", "username", "password"}}
    url = grafana_url or fields.get("url") or environ.get("GRAFANA_URL")
    if not url:
        raise UsageError("no Grafana: give --grafana-url URL, or set GRAFANA_URL, or write grafana into the settings")
    if not {"token", "username"} & fields.keys():
        fields |= login_of(environ)
    try:
        return Grafana(**{**fields, "url": url})
    except ValidationError as exc:
        where = "--grafana-url" if grafana_url else "grafana"
        raise SettingsError([f"{where}: {each['msg']}" for each in exc.errors(include_input=False)]) from None


# --- what both commands do ---------------------------------------------------------------------------


def run_plan(provisioner: Provisioner, wanted: Sequence[Item], *, prune: bool, output: str) -> int:
    """Show what apply would do; return 1 where that is something."""
    return _shown(provisioner.plan(wanted, prune=prune), output, "nothing to do", "apply does what it may")


def run_apply(provisioner: Provisioner, wanted: Sequence[Item], *, prune: bool, force: bool) -> int:
    """Apply, say each step when it is done, and return 1 where something was left as it is."""
    from dashboards.provision import STOPPING, WRITING, Action

    said: list[Step] = []

    def say(step: Step) -> None:
        said.append(step)
        click.echo(line(step))

    done = provisioner.apply(wanted, prune=prune, force=force, say=say)
    left = [step for step in done if step.action not in WRITING | {Action.NOTHING, Action.UNMARKED}]
    stopping = [step for step in done if step.action in STOPPING]
    if stopping and not said:
        click.echo("\n".join(map(line, stopping)))
        may_force = all(step.action is Action.CONFLICT for step in stopping)
        click.echo(f"nothing was written: look at what is there{', and then apply with --force' if may_force else ''}")
        return EXIT_PENDING
    if not left:
        click.echo(f"everything is as wanted: {_counted(len(done))}")
    return EXIT_PENDING if left else 0


_SAID = {"create": "created", "update": "updated", "delete": "deleted"}


def line(step: Step, *, is_plan: bool = False) -> str:
    """Return one step as a line: what, of which kind, its name, and why."""
    from monitor.cli.output import printable

    word = str(step.action) if is_plan else _SAID.get(step.action, str(step.action))
    return f"{word:<9} {step.kind} {printable(step.uid)}: {printable(step.reason)}"


def _shown(steps: Sequence[Step], output: str, fine: str, advice: str) -> int:
    from dashboards.provision import PENDING, Action

    if output == "json":
        import json

        click.echo(json.dumps([as_json(step) for step in steps], indent=2))
    else:
        from monitor.cli.output import printable

        for step in steps:
            if step.action is Action.NOTHING:
                continue
            click.echo(line(step, is_plan=True))
            for difference in step.differences:
                click.echo(f"            {printable(difference)}")
        count = sum(step.action in PENDING for step in steps)
        click.echo(f"{_counted(count)} not as wanted: {advice}" if count else f"{fine}: {_counted(len(steps))}")
    return EXIT_PENDING if any(step.action in PENDING for step in steps) else 0


def as_json(step: Step) -> dict[str, object]:
    """Return one step for a program."""
    return {
        "action": str(step.action),
        "kind": str(step.kind),
        "uid": step.uid,
        "title": step.title,
        "reason": step.reason,
        "differences": list(step.differences),
    }


def _counted(count: int) -> str:
    from monitor.cli.output import plural

    return plural(count, "object")


# --- the commands ------------------------------------------------------------------------------------


def plan_and_apply(group: click.Group, what: str, of: Callable[[Target], tuple[Provisioner, list[Item]]]) -> None:
    """Add ``plan`` and ``apply`` to a group of commands."""

    @group.command(help=f"Show what apply would change in Grafana: {what}.\n\nExit: 1 where that is something.")
    @grafana_options
    @prune_option
    @output_option("table", "json")
    def plan(*, target: FindTarget, prune: bool, output: str) -> int:
        return run_plan(*of(target()), prune=prune, output=output)

    @group.command(
        help=f"Make Grafana as wanted: {what}.\n\nWhat somebody else changed is left alone, and where that is wanted "
        "otherwise now, nothing is written at all, unless --force is given. Running it again, from elsewhere, or after "
        "it was broken off, does what is left.\n\nExit: 1 where something was left as it is."
    )
    @grafana_options
    @prune_option
    @force_option
    def apply(*, target: FindTarget, prune: bool, force: bool) -> int:
        return run_apply(*of(target()), prune=prune, force=force)


@click.command()
@grafana_options
@output_option("table", "json", "metrics")
@click.option(
    "--metrics-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the counts there, for the textfile collector of Prometheus' node exporter.",
)
def drift(*, target: FindTarget, output: str, metrics_file: Path | None) -> int:
    """Show what in Grafana is not as it was applied: boards, data source and folder, and rules if there are any.

    Exit: 1 where somebody changed or deleted something.
    """
    from alerts.files import write
    from dashboards.provision import STATES, Kind, metric_lines

    provisioner, wanted = target().everything()
    steps = provisioner.drift(wanted, optional=(Kind.CONTACT_POINT, Kind.RULE_GROUP))
    text = "\n".join(metric_lines(steps)) + "\n"
    if metrics_file is not None:
        write({metrics_file.name: text}, metrics_file.parent)
    if output == "metrics":
        click.echo(text, nl=False)
    else:
        _shown(steps, output, "no drift", "streamgauge dashboards plan and alerts plan say what apply does")
    return EXIT_PENDING if any(STATES[step.action] in {"drifted", "missing", "locked"} for step in steps) else 0


@click.command()
@grafana_options
@force_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def destroy(*, target: FindTarget, force: bool, yes: bool) -> int:
    """Delete everything in Grafana that carries our mark, and the folder if nothing else is in it.

    What somebody changed is spared unless --force is given.

    Exit: 1 where something was spared.
    """
    import sys

    from dashboards.provision import Action

    provisioner, _ = target().everything()
    planned = provisioner.destroy(force=force, say=None)
    if not planned:
        click.echo("nothing to delete: there is nothing of ours")
        return 0
    if not yes:
        for step in planned:
            click.echo(line(step, is_plan=True))
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked here: give --yes to delete all that")
        click.confirm("Delete that?", abort=True)
    done = provisioner.destroy(force=force, say=lambda step: click.echo(line(step)))
    return EXIT_PENDING if any(step.action is Action.SPARED for step in done) else 0


def add_to_dashboards(group: click.Group) -> None:
    """Add all four to ``streamgauge dashboards``."""
    plan_and_apply(group, "folder, data source and boards", Target.boards)
    group.add_command(drift)
    group.add_command(destroy)


def add_to_alerts(group: click.Group) -> None:
    """Add ``plan`` and ``apply`` to ``streamgauge alerts``."""
    plan_and_apply(group, "rules and contact points, with the folder and the data source that they need", Target.alerts)
