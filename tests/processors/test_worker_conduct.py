"""How a worker is run: folders of its own, Kafka's settings from the file, and whether it gets on."""

from dataclasses import dataclass

import faust
import pytest

from monitor.cli.worker import _address, kafka_settings
from monitor.errors import UsageError
from monitor.settings import Worker
from processors.agents.rollups import Counts
from processors.progress import Progress, Seen, _to_do
from processors.worker import configure, outcomes, own_folder


def test_workers_on_one_machine_have_folders_of_their_own_and_find_them_again(tmp_path):
    """A folder is free again when its worker has ended."""
    with own_folder(tmp_path) as first, own_folder(tmp_path) as second:
        (first / "tables").write_text("kept")
        assert ["worker-0", "worker-1"] == [first.name, second.name]
    with own_folder(tmp_path) as again:
        assert "kept" == (again / "tables").read_text()


def test_a_folder_that_cannot_be_made_is_wrong_usage(tmp_path):
    """Here a file is in the way."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"the data folder .* cannot be used: Not a directory"),
        own_folder(tmp_path / "file" / "data"),
    ):
        pass


@dataclass
class OfAUser:
    """Counts that are not ours: some of what is in there is no number of records."""

    kept: int = 3
    since: float = 0.5
    is_on: bool = True
    balance: int = -1


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param(Counts(added=9, bad=1), {"added": 9, "bad": 1, "written": 0}, id="ours"),
        pytest.param(OfAUser(), {"kept": 3}, id="what is no number of records is left out"),
        pytest.param({"kept": 3}, {}, id="no dataclass"),
        pytest.param(OfAUser, {}, id="a class is no counts"),
        pytest.param(None, {}, id="none"),
    ],
)
def test_what_an_app_counts_is_what_its_records_came_to(counts, expected):
    """A report with anything else in it would be refused as a whole."""
    app = faust.App("shop", web_enabled=False)
    app.counts = counts

    assert expected == outcomes(app)


@pytest.mark.parametrize(
    ("given", "set_"),
    [
        pytest.param({}, {}, id="nothing given, nothing replaced"),
        pytest.param(
            {"acks": "leader", "compression": "gzip", "linger_seconds": 0.1, "batch_bytes": 1000},
            {"producer_acks": 1, "producer_compression_type": "gzip", "producer_linger": 0.1,
             "producer_max_batch_size": 1000},
            id="of the producer",
        ),
        pytest.param(
            {"max_poll_records": 10, "session_timeout_seconds": 30.0, "offset_reset": "latest", "acks": "all"},
            {"broker_max_poll_records": 10, "broker_session_timeout": 30.0, "consumer_auto_offset_reset": "latest",
             "producer_acks": -1},
            id="of the consumer",
        ),
    ],
)  # fmt: skip
def test_settings_in_the_file_replace_those_of_the_app(given, set_):
    """And no others: an app may have reasons of its own."""
    app = faust.App("shop", web_enabled=False, producer_linger=0.5)
    configure(app, kafka_settings(Worker(**given)))

    assert set_ == kafka_settings(Worker(**given))
    assert {"producer_linger": 0.5, **set_} == {name: getattr(app.conf, name) for name in {"producer_linger", *set_}}


def test_the_defaults_that_the_manual_gives_are_those_of_an_app():
    """So that nothing changes by writing one down."""
    app = faust.App("shop", web_enabled=False)
    defaults = kafka_settings(Worker(**Worker().model_dump()))

    assert defaults == {name: getattr(app.conf, name) for name in defaults}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("9761", ("127.0.0.1", 9761), id="a port"),
        pytest.param("0.0.0.0:9761", ("0.0.0.0", 9761), id="an address"),
        pytest.param("[::1]:9761", ("::1", 9761), id="of IPv6"),
        pytest.param("here", None, id="none"),
        pytest.param("a:70000", None, id="a port that there is not"),
    ],
)
def test_where_health_is_told(text, address):
    """On this machine only, unless it is said otherwise."""
    if address is None:
        with pytest.raises(UsageError, match="must be PORT or HOST:PORT"):
            _address(text)
    else:
        assert address == _address(text)


IDLE, BUSY = "", "3 records wait for an agent"


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        pytest.param([(0, IDLE, 1), (1000, IDLE, 1)], "", id="nothing to do is no fault"),
        pytest.param([(0, BUSY, 1), (299, BUSY, 1)], "", id="patience"),
        pytest.param([(0, BUSY, 1), (301, BUSY, 1)], f"{BUSY}, and nothing has moved for 301 s", id="stuck"),
        pytest.param([(0, BUSY, 1), (200, BUSY, 2), (400, BUSY, 3)], "", id="slow, but it moves"),
        pytest.param([(0, BUSY, 1), (200, BUSY, 2), (501, BUSY, 2)], f"{BUSY}, and nothing has moved for 301 s",
                     id="since it moved last"),
        pytest.param([(0, IDLE, 1), (1000, BUSY, 1), (1200, BUSY, 1)], "", id="idle before it had something to do"),
        pytest.param([(0, BUSY, 1), (301, BUSY, 1), (302, BUSY, 2)], "", id="it goes on"),
    ],
)  # fmt: skip
def test_a_worker_is_well_while_it_has_nothing_to_do_or_something_moves(looks, said):
    """Whatever state it says it is in."""
    now = 0.0
    progress = Progress(300.0, clock=lambda: now)
    for at, to_do, moved in looks:
        now = float(at)
        told = progress.complaint(Seen(to_do, (moved,)))

    assert said == told


@pytest.mark.parametrize(
    ("report", "buffered", "behind", "begins"),
    [
        pytest.param({}, 0, 0, "", id="nothing"),
        pytest.param({"state": "recovering"}, 0, 0, "90 records of changelogs", id="recovery"),
        pytest.param({"state": "rebalancing"}, 0, 0, "a rebalance", id="rebalance"),
        pytest.param({"state": "starting"}, 0, 0, "partitions", id="not begun"),
        pytest.param({}, 3, 1, "3 records wait", id="buffered"),
        pytest.param({"commits": {"waiting_seconds": 0.1}}, 0, 1, "processed records", id="uncommitted"),
        pytest.param({}, 0, 2, "2 partitions", id="more is there"),
    ],
)
def test_what_a_worker_has_to_do(report, buffered, behind, begins):
    """The first thing that holds."""
    whole = {"state": "running", "recovery": {"remaining": 90}, "commits": {"waiting_seconds": 0.0}} | report
    told = _to_do(whole, buffered, behind)

    assert told.startswith(begins)
    assert bool(told) is bool(begins)
