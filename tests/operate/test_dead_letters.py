"""Dead letters on a real Kafka and as values: which are listed, where they go, and that none is lost or sent twice."""

import json
import uuid

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from kafka_feed import PATIENCE_SECONDS, consume, create_topics

from monitor.cli.main import streamgauge
from monitor.operate.dead_letters import REPLAYED, Letter, Place, Wanted, marked, plan


def headers(topic="orders", partition=1, offset=7, error="map: KeyError: 'x'", own=()):
    facts = {"topic": topic, "partition": partition, "offset": offset, "error": error}
    return (*own, *((f"streamgauge.{name}", str(value).encode()) for name, value in facts.items()))


def letter(value=b"{}", key=b"k", given=None):
    return Letter(Place("orders-dlq", 0, 3), 1.5, key, value, headers() if given is None else given)


def test_a_letter_says_where_it_came_from_and_is_sent_as_it_came():
    """Of a record that was a letter before, the last facts count; headers of its own stay."""
    own = (("trace", b"1"), *headers("early", 0, 1, "decode: old"))
    made = letter(given=headers(own=own))

    assert (Place("orders", 1, 7), "map: KeyError: 'x'") == (made.origin, made.error)
    assert (("trace", b"1"),) == made.as_it_came


def test_a_letter_of_the_readings_app_is_understood():
    """Its headers have no prefix."""
    given = (("reason", b"not JSON"), ("topic", b"readings"), ("partition", b"2"), ("offset", b"9"), ("trace", b"1"))
    made = letter(given=given)

    assert (Place("readings", 2, 9), "not JSON") == (made.origin, made.error)
    assert (("trace", b"1"),) == made.as_it_came


RESULT = json.dumps({"key": "k", "start": 0, "end": 60, "value": 3, "final": True, "partial": False}).encode()


@pytest.mark.parametrize(
    ("made", "to", "target", "why"),
    [
        pytest.param(letter(), None, Place("orders", 1), "", id="back to its partition"),
        pytest.param(
            letter(given=headers(partition=4)), None, Place("orders", -1), "", id="a partition there is no more"
        ),
        pytest.param(letter(given=()), None, None, "where it came from", id="it does not say"),
        pytest.param(letter(given=headers("gone")), None, None, "no topic gone", id="its topic is gone"),
        pytest.param(letter(RESULT), None, None, "result", id="a window's result"),
        pytest.param(letter(given=headers("j-by-key-repartition")), None, None, "passed over", id="behind key_by"),
        pytest.param(letter(RESULT, given=()), "other", Place("other", -1), "", id="anywhere, if it is asked for"),
        pytest.param(
            letter(None, None, (*headers(), ("streamgauge.left_out", b"key and value"))),
            "other",
            None,
            "too large",
            id="nothing is left to be sent",
        ),
    ],
)
def test_where_a_letter_goes(made, to, target, why):
    """Back to where it came from, unless it would do harm there or vanish."""
    (step,) = plan([made], {"orders": 2, "other": 1, "j-by-key-repartition": 2}, to)

    assert target == step.target
    assert why in step.why
    assert bool(step.why) is (target is None)


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        pytest.param(Wanted(), True, id="all"),
        pytest.param(Wanted(error="keyerror"), True, id="by its error"),
        pytest.param(Wanted(error="ValueError"), False, id="not by another"),
        pytest.param(Wanted(origin="orders"), True, id="by its topic"),
        pytest.param(Wanted(origin="order"), False, id="whole names"),
        pytest.param(Wanted(key="k"), True, id="by its key"),
        pytest.param(Wanted(key="other", error="map"), False, id="all conditions"),
    ],
)
def test_which_letters_are_meant(wanted, takes):
    """Whether or not they have been replayed."""
    assert takes is wanted.takes(letter())


@pytest.mark.parametrize("value", [None, b"", b"{", b"[1]", b'{"a": [1]}', b'{"0": 1}', b"null"])
def test_a_mark_that_is_none_names_nothing(value):
    """Anybody may write to the topic."""
    assert {} == marked(value)


def run(bootstrap, *arguments):
    """Run a dlq command; return exit code, what it printed as JSON, and stderr."""
    ended = CliRunner().invoke(streamgauge, ["dlq", *arguments, "--bootstrap-servers", bootstrap, "-o", "json"])
    return ended.exit_code, json.loads(ended.stdout) if ended.stdout else None, ended.stderr


