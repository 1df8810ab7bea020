"""What only a listener tells of batches, counted: phases and rows out, once each, however late it comes."""

from monitor.derive.spark import SparkMemory
from monitor.model import Consumer, Kind, SparkBatch, SparkQuery


def batch(number, rows=None, **phases):
    return SparkBatch(number, 100.0 * number, 100.0 * number + 1, 1.0, 10, output_rows=rows, phases=phases or None)


def query(*batches):
    return SparkQuery(Consumer(Kind.SPARK, "q"), "id", "/c/q", 0.0, {}, {}, batches[-1].batch_id, batches)


def memory():
    """Return what is kept of a query that was first seen after batch 1."""
    return SparkMemory(query(batch(1, 7, addBatch=9.0)), counted_to=1)


def told(memory):
    facts = memory.facts(1000.0)
    return facts.output_rows_total, facts.phase_seconds_total


def test_without_a_listener_nothing_is_known():
    """Unknown is not zero."""
    known = memory()
    known.see(query(batch(1), batch(2)))

    assert (None, {}) == told(known)
    assert 1 == known.facts(1000.0).batches_total


def test_phases_and_rows_of_new_batches_are_summed_once():
    """Those of before the first look are history; a look that brings nothing new counts nothing."""
    known = memory()
    for _ in range(2):
        known.see(query(batch(1, 7, addBatch=9.0), batch(2, 5, addBatch=1.0, walCommit=0.5), batch(3, 4, addBatch=2.0)))

    assert (9, {"addBatch": 3.0, "walCommit": 0.5}) == told(known)


def test_what_comes_a_look_later_than_its_batch_counts():
    """The checkpoint shows a batch before the listener's event has been read."""
    known = memory()
    known.see(query(batch(1), batch(2)))
    known.see(query(batch(1), batch(2, 5, addBatch=1.0), batch(3)))
    known.see(query(batch(1), batch(2, 5, addBatch=1.0), batch(3, 0, addBatch=2.0)))

    assert (5, {"addBatch": 3.0}) == told(known)
