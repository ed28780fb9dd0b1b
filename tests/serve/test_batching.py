"""The model's thread: what is asked together, what waits, what is refused, what an error costs, and how it ends."""

import asyncio
import threading
import time
from dataclasses import dataclass

import pytest

from curricle.serve.batching import Batcher, Busy, Closed
from curricle.serve.limits import Limits


@dataclass(frozen=True)
class Asked:
    texts: tuple[str, ...]


class Slow:
    """Answers with each question's texts, once it is let go; one that holds ``bad`` is an error."""

    def __init__(self):
        self.go, self.began, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, questions):
        self.batches.append([text for question in questions for text in question.texts])
        self.began.set()
        self.go.wait(10)
        if any("bad" in question.texts for question in questions):
            raise ValueError("bad")
        return [list(question.texts) for question in questions]


async def several(batcher, slow, *questions):
    """The outcomes of a first question, and of others that came while it was answered."""
    first = asyncio.create_task(batcher.ask(Asked(("first",))))
    await asyncio.to_thread(slow.began.wait, 10)
    tasks = [asyncio.create_task(batcher.ask(Asked(texts))) for texts in questions]
    await asyncio.sleep(0.05)
    slow.go.set()
    return await asyncio.gather(first, *tasks, return_exceptions=True)


def test_what_came_meanwhile_is_one_batch_up_to_its_size():
    slow = Slow()
    batcher = Batcher(slow, Limits(batch=3))
    told = asyncio.run(several(batcher, slow, ("a",), ("b", "c"), ("d",), ("e", "f", "g", "h")))
    assert told[1:] == [["a"], ["b", "c"], ["d"], ["e", "f", "g", "h"]]
    assert slow.batches == [["first"], ["a", "b", "c"], ["d"], ["e", "f", "g", "h"]], "one that is larger goes alone"
    batcher.close()


def test_with_more_than_may_wait_the_next_is_refused_and_the_others_are_answered():
    slow = Slow()
    batcher = Batcher(slow, Limits(waiting=3))
    *told, refused = asyncio.run(several(batcher, slow, ("a", "b"), ("c",), ("d",)))
    assert isinstance(refused, Busy) and told == [["first"], ["a", "b"], ["c"]] and batcher.waiting == 0
    batcher.close()


def test_an_error_costs_the_question_that_it_was_made_by_and_no_other():
    slow = Slow()
    batcher = Batcher(slow, Limits())
    told = asyncio.run(several(batcher, slow, ("a",), ("bad",), ("c",)))
    assert told[1] == ["a"] and isinstance(told[2], ValueError) and told[3] == ["c"]
    batcher.close()


def test_a_question_that_nobody_waits_for_any_more_is_not_asked():
    slow = Slow()
    batcher = Batcher(slow, Limits())

    async def run():
        first = asyncio.create_task(batcher.ask(Asked(("first",))))
        await asyncio.to_thread(slow.began.wait, 10)
        gone = asyncio.create_task(batcher.ask(Asked(("gone",))))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        slow.go.set()
        await first

    asyncio.run(run())
    batcher.close()
    assert slow.batches == [["first"]]


def test_patient_work_goes_between_and_is_not_starved():
    slow, order = Slow(), []
    batcher = Batcher(slow, Limits(batch=1, patience=2))
    threading.Thread(target=lambda: order.append(batcher.run(lambda: len(slow.batches))), daemon=True).start()
    while not order:
        time.sleep(0.01)
    assert order == [0], "with no question it goes at once"

    async def run():
        task = asyncio.create_task(several(batcher, slow, *[(str(i),) for i in range(6)]))
        await asyncio.to_thread(slow.began.wait, 10)
        threading.Thread(target=lambda: order.append(batcher.run(lambda: len(slow.batches))), daemon=True).start()
        await task

    asyncio.run(run())
    batcher.close()
    assert 1 <= order[1] <= 4, "after two batches, though more questions wait"


def test_at_its_end_what_waits_is_answered_and_nothing_new_is_taken():
    slow = Slow()
    batcher = Batcher(slow, Limits())

    async def run():
        first = asyncio.create_task(batcher.ask(Asked(("first",))))
        await asyncio.to_thread(slow.began.wait, 10)
        second = asyncio.create_task(batcher.ask(Asked(("second",))))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        while batcher.ready:
            await asyncio.sleep(0.01)
        with pytest.raises(Closed):
            await batcher.ask(Asked(("third",)))
        slow.go.set()
        return await asyncio.gather(first, second, closing)

    assert asyncio.run(run())[:2] == [["first"], ["second"]]
    with pytest.raises(Closed):
        batcher.run(lambda: None)


def test_a_batch_that_does_not_end_is_seen():
    slow = Slow()
    batcher = Batcher(slow, Limits(stuck=0.05))
    assert batcher.healthy

    async def run():
        task = asyncio.create_task(batcher.ask(Asked(("first",))))
        await asyncio.to_thread(slow.began.wait, 10)
        await asyncio.sleep(0.1)
        stuck = not batcher.healthy
        slow.go.set()
        await task
        return stuck

    assert asyncio.run(run())
    batcher.close()
    assert not batcher.healthy, "its thread has ended"
