"""From a file, or from options, to Settings: every complaint at once, each with its file and line.

Searched in this order: ``--config``; ``--bootstrap-servers`` with ``--command-config``; ``./streamgauge.yml``;
``$STREAMGAUGE_CONFIG``. What stands in the file is never quoted where it could be a secret: values only of numbers,
switches and choices, and those as they are written in the file, before the environment is put in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from monitor.cli.options import Where
from monitor.cli.yaml_document import Complaint, Document, YamlSyntaxError, path_text, printable
from monitor.cli.yaml_document import Path as KeyPath
from monitor.errors import SettingsError, UsageError
from monitor.settings import CONTRADICTION, Cluster, LoginFields, Sasl, Settings, Tls, contradictions, repeated_names

DEFAULT_FILE = "streamgauge.yml"
VARIABLE = "STREAMGAUGE_CONFIG"


@dataclass(frozen=True, slots=True)
class Found:
    """Settings and where they come from, as a person would say it."""

    settings: Settings
    source: str


def find_settings(where: Where, environ: Mapping[str, str] = os.environ) -> Found:
    """Load the settings that the options, the folder or the environment name.

    Raises:
        SettingsError: They are wrong; one line each complaint.
        UsageError: There are none, a file cannot be read, or the options do not go together.
    """
    if where.config and (where.bootstrap_servers or where.command_config):
        raise UsageError("--config and --bootstrap-servers are two ways to name the brokers: give one of them")
    if where.config:
        return Found(load(Path(where.config), environ), where.config)
    if where.bootstrap_servers or where.command_config:
        return _from_options(where)
    if Path(DEFAULT_FILE).exists():
        return Found(load(Path(DEFAULT_FILE), environ), DEFAULT_FILE)
    named = environ.get(VARIABLE)
    if named:
        if not Path(named).exists():
            missing = f"${VARIABLE} names {named}, which does not exist: correct it, or give --config FILE"
            raise UsageError(missing)
        return Found(load(Path(named), environ), named)
    nothing = (
        f"no settings: there is no ./{DEFAULT_FILE} and ${VARIABLE} is not set: give --bootstrap-servers HOST:PORT "
        f"or --config FILE, or write a file with: streamgauge config example > {DEFAULT_FILE}"
    )
    raise UsageError(nothing)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read streamgauge.yml; relative paths in it are taken from its folder.

    Raises:
        SettingsError: The file is wrong; one line each complaint, in the order of the file.
        UsageError: The file cannot be read.
    """
    text = read_text(path, f"write one with: streamgauge config example > {DEFAULT_FILE}")
    try:
        document = Document(text, environ)
    except YamlSyntaxError as exc:
        raise SettingsError([f"{path}:{exc.line}: {exc}"]) from None
    settings, complaints = validate(document, path.parent)
    if settings is None:
        raise SettingsError([f"{path}:{each.line}: {each.text}" for each in complaints])
    return settings


