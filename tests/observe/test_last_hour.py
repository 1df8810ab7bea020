"""The last hour from rollups: which windows count, and how much each."""

from monitor.model import Consumer, Failure, Kind, LastHour
from monitor.observe.kafka.record_batches import Record
from monitor.observe.kafka.topic_tail import Read
from monitor.observe.rollups import RollupSource
from monitor.records import Rollup
from monitor.settings import Cluster

NOW = 1_795_000_020.0  # the beginning of a minute
BILLING = Consumer(Kind.GROUP, "billing")


def minute(ago, *, cluster="default", name="billing", size=60, final=True, known=6, **figures):
    """Make the rollup of the minute that began so many minutes ago."""
    given = {
        "lag_records_max": 8,
        "lag_records_mean": 4.0,
        "lag_seconds_max": 2.0,
        "lag_seconds_mean": 1.0,
        "records_in_per_second": 10.0,
        "records_out_per_second": 9.0,
        "within_objective": 1.0,
    }
    given |= figures
    return Rollup(
        cluster, "group", name, size, int(NOW) - 60 * ago, final, 6,
        lag_records_known=known, lag_seconds_known=known, objective_known=known, **given,
    )  # fmt: skip


class Topic:
    """A topic that is read in pieces."""

    def __init__(self, *pieces):
        self._pieces = list(pieces)

    async def read(self):
        records = [Record(0, 0, None, each if each is None or isinstance(each, bytes) else each.to_json())
                   for each in self._pieces.pop(0)]  # fmt: skip
        return Read(records)

    async def close(self):
        pass


def source(*pieces, now=NOW):
    clock = [now]
    made = RollupSource(Cluster(bootstrap_servers="127.0.0.1:1"), tail=Topic(*pieces), clock=lambda: clock[0])
    return made, clock


async def test_windows_that_end_within_the_hour_count_by_what_they_knew():
    """The maximum of maxima, the means by their samples; what a window did not know does not count as zero."""
    made, _ = source(
        [
            minute(61, lag_records_max=999),
            minute(60, lag_records_max=7, lag_records_mean=1.0, known=2),
            minute(1, lag_records_max=5, lag_records_mean=5.0, known=6, within_objective=0.5),
            minute(2, lag_records_max=None, lag_records_mean=None, lag_seconds_max=None, lag_seconds_mean=None,
                   within_objective=None, known=0),
        ]
    )  # fmt: skip
    hours, failures = await made.look()

    assert {BILLING: LastHour(3, 7, 4.0, 2.0, 1.0, 10.0, 9.0, 0.625)} == hours
    assert () == failures


async def test_more_minutes_than_are_kept_are_a_failure(monkeypatch):
    """What is kept is still replaced by what is known later."""
    monkeypatch.setattr("monitor.observe.rollups.MOST_ROLLUPS", 1)
    made, _ = source([minute(1, lag_records_max=5), minute(2), minute(1, lag_records_max=7)])
    hours, failures = await made.look()

    assert (1, 7) == (hours[BILLING].minutes, hours[BILLING].lag_records_max)
    assert ["1 records are no rollups: more rollups than are kept"] == [each.detail for each in failures]


async def test_a_minute_counts_once_and_is_replaced_by_a_later_record():
    """As when a worker writes it again after a crash."""
    made, _ = source([minute(1), minute(1, lag_records_max=9)], [minute(1, lag_records_max=11)])
    first, _ = await made.look()
    second, _ = await made.look()

    assert (1, 9, 11) == (first[BILLING].minutes, first[BILLING].lag_records_max, second[BILLING].lag_records_max)


async def test_minutes_leave_as_time_goes_by():
    """A consumer without any has no last hour."""
    made, clock = source([minute(1), minute(30)], [], [])
    assert 2 == (await made.look())[0][BILLING].minutes
    clock[0] = NOW + 31 * 60
    assert 1 == (await made.look())[0][BILLING].minutes
    clock[0] = NOW + 60 * 60

    assert {} == (await made.look())[0]


async def test_others_are_passed_over_and_what_is_none_is_told():
    """Longer windows, other clusters, removals; and whatever else is on the topic."""
    made, _ = source([minute(1, size=3600), minute(2, cluster="other"), None, b"{", minute(1)])
    hours, failures = await made.look()

    assert {BILLING: 1} == {who: hour.minutes for who, hour in hours.items()}
    assert (Failure("topic", "streamgauge.rollups", "MALFORMED", "1 records are no rollups: not JSON"),) == failures