@pytest.mark.integration
def test_letters_are_sent_back_once_and_stay_where_they_are(kafka):
    """In pieces, by error, and what cannot be sent back is told each time; nothing is written without --apply."""
    source = f"orders-{uuid.uuid4().hex[:8]}"
    letters = f"{source}-dlq"
    create_topics(kafka.bootstrap, {source: 1, letters: 1})
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(6):
        error = "decode: ValueError: odd" if number % 2 else "map: KeyError: even"
        given = headers(source, 0, number, error, own=(("trace", b"%d" % number),))
        producer.produce(letters, f"v{number}".encode(), f"k{number}".encode(), headers=list(given))
    producer.produce(letters, b"lost", b"k6", headers=[("streamgauge.error", b"map: who knows")])
    assert 0 == producer.flush(PATIENCE_SECONDS)

    code, listed, _ = run(kafka.bootstrap, "list", letters, "--error", "keyerror", "--limit", "2")
    assert (0, [0, 2]) == (code, [each["offset"] for each in listed])
    assert (source, 0, 2, "k2", "v2") == tuple(
        listed[1][name] for name in ("from_topic", "from_partition", "from_offset", "key", "value")
    )
    code, planned, said = run(kafka.bootstrap, "replay", letters)
    assert (1, ["would be sent"] * 6) == (code, [each["result"] for each in planned[:6]])
    assert "add --apply" in said
    assert [] == consume(kafka.bootstrap, source)

    code, _, _ = run(kafka.bootstrap, "replay", letters, "--error", "odd", "--limit", "2", "--apply")
    assert 1 == code  # the third is left
    code, _, _ = run(kafka.bootstrap, "replay", letters, "--error", "odd", "--apply")
    assert 0 == code
    code, rest, _ = run(kafka.bootstrap, "replay", letters, "--apply")
    assert (1, "stays: it does not say where it came from: name a topic with --to") == (code, rest[-1]["result"])
    came = consume(kafka.bootstrap, source)

    assert [f"v{number}".encode() for number in (1, 3, 5, 0, 2, 4)] == [each.value() for each in came]
    assert [("k1", [("trace", b"1")])] == [(each.key().decode(), each.headers()) for each in came[:1]]
    assert (1, ["lost"]) == ((code := run(kafka.bootstrap, "replay", letters, "--apply"))[0], [code[1][0]["value"]])
    assert 6 == len(consume(kafka.bootstrap, source))
    kept = [each for each in consume(kafka.bootstrap, letters) if REPLAYED not in dict(each.headers())]
    assert [*(f"v{number}".encode() for number in range(6)), b"lost"] == [each.value() for each in kept]
    code, again, _ = run(kafka.bootstrap, "list", letters, "--again")
    assert (0, 7) == (code, len(again))


@pytest.mark.integration
def test_a_topic_that_is_not_there_is_wrong_usage_and_is_not_made(kafka):
    """One line that says so."""
    name = f"absent-{uuid.uuid4().hex[:8]}"
    code, _, said = run(kafka.bootstrap, "list", name)
    present = Producer({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=PATIENCE_SECONDS).topics

    assert (2, True, 1) == (code, f"{name}: there is no such topic" in said, len(said.splitlines()))
    assert name not in present


def test_no_kafka_is_one_line_and_exit_3():
    """Nobody listens there."""
    code, _, said = run("127.0.0.1:1", "replay", "t-dlq")

    assert (3, 1) == (code, len(said.splitlines()))


@pytest.mark.integration
def test_a_letter_that_the_brokers_refuse_stays_to_be_replayed(kafka):
    """Here one that is too large for its topic; those beside it are sent, and only they are noted."""
    source = f"small-{uuid.uuid4().hex[:8]}"
    letters = f"{source}-dlq"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    made = [NewTopic(source, 1, 1, config={"max.message.bytes": "1000"}), NewTopic(letters, 1, 1)]
    for created in admin.create_topics(made).values():
        created.result(PATIENCE_SECONDS)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for value in (b"first", b"x" * 5000, b"last"):
        producer.produce(letters, value, headers=list(headers(source, 0, 1)))
    assert 0 == producer.flush(PATIENCE_SECONDS)
    code, told, said = run(kafka.bootstrap, "replay", letters, "--apply")
    _, left, _ = run(kafka.bootstrap, "list", letters)

    assert [1, "sent", "sent"] == [code, told[0]["result"], told[2]["result"]]
    assert [1] == [each["offset"] for each in left]
    assert told[1]["result"].startswith("failed: MessageSizeTooLargeError")
    assert f"streamgauge: {letters} 0/1: MessageSizeTooLargeError" in said
    assert [b"first", b"last"] == [each.value() for each in consume(kafka.bootstrap, source)]
