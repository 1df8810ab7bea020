"""Getting to an address step by step: what each refusal is called, and how often somebody silent is asked."""

import asyncio
import socket
import threading

import pytest

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka import cold
from monitor.observe.kafka.transport import Address
from monitor.operate.reach import Asker, ReachError, in_thread, reach

HERE = Address("127.0.0.1", 1)


class Silent:
    """A transport to a broker that accepts connections and never says a word."""

    def __init__(self):
        self.asked = 0
        self.dropped = 0

    async def versions(self, address):
        self.asked += 1
        await asyncio.Event().wait()

    def drop(self, address):
        self.dropped += 1


async def test_a_silent_broker_is_waited_for_once():
    """Several who ask at the same time wait one timeout in all, and each is told."""
    transport = Silent()
    asker = Asker(transport, 0.05)
    answers = await asyncio.gather(*(cold.describe_topics(asker, HERE) for _ in range(4)), return_exceptions=True)

    assert [Why.TIMEOUT] * 4 == [answer.why for answer in answers if isinstance(answer, TransportError)]
    assert (1, 1) == (transport.asked, transport.dropped)


async def test_a_port_that_accepts_is_reached():
    """By a number or by a name, at whatever of its addresses answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]

        assert ("127.0.0.1",) == (await reach(Address("127.0.0.1", port), 5)).answering
        assert "127.0.0.1" in (await reach(Address("localhost", port), 5)).answering


@pytest.mark.parametrize(
    ("address", "text"),
    [
        pytest.param(HERE, "127.0.0.1:1 refuses connections: nothing listens there", id="refused"),
        pytest.param(Address("kafka.invalid", 1), "the name kafka.invalid does not resolve", id="no such name"),
        pytest.param(Address("a" * 70 + ".example", 1), "does not resolve", id="no host name at all"),
    ],
)
async def test_what_cannot_be_reached_has_its_reason(address, text):
    """Refused and not resolved are different things to mend."""
    with pytest.raises(ReachError, match=text) as caught:
        await reach(address, 5)

    assert caught.value.advice


async def test_what_blocks_is_left_behind():
    """A thread that hangs keeps neither who waited for it nor the program from ending."""
    released = threading.Event()
    waiting = asyncio.create_task(in_thread(released.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    left = [each for each in threading.enumerate() if each.name == "streamgauge doctor"]
    released.set()

    assert [True] * len(left) == [each.daemon for each in left]
    assert left


async def test_what_fails_beside_the_loop_is_raised_where_it_is_awaited():
    """The error comes as it is, and the result as well."""

    def fail():
        raise OSError(5, "Input/output error")

    assert 3 == await in_thread(lambda: 3)
    with pytest.raises(OSError, match="Input/output error"):
        await in_thread(fail)
