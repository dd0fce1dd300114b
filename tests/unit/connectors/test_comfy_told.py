"""A run's record, where its messages alone make it whole."""

from __future__ import annotations

from typing import Any

import pytest

from emp_orch.connectors.comfyui.run.record import Told
from emp_orch.connectors.comfyui.server.protocol import Message, Record

WORKFLOW = {"1": {"class_type": "EmptyImage"}, "2": {"class_type": "SaveImage"}}
IMAGES = {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}

START = Message("execution_start")
NONE_CACHED = Message("execution_cached", {"nodes": []})
SUCCESS = Message("execution_success")


def executed(node: Any, output: Any) -> Message:
    return Message("executed", {"node": node, "output": output})


def told(*messages: Message) -> Record | None:
    run = Told(WORKFLOW)
    found = [run.take(message) for message in messages]
    assert not any(found[:-1]), "only the last makes it whole"
    return found[-1]


def test_what_was_executed_is_its_record() -> None:
    record = told(START, NONE_CACHED, executed("2", IMAGES), Message("status"), SUCCESS)
    assert record is not None and record.outputs == {"2": IMAGES}
    assert record.status is not None and record.status.completed and not record.cached()


def test_a_run_that_gives_nothing_has_an_empty_record() -> None:
    record = told(START, NONE_CACHED, SUCCESS)
    assert record is not None and record.outputs == {}


@pytest.mark.parametrize(
    "messages",
    [
        (NONE_CACHED, executed("2", IMAGES), SUCCESS),  # it had begun before anybody listened
        (START, Message("execution_cached", {"nodes": ["1"]}), executed("2", IMAGES), SUCCESS),
        (START, Message("execution_cached", {}), executed("2", IMAGES), SUCCESS),
        (START, NONE_CACHED, executed("2.0.1", IMAGES), SUCCESS),
        (START, NONE_CACHED, executed("2", None), SUCCESS),
        (START, NONE_CACHED, executed(None, IMAGES), SUCCESS),
        (START, NONE_CACHED, executed("2", IMAGES), Message("executing", {"node": None})),
        (START, NONE_CACHED, executed("2", IMAGES), Message("execution_error")),
        (START, NONE_CACHED, executed("2", IMAGES), Message("execution_interrupted")),
    ],
)
def test_where_that_is_not_whole_the_history_says_it(messages: tuple[Message, ...]) -> None:
    assert told(*messages) is None
