"""A payload from anywhere: every form of a workflow comes to the same, what is taken stays so, and nothing raises."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from emp_orch.jobs.document.workflows import Asked, normalised

IDS = st.sampled_from(["1", "2", "3", "57:12", "workflow", "prompt", "input", "nodes", "extra_data", "a b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz-0123456789", min_size=24, max_size=40)


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    ids = draw(st.lists(IDS, min_size=1, max_size=5, unique=True))
    value = st.integers() | st.text(max_size=9) | st.tuples(st.sampled_from(ids), st.integers(0, 3)).map(list)
    nodes = {}
    for node_id in ids:
        inputs = draw(st.dictionaries(st.text(max_size=6), value, max_size=3))
        nodes[node_id] = {"class_type": draw(st.sampled_from(["KSampler", "SaveImage"])), "inputs": inputs}
    return nodes


def text(value: object) -> str:
    return msgspec.json.encode(value).decode()


@given(workflows(), KEYS, st.booleans())
def test_every_form_comes_to_the_same(flow: dict[str, Any], key: str, partial: bool) -> None:
    one = normalised({"workflow": flow})
    assert isinstance(one, Asked) and one.payload == {"workflow": flow}
    for form in (flow, text(flow), {"prompt": flow}, {"workflow": text(flow)}, text({"prompt": text(flow)})):
        assert normalised(form) == one
    assert normalised({"input": {"workflow": flow}}) == one
    assert normalised({"prompt": flow, "client_id": "x", "extra_data": {}, "partial": False}) == one
    full = {"prompt": flow, "extra_data": {"a": 1, "api_key_comfy_org": key}, "partial": partial}
    made = normalised(full)
    assert isinstance(made, Asked) and made.secrets.values == {"api_key_comfy_org": key}
    assert key not in text(made.payload)
    again = normalised(made.payload)
    assert isinstance(again, Asked) and again.payload == made.payload and not again.secrets


@given(VALUES | st.dictionaries(st.sampled_from(["workflow", "prompt", "input", "extra_data", "partial"]), VALUES))
def test_nothing_raises_and_what_is_taken_stays_so(value: object) -> None:
    made = normalised(value)
    if isinstance(made, list):
        assert made and all(p.startswith(("payload", "and ")) for p in made)
    else:
        assert normalised(made.payload) == made
