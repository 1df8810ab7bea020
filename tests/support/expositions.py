"""Reports of a cluster that is observed again and again, and an exposition read back by prometheus_client's parser."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from snapshots import group, kafka_snapshot

from monitor.derive.history import History
from monitor.derive.report import derive, observe
from monitor.model import ClusterReport, GroupFacts, Member, Report, TopicPartition, Why
from monitor.settings import ConsumerLevel, Metrics

EVERYTHING = {"committed_offset": True, "lag_seconds_bound": True, "lost_records": True, "owner_info": True}
"""The opt-in metrics."""


class Cluster:
    """A cluster that is observed again and again, so that its layouts keep their identity."""

    def __init__(self, name: str = "default") -> None:
        self.name = name
        self.history = History()

    def report(self, ends, commits, sparks=None, **kw) -> ClusterReport:
        snapshot = replace(kafka_snapshot(ends, commits, **kw), cluster=self.name)
        return derive(observe(snapshot, sparks, self.history), self.history, lambda _: 300.0)


def whole(*clusters: ClusterReport) -> Report:
    return Report(max(each.at for each in clusters), clusters)


def read(text: bytes) -> dict[tuple[str, frozenset], float]:
    """Return every sample of an answer by name and labels; no series may come twice."""
    samples = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    ]
    found = dict(samples)
    assert len(found) == len(samples), "a series twice"
    return found


def ours(text: bytes) -> dict[tuple[str, frozenset], float]:
    """Return the samples about clusters: neither the process's own nor the counts of series."""
    return {key: value for key, value in read(text).items() if dict(key[1]).get("cluster") is not None}


def values(text: bytes, name: str) -> list[float]:
    return [value for (each, _), value in read(text).items() if each == name]


# --- any cycles -------------------------------------------------------------------------------------

NAMES = st.text(st.sampled_from('ab \\"\n\t\r\0\x85\u2028{}=,#é漢💡'), min_size=1, max_size=6)
LEVELS = ("position", "topic", "consumer")
OFFSETS = st.integers(0, 2**40)
REASONS = st.sampled_from([Why.TIMEOUT, Why.NO_LEADER])


@st.composite
def owners(draw, keys):
    """Members of a group with partitions; a broker may well tell one twice."""
    owned = st.lists(st.sampled_from(keys).map(lambda key: TopicPartition(*key)), max_size=3).map(tuple)
    name = st.sampled_from(["m1", 'm"2\\'])
    return tuple(draw(st.lists(st.builds(Member, name, NAMES, NAMES, assigned=owned), max_size=2)))


@st.composite
def metrics(draw, **fields):
    """Settings of any level, everything on, without caps but those given."""
    pattern = st.sampled_from(["*", "a*", "?", "*b"]) | NAMES
    levels = st.lists(st.builds(ConsumerLevel, consumer=pattern, level=st.sampled_from(LEVELS)), max_size=3).map(tuple)
    return Metrics(level=draw(st.sampled_from(LEVELS)), levels=draw(levels), **EVERYTHING, **fields)


@st.composite
def cycles(draw, reasons=REASONS):
    """A few cycles of a cluster: values and reasons change always, rows now and then; without reasons all is known."""
    topics = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    groups = draw(st.lists(NAMES, max_size=3, unique=True))
    keys = [(topic, partition) for topic in topics for partition in (0, 1, 12)]
    told, at = [], 1000.0

    def commit(end):
        return st.integers(0, end[1]) if reasons.is_empty else OFFSETS | reasons | st.just(Why.NO_COMMIT)

    for cycle in range(draw(st.integers(1, 4))):
        at += draw(st.sampled_from([1.0, 70.0]))
        rows = draw(st.sets(st.sampled_from(keys), min_size=1)) if draw(st.booleans()) else set(keys)
        ends = {key: draw(reasons | st.tuples(OFFSETS, OFFSETS).map(lambda pair: tuple(sorted(pair)))) for key in rows}
        commits, facts = {}, {}
        for name in groups:
            if draw(st.booleans()) or cycle == 0:
                commits[name] = {key: draw(commit(ends[key])) for key in sorted(rows)}
            else:
                commits[name] = {}
            facts[name] = GroupFacts(
                group(name),
                state=draw(st.sampled_from(["Stable", "Empty", "Assigning", "Levitating", None])),
                protocol=draw(st.sampled_from(["classic", "consumer", None])),
                members=draw(st.none() | st.integers(0, 3)),
                why=0 if commits[name] else draw(st.sampled_from([0, 30])),
                owners=draw(owners(sorted(rows))),
            )
        told.append({"ends": ends, "commits": commits, "states": facts, "up": draw(st.booleans()), "at": at})
    return told


@st.composite
def crowded_cycles(draw):
    """A few cycles of three groups on two topics of four partitions: many lags, some unknown, some beyond deletion."""
    random = draw(st.randoms(use_true_random=True))  # spread out: hypothesis would have most lags 0
    unknown = draw(st.sampled_from([0.0, 0.1]))
    keys = [(topic, partition) for topic in ("s", "t") for partition in range(4)]
    told, at = [], 1000.0

    def commit(end):
        lag = random.choice([0, 1, 5, random.randrange(100), random.randrange(10_000)])
        return Why.NO_COMMIT if random.random() < unknown else end - lag

    for _ in range(random.randint(1, 4)):
        at += random.choice([1.0, 70.0])
        ends = {key: (random.choice([0, 9_000]), 10_000 + random.randrange(10)) for key in keys}
        groups = random.sample("abc", random.randint(1, 3))
        commits = {
            name: {key: commit(ends[key][1]) for key in keys if random.random() < 0.9} for name in sorted(groups)
        }
        told.append({"ends": ends, "commits": commits, "at": at})
    return told