def read_text(path: Path, remedy: str) -> str:
    """Read a UTF-8 text file.

    Raises:
        UsageError: It is missing, not readable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        problem = f"there is no file {path}: check the path, or {remedy}"
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        problem = f"{path}:{line}: is not UTF-8 text: save it as UTF-8"
    except (OSError, ValueError) as exc:
        problem = f"{path} could not be read ({getattr(exc, 'strerror', None) or exc}): check the path"
    raise UsageError(problem)


# --- every complaint at once --------------------------------------------------------------------------


def validate(document: Document, folder: Path) -> tuple[Settings | None, list[Complaint]]:
    """Return the settings, or None and every complaint in the order of the file."""
    if document.data is None:
        return None, [*document.complaints, Complaint(1, (), "is empty: name at least one cluster")]
    complaints = list(document.complaints)
    settings = None
    try:
        settings = Settings.model_validate(document.data, context={"folder": folder})
    except ValidationError as exc:
        complaints += _from_pydantic(exc.errors(include_url=False), document)
    complaints += _between_fields(document)
    if settings is not None:
        complaints += _outside(settings, document)
    complaints = sorted(dict.fromkeys(complaints), key=lambda each: each.line)
    return (None if complaints else settings), complaints


def _from_pydantic(errors: list[ErrorDetails], document: Document) -> Iterator[Complaint]:
    blamed = {each.path for each in document.complaints}
    places = [error["loc"] for error in errors]
    for error in errors:
        path = error["loc"]
        # Said already: by the document, or by an error further in (a list of one faulty item is not empty).
        is_echo = error["type"] == "too_short" and any(len(at) > len(path) and at[: len(path)] == path for at in places)
        if path in blamed or is_echo or error["type"] == CONTRADICTION:
            continue
        yield Complaint(document.line(path), path, _sentence(error, document))


def _sentence(error: ErrorDetails, document: Document) -> str:
    path, kind = error["loc"], error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path)
    wanted = _WANTED.get(kind)
    if wanted is None:
        return f"{path_text(path)}: {error['msg']}"
    context = {key: value for key, value in error.get("ctx", {}).items() if key != "error"}
    text = f"{path_text(path)} {wanted.format(**context)}"
    if kind not in _SHOWN or path not in document.raw:
        return text
    shown = printable(document.raw[path])
    return f"{text}, not {shown[:40]!r}{_did_you_mean(shown, _choices(error))}"


_NUMBER, _WHOLE, _SWITCH = "should be a number", "should be a whole number", "should be true or false"
_MAPPING, _TEXT = "should hold keys, each as KEY: VALUE", "should be text: put it in quotes"

_WANTED = {
    "missing": "is missing",
    "string_type": _TEXT,
    "path_type": _TEXT,
    "string_too_short": "is empty",
    "too_short": "is empty: give at least one",
    "literal_error": "should be {expected}",
    "int_parsing": _WHOLE,
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": _WHOLE,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "finite_number": _NUMBER,
    "bool_parsing": _SWITCH,
    "bool_type": _SWITCH,
    "greater_than": "should be greater than {gt:g}",
    "greater_than_equal": "should be at least {ge:g}",
    "less_than_equal": "should be at most {le:g}",
    "tuple_type": "should be a list, each item after a dash",
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
}
"""What a field should be, by pydantic's error type; other types say it themselves."""

_SHOWN = frozenset(kind for kind, text in _WANTED.items() if text in {_NUMBER, _WHOLE, _SWITCH} or "{" in text)
"""Error types of fields that are numbers, switches or choices: their values may be shown, they are no secrets."""


def _choices(error: ErrorDetails) -> list[str]:
    expected = str(error.get("ctx", {}).get("expected", ""))
    return [part.strip("' ") for part in expected.replace(" or ", ",").split(",") if part.strip()]


def _unknown_key(path: KeyPath) -> str:
    *parent, key = path
    where = f" in {path_text(tuple(parent))}" if parent else ""
    text = f"unknown key `{printable(str(key))}`{where}"
    known = list(model_at(tuple(parent)).model_fields)
    meant = _did_you_mean(str(key), known, quote="`")
    if meant:
        return text + meant
    homes = [place for place, model in models() if key in model.model_fields]
    if homes:
        return f"{text}: it belongs in {' or '.join(homes)}"
    return f"{text}: known are {', '.join(known)}"


def _did_you_mean(word: str, known: Iterable[str], quote: str = "") -> str:
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return f": did you mean {quote}{by_lower[near[0]]}{quote}?" if near else ""


def models() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every part of the settings with its place (``clusters[].tls``), top first."""

    def below(place: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
        yield place or "the top of the file", model
        for name, field in model.model_fields.items():
            part, is_list = _part(field.annotation)
            if part is not None:
                yield from below(f"{place}.{name}".lstrip(".") + ("[]" if is_list else ""), part)

    return below("", Settings)


def model_at(path: KeyPath) -> type[BaseModel]:
    """Return the part of the settings that a path leads to."""
    model: type[BaseModel] = Settings
    for name in path:
        if isinstance(name, str):
            part, _ = _part(model.model_fields[name].annotation)
            assert part is not None, f"{path} leads beyond the settings"  # noqa: S101 - pydantic made the path
            model = part
    return model


def _part(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the part a field holds, if any, and whether it holds a list of them."""
    options = (annotation, *get_args(annotation))
    part = next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return part, annotation is not part and Ellipsis in options


# --- what fields forbid each other ----------------------------------------------------------------------


