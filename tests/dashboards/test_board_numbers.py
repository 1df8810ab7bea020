"""The single numbers on the boards are true: what was played is worked out here, and a real Prometheus is asked.

Seven minutes of the shop are given to Prometheus as samples with their times, so that each number has one right value.
"""

import math

import pytest
from board_pictures import INTERVAL, START, played_samples, remembering
from board_reader import filled, panels_of
from prometheus_servers import asked, needs_prometheus

from dashboards.files import BOARDS

pytestmark = [pytest.mark.integration, needs_prometheus]

CYCLES = 30
LAST = CYCLES - 1
SECONDS = LAST * INTERVAL
ASKED_LATER = 0.5  # as long after a cycle a scrape takes its samples

RETURNS_BEHIND = 90_000 - 90 * LAST
"""Records on each of 12 partitions, and twice as many on one."""

HELD = 20 * (3600 + SECONDS) - 20 * (300 * (SECONDS // 300))
"""Records in each partition of orders: an hour before the start, less the segments of 300 s that were deleted."""

SLOW_BATCH = 9.0 * (1 + 0.4 * math.sin(2 * math.pi * LAST / 37))

SHOP = {"cluster": "shop", "kind": "group"}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with remembering(tmp_path_factory.mktemp("played"), played_samples(CYCLES)) as where:
        yield where


@pytest.mark.parametrize(
    ("uid", "title", "chosen", "number"),
    [
        # Returns, ledger and nightly-report, whose objective is 300 s.
        pytest.param("overview", "Over objective", {}, 3, id="over objective"),
        pytest.param("overview", "Over objective", {"cluster": "lab"}, 0, id="over objective in the lab"),
        pytest.param("overview", "Stopped", {}, 1, id="nightly-report has no members"),
        pytest.param("overview", "Age unknown", {}, 2, id="one without a commit, one that may not be read"),
        pytest.param(
            "overview", "Worst age of objective", {"consumer": "nightly-report"}, SECONDS / 300, id="worst age"
        ),
        pytest.param(
            "consumer", "Records to read", {**SHOP, "consumer": "returns-desk"}, 13 * RETURNS_BEHIND, id="lag of one"
        ),
        pytest.param(
            "consumer", "Age", {**SHOP, "consumer": "returns-desk"}, 2 * RETURNS_BEHIND / 160, id="age of one"
        ),
        pytest.param(
            "consumer",
            "Age of objective",
            {**SHOP, "consumer": "returns-desk"},
            2 * RETURNS_BEHIND / 160 / 300,
            id="age of objective of one",
        ),
        pytest.param(
            "consumer", "Caught up in", {**SHOP, "consumer": "returns-desk"}, RETURNS_BEHIND / 90 * INTERVAL,
            id="caught up",
        ),
        pytest.param("consumer", "Caught up in", {**SHOP, "consumer": "nightly-report"}, None, id="never caught up"),
        pytest.param("consumer", "Partitions unknown", {**SHOP, "consumer": "mailer"}, 3, id="partitions unknown"),
        pytest.param("consumer", "Records lost", {**SHOP, "consumer": "billing"}, 0, id="nothing lost"),
        pytest.param("topic", "Records held", {**SHOP, "topic": "orders"}, 6 * HELD, id="records held"),
        pytest.param(
            "topic", "Records held", {**SHOP, "topic": "orders", "partition": ["1", "2"]}, 2 * HELD,
            id="records held by two partitions",
        ),
        pytest.param("topic", "Written, records/s", {**SHOP, "topic": "orders"}, 120, id="written"),
        # billing, fraud-detection, nightly-report, and a Spark query
        pytest.param("topic", "Readers", {**SHOP, "topic": "orders"}, 4, id="readers"),
        pytest.param("topic", "Readers", {**SHOP, "topic": "legacy"}, 0, id="a topic that its reader has left"),
        pytest.param(
            "topic", "Worst reader's age of objective", {**SHOP, "topic": "clicks"}, 2 * RETURNS_BEHIND / 160 / 300,
            id="worst reader",
        ),
        pytest.param(
            "topic", "Most unread of what is held", {**SHOP, "topic": "orders"}, 20 * SECONDS / HELD, id="most unread"
        ),
        pytest.param("spark", "Slowest batch of trigger interval", {}, SLOW_BATCH / 10, id="slowest batch"),
        pytest.param("spark", "Longest batch in flight", {}, 3, id="in flight"),
        pytest.param("spark", "Longest since a commit", {}, 3 + ASKED_LATER, id="since a commit"),
        pytest.param("monitor", "Since a complete look", {}, ASKED_LATER / INTERVAL, id="since a complete look"),
        pytest.param("monitor", "Series left out", {}, 0, id="series left out"),
        # Of 9 + 9 + 12 + 12 + 6 + 3 + 3 + 4 of the groups, 4 + 6 of Spark and 2 in the lab; the three are mailer's.
        pytest.param("monitor", "Partitions unknown", {}, 3 / 70, id="share of partitions unknown"),
    ],
)  # fmt: skip
def test_the_number_is_what_was_played(uid, title, chosen, number, address):
    """Each number at the top of a board, for one choice or all."""
    assert ([] if number is None else [pytest.approx(number, rel=1e-3)]) == shown(address, uid, title, chosen)


def shown(address, uid, title, chosen):
    """The numbers that a panel shows half a second after the last cycle."""
    board = next(each.json() for each in BOARDS if each.uid == f"streamgauge-{uid}")
    (panel,) = [each for each in panels_of(board) if each["title"] == title]
    expression = filled(panel["targets"][0]["expr"], board, chosen, span="300s", rate="1m")
    answers = asked(address, "/api/v1/query", query=expression, time=START + SECONDS + ASKED_LATER)["result"]
    return [float(each["value"][1]) for each in answers]


# --- while a broker is away ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_outage(tmp_path_factory):
    """Prometheus has seen the leader of every partition 0 of the shop go away two and a half minutes ago."""
    with remembering(tmp_path_factory.mktemp("outage"), played_samples(CYCLES, out=(20, CYCLES))) as where:
        yield where


@pytest.mark.parametrize(
    ("uid", "title", "chosen", "numbers"),
    [
        pytest.param("consumer", "Records to read", {**SHOP, "consumer": "returns-desk"}, [], id="lag is unknown"),
        pytest.param("consumer", "Age", {**SHOP, "consumer": "returns-desk"}, [], id="age is unknown"),
        pytest.param("consumer", "Caught up in", {**SHOP, "consumer": "returns-desk"}, [], id="nothing is foretold"),
        pytest.param("consumer", "Partitions unknown", {**SHOP, "consumer": "returns-desk"}, [1.0], id="and says so"),
        pytest.param("topic", "Records held", {**SHOP, "topic": "orders"}, [], id="not the sum of what is known"),
        pytest.param(
            "topic", "Worst reader's age of objective", {**SHOP, "topic": "clicks"}, [], id="nor the largest of it"
        ),
        # All groups of the shop, mailer and secret among them; Spark queries know their own positions but not the ends.
        pytest.param("overview", "Age unknown", {"cluster": "shop"}, [11.0], id="unknown is counted"),
        pytest.param("overview", "Age unknown", {"cluster": "lab"}, [0.0], id="another cluster is fine"),
        pytest.param("overview", "Over objective", {"cluster": "shop"}, [], id="nobody is said to be in time"),
    ],
)
def test_what_cannot_be_known_is_not_shown(uid, title, chosen, numbers, in_outage):
    """A dead broker never makes a lag fall on a board: totals of which a part is unknown are unknown."""
    assert numbers == shown(in_outage, uid, title, chosen)
