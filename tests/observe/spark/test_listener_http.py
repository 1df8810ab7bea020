"""Events by HTTP: what is taken, what is refused, and that nothing fills the memory."""

import aiohttp
import pytest

from monitor.errors import UnreachableError
from monitor.observe.spark import listener_http
from monitor.observe.spark.listener_http import Inbox


@pytest.fixture
async def post():
    """Give a function that starts an inbox with a token and posts to it; it returns the inbox and the status."""
    started = []

    async def do(*bodies, token=None, **headers):
        inbox = Inbox(token)
        started.append(inbox)
        url = await inbox.start("127.0.0.1", 0)
        statuses = []
        async with aiohttp.ClientSession() as session:
            for body in bodies:
                async with session.post(url + "any/path", data=body, headers=headers) as answer:
                    statuses.append(answer.status)
        return inbox, statuses

    yield do
    for inbox in started:
        await inbox.stop()


async def test_lines_are_taken_once(post):
    """Several a request, whatever the path; blank ones are none."""
    inbox, statuses = await post(b'{"a":1}\n\n{"a":2}\n', b'{"a":3}')

    assert [204, 204] == statuses
    assert [b'{"a":1}', b'{"a":2}', b'{"a":3}'] == inbox.take()
    assert [] == inbox.take()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"Authorization": "Bearer wrong"}, 401), ({"Authorization": "Bearer secret"}, 204)],
    ids=["none", "wrong", "right"],
)
async def test_with_a_token_only_who_has_it_is_heard(post, headers, status):
    """Nothing of the others is kept."""
    inbox, statuses = await post(b"{}", token="secret", **headers)

    assert [status] == statuses
    assert [b"{}"] * (status == 204) == inbox.take()


async def test_a_request_that_is_too_large_is_refused(post, monkeypatch):
    """It is not read to its end."""
    monkeypatch.setattr(listener_http, "LARGEST_REQUEST", 1000)
    inbox, statuses = await post(b"x" * 5000)

    assert [413] == statuses
    assert [] == inbox.take()


async def test_what_waits_is_bounded(post, monkeypatch):
    """The oldest go, and are counted: by number, and by bytes."""
    monkeypatch.setattr(listener_http, "MOST_MESSAGES", 3)
    monkeypatch.setattr(listener_http, "MOST_BYTES", 10)
    inbox, _ = await post(b"\n".join(b"%d" % number for number in range(9)), b"123456789")

    assert [b"8", b"123456789"] == inbox.take()
    assert 8 == inbox.dropped


async def test_an_address_that_is_taken_is_one_line():
    """It says what to change."""
    first, second = Inbox(), Inbox()
    port = int((await first.start("127.0.0.1", 0)).rsplit(":", 1)[1].strip("/"))
    with pytest.raises(
        UnreachableError, match=rf"cannot listen for Spark's events on 127.0.0.1:{port}: .*choose another"
    ):
        await second.start("127.0.0.1", port)
    await first.stop()
