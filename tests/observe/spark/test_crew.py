"""Threads for calls that may hang: never the same twice at once, never more than so many, and nobody waits for them."""

import asyncio
import threading

import pytest

from monitor.observe.spark.crew import Crew


class Door:
    """A call that hangs until it is opened, and counts how often it was made."""

    def __init__(self, answer="late"):
        self.calls, self.answer = 0, answer
        self.is_open = threading.Event()
        self.left = threading.Event()

    def __call__(self):
        self.calls += 1
        self.is_open.wait()
        self.left.set()
        return self.answer


@pytest.fixture
def door():
    each = Door()
    yield each
    each.is_open.set()


async def settled(crew):
    while crew._threads:
        await asyncio.sleep(0.001)


async def test_all_answers_come_by_name():
    """More calls than threads."""
    crew = Crew(size=3, at_once=2)

    assert {str(n): n * n for n in range(50)} == await crew.run({str(n): lambda n=n: n * n for n in range(50)}, 30.0)


async def test_nothing_to_do_is_done_at_once():
    """No call, no wait."""
    assert {} == await Crew(size=1, at_once=1).run({}, 30.0)


async def test_a_call_that_hangs_takes_only_its_own_thread_along(door):
    """One thread was thought to be enough; when nothing comes another does the rest."""
    crew = Crew(size=4, at_once=1)
    jobs = {"hangs": door, **{str(n): lambda n=n: n for n in range(20)}}

    assert {str(n): n for n in range(20)} == await crew.run(jobs, 1.0)


async def test_a_call_that_hangs_is_not_made_again_and_its_late_answer_counts(door):
    """It is busy; once it has answered, that is the next answer, and the one after is made anew."""
    crew = Crew(size=2, at_once=1)
    assert {} == await crew.run({"hangs": door}, 0.02)
    assert {} == await crew.run({"hangs": door}, 0.02)
    door.is_open.set()
    await settled(crew)

    assert {"hangs": "late"} == await crew.run({"hangs": lambda: "new"}, 30.0)
    assert {"hangs": "new"} == await crew.run({"hangs": lambda: "new"}, 30.0)
    assert 1 == door.calls


async def test_a_late_answer_that_nobody_asks_for_any_more_is_dropped(door):
    """Its checkpoint is gone meanwhile: nothing of it is kept."""
    crew = Crew(size=2, at_once=1)
    await crew.run({"hangs": door}, 0.02)
    door.is_open.set()
    await settled(crew)

    assert {"other": 1} == await crew.run({"other": lambda: 1}, 30.0)
    assert {"hangs": "new"} == await crew.run({"hangs": lambda: "new"}, 30.0)


async def test_hanging_threads_count_against_the_size(door):
    """Where all of them hang nothing is begun: a file system that is away makes no thousand threads."""
    crew, other = Crew(size=2, at_once=2), Door()
    await crew.run({"a": door, "b": other}, 0.02)
    made = []
    seen = await crew.run({"c": lambda: made.append(1)}, 0.05)
    other.is_open.set()
    door.is_open.set()
    await settled(crew)

    assert ({}, [], 0) == (seen, made, crew._threads)


async def test_what_has_not_begun_in_time_is_never_made(door):
    """The next run makes it; a thread that comes back late goes home."""
    crew, made = Crew(size=1, at_once=1), []
    await crew.run({"hangs": door, "after": lambda: made.append("old")}, 0.02)
    door.is_open.set()
    await settled(crew)

    assert [] == made


async def test_a_fault_is_raised_where_it_is_waited_for():
    """What a call was not meant to raise is a fault of ours and told as one."""
    with pytest.raises(ZeroDivisionError):
        await Crew(size=1, at_once=1).run({"a": lambda: 1 // 0}, 30.0)


def test_an_answer_after_the_loop_has_ended_harms_nobody(door):
    """The command is over while a file system still hangs."""
    crew = Crew(size=1, at_once=1)
    asyncio.run(crew.run({"hangs": door}, 0.02))
    door.is_open.set()
    assert door.left.wait(30.0)
    asyncio.run(settled(crew))

    assert {"hangs": "late"} == asyncio.run(crew.run({"hangs": door}, 30.0))