def _between_fields(document: Document) -> Iterator[Complaint]:
    """Complain about fields that do not go together, also where other fields are wrong.

    pydantic checks that only once every field is fine; a person wants to hear everything at once.
    """
    clusters = document.data.get("clusters") if isinstance(document.data, dict) else None
    if not isinstance(clusters, list):
        return
    protocols = get_args(Cluster.model_fields["security_protocol"].annotation)
    for index, cluster in enumerate(each if isinstance(each, dict) else {} for each in clusters):
        protocol = cluster.get("security_protocol", "PLAINTEXT")
        tls = cluster.get("tls")
        given = tls.keys() & Tls.model_fields.keys() if isinstance(tls, dict) else set()
        if protocol in protocols:
            for field, text in contradictions(protocol, sasl=_login(cluster), tls=given):
                path: KeyPath = ("clusters", index, *field.split("."))
                yield Complaint(document.line(path), path, f"{path_text(path)}: {text}")
    yield from _repeated_clusters(clusters, document)


def _login(cluster: dict[Any, Any]) -> LoginFields | None:
    """Return what a cluster's log-in sets; of one that is no mapping, only that it is there."""
    sasl = cluster.get("sasl")
    if isinstance(sasl, dict):
        return LoginFields(str(sasl.get("mechanism", _MECHANISM)), sasl.keys() & Sasl.model_fields.keys())
    return LoginFields("", frozenset()) if "sasl" in cluster else None


_MECHANISM = Sasl.model_fields["mechanism"].default


def _repeated_clusters(clusters: list[Any], document: Document) -> Iterator[Complaint]:
    default = Cluster.model_fields["name"].default
    names = [cluster.get("name", default) if isinstance(cluster, dict) else None for cluster in clusters]
    for name in repeated_names(name for name in names if isinstance(name, str)):
        first, *others = (("clusters", index) for index, each in enumerate(names) if each == name)
        for path in others:
            at = document.line((*path, "name"))
            text = f"{path_text(path)} is called {printable(name)!r} like {path_text(first)}: give each its own name"
            yield Complaint(at, path, text)


def _outside(settings: Settings, document: Document) -> Iterator[Complaint]:
    """Complain about addresses that are none and files that are not there."""
    for index, cluster in enumerate(settings.clusters):
        for field, text in cluster_complaints(cluster):
            path: KeyPath = ("clusters", index, *field.split("."))
            yield Complaint(document.line(path), path, f"{path_text(path)}: {text}")


def cluster_complaints(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Yield (field, text) for what only a look at addresses and files tells."""
    from monitor.observe.kafka.transport import addresses

    try:
        addresses(cluster.bootstrap_servers)
    except SettingsError as exc:
        for text in exc.complaints:
            yield "bootstrap_servers", text.removeprefix("bootstrap_servers").lstrip(": ")
    named = {f"tls.{field}": getattr(cluster.tls, field) for field in ("ca_file", "cert_file", "key_file")}
    named |= {f"sasl.{field}": getattr(cluster.sasl, field, None) for field in ("token_ca_file", "token_file")}
    for field, path in named.items():
        if path is not None and not path.is_file():
            yield field, f"there is no file {path}: check the path"


# --- without a file -------------------------------------------------------------------------------------


def _from_options(where: Where) -> Found:
    from monitor.cli.client_properties import cluster_fields

    fields: dict[str, Any] = {}
    if where.command_config:
        fields = cluster_fields(Path(where.command_config))
    if where.bootstrap_servers:
        fields["bootstrap_servers"] = where.bootstrap_servers
    if "bootstrap_servers" not in fields:
        raise UsageError("--command-config names no bootstrap.servers: give --bootstrap-servers HOST:PORT as well")
    try:
        cluster = Cluster(**fields)
    except ValidationError as exc:
        named = where.command_config or "--bootstrap-servers"
        raise SettingsError([f"{named}: {path_text(e['loc'])}: {e['msg']}" for e in exc.errors()]) from None
    source = "--bootstrap-servers" if where.bootstrap_servers else str(where.command_config)
    for field, text in cluster_complaints(cluster):
        origin = source if field == "bootstrap_servers" else where.command_config
        raise SettingsError([f"{origin}: {text}"])
    return Found(Settings(clusters=(cluster,)), source)
