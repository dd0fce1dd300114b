"""What a workflow needs of a service, and who has it."""

from __future__ import annotations

from typing import Any

import pytest

from emp_orch.jobs.document.submission import parse_submission
from emp_orch.jobs.matching.offers import Needs, Offers, digest_of, encoded, is_model, missing, model_key, workflow_in
from emp_orch.jobs.matching.requirements import Requirements, asked_of, canonical, lane_of, unmet
from emp_orch.jobs.matching.workable import DesiredWorker, Possible, Unworkable, Workable, judge

HAS = Offers(
    nodes={
        "CheckpointLoaderSimple": ("ckpt_name",),
        "LoraLoader": ("lora_name",),
        "KSampler": ("sampler_name", "scheduler"),
        "SaveImage": (),
        "Download": (),
    },
    outputs=frozenset({"SaveImage"}),
    models=frozenset({"a.safetensors", "sdxl/b.safetensors"}),
)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def drawn_with(checkpoint: Any, **more: Any) -> dict[str, Any]:
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": node("KSampler", model=["1", 0], sampler_name="euler.pt" if more.get("odd") else "euler"),
        "3": node("SaveImage", images=["2", 0], filename_prefix="out"),
        **{name: value for name, value in more.items() if name != "odd"},
    }


@pytest.mark.parametrize(
    ("workflow", "needs"),
    [
        (drawn_with("a.safetensors"), None),
        (drawn_with("sdxl/b.safetensors"), None),
        (drawn_with("b.safetensors"), Needs(models=("b.safetensors",))),
        (drawn_with("Gone.SafeTensors"), Needs(models=("Gone.SafeTensors",))),
        # Not a file of a model, or given by another node: ComfyUI says what it thinks of it.
        (drawn_with("simulation"), None),
        (drawn_with(["9", 0]), None),
        (drawn_with(None), None),
        # An input that is no choice may name what is not there yet.
        (drawn_with("a.safetensors", **{"4": node("Download", url="https://h/new.safetensors")}), None),
        # Nothing depends on it, so ComfyUI does not look at its inputs; at its class it does.
        (drawn_with("a.safetensors", **{"4": node("LoraLoader", lora_name="gone.pt")}), None),
        (drawn_with("a.safetensors", **{"4": node("Fancy")}), Needs(nodes=("Fancy",))),
        (
            drawn_with(
                "gone.ckpt",
                **{
                    "4": node("LoraLoader", model=["1", 0], lora_name="l.pt"),
                    "5": node("Fancy"),
                    "6": node("SaveImage", images=["4", 0]),
                },
            ),
            Needs(nodes=("Fancy",), models=("gone.ckpt", "l.pt")),
        ),
        # Links in a ring, links to nowhere, nodes that are none.
        ({"1": node("SaveImage", images=["2", 0]), "2": node("KSampler", model=["1", 0])}, None),
        ({"1": node("SaveImage", images=["77", 0]), "2": "text", "3": {"class_type": 5}, "4": {}}, None),
        ({"1": {"class_type": "SaveImage"}, "2": {"class_type": "KSampler", "inputs": []}}, None),
        ({"1": node("SaveImage"), "2": node("x" * 300)}, None),
    ],
)
def test_what_is_missing(workflow: dict[str, Any], needs: Needs | None) -> None:
    assert missing({"workflow": workflow}, HAS) == needs


def test_a_part_that_may_be_left_out_needs_no_models() -> None:
    assert missing({"workflow": drawn_with("gone.ckpt"), "partial": True}, HAS) is None


@pytest.mark.parametrize("form", ["workflow", "prompt", "bare", "text", "request"])
def test_every_form_of_a_payload_is_read(form: str) -> None:
    import json

    plain = drawn_with("gone.ckpt")
    payload = {
        "workflow": {"workflow": plain},
        "prompt": {"prompt": plain},
        "bare": plain,
        "text": {"workflow": json.dumps(plain)},
        "request": {"workflow": {"prompt": plain, "client_id": "x"}},
    }[form]
    assert missing(payload, HAS) == Needs(models=("gone.ckpt",))


@pytest.mark.parametrize("payload", [{}, {"prompt": "a cat"}, {"workflow": "{no json"}, {"workflow": 5}, {"a": {}}])
def test_a_payload_without_a_workflow_needs_nothing(payload: dict[str, Any]) -> None:
    assert workflow_in(payload) is None and missing(payload, HAS) is None and model_key(payload) == ""


def test_names_that_could_harm_a_terminal_are_no_needs() -> None:
    assert not is_model("a\x1b[2J.ckpt") and not is_model("x" * 300 + ".ckpt")
    assert missing({"workflow": {"1": node("a\nb")}}, HAS) is None


def test_needs_are_bounded() -> None:
    many = missing({"workflow": {str(i): node(f"Class{i}") for i in range(500)}}, HAS)
    assert many is not None and len(many.nodes) == 64


def test_one_digest_for_the_same_offers() -> None:
    other = Offers(
        nodes=dict(reversed(HAS.nodes.items())),
        outputs=HAS.outputs,
        models=frozenset(sorted(HAS.models, reverse=True)),
    )
    assert digest_of(encoded(HAS)) == digest_of(encoded(other))
    assert digest_of(encoded(HAS)) != digest_of(encoded(Offers(models=frozenset({"a"}))))


def test_the_base_model_makes_the_key() -> None:
    with_lora = drawn_with("a.safetensors", **{"4": node("LoraLoader", lora_name="l.pt")})
    assert model_key({"workflow": drawn_with("a.safetensors")}) == model_key({"workflow": with_lora}) != ""
    assert model_key({"workflow": drawn_with("b.ckpt")}) != model_key({"workflow": with_lora})
    assert model_key({"workflow": {"4": node("LoraLoader", lora_name="l.pt")}}) != ""


NEEDS_B = Requirements(service="comfyui", needs=Needs(nodes=("SaveImage",), models=("b.ckpt",)))
KNOWN = {"d": HAS, "e": Offers(nodes=HAS.nodes, models=frozenset({"b.ckpt"}))}


def capable(digest: str = "", **more: Any) -> dict[str, Any]:
    told = {"service_offers": {"comfyui": digest}} if digest else {}
    return {"services": ["comfyui"], **told, **more}


@pytest.mark.parametrize(
    ("capabilities", "reasons"),
    [
        (capable("e"), ()),
        (capable("d"), ("model b.ckpt is needed, the worker does not have it",)),
        # Who does not tell what it has may have it; so may one whose document is gone.
        (capable(), ()),
        (capable("gone"), ()),
        (capable(service_offers="nonsense"), ()),
        # What emp.yaml lists counts.
        (capable("d", models=["b.ckpt"]), ()),
    ],
)
def test_who_has_what_is_needed(capabilities: dict[str, Any], reasons: tuple[str, ...]) -> None:
    assert unmet(NEEDS_B, capabilities, offers=KNOWN) == reasons


def test_models_that_a_job_asks_for_are_those_of_the_service_where_emp_yaml_lists_none() -> None:
    asked = parse_submission({"service": "comfyui", "requirements": {"models": ["a.safetensors"]}}).requirements
    assert unmet(asked, capable("d"), offers=KNOWN) == ()
    assert unmet(asked, capable("e"), offers=KNOWN) == (
        "models: ['a.safetensors'] is needed, the worker does not have it",
    )
    assert unmet(asked, capable("d", models=["c"]), offers=KNOWN) == (
        "models: ['a.safetensors'] is needed, the worker has ['c']",
    )
    assert unmet(asked, capable(), offers=KNOWN) == (
        "models: ['a.safetensors'] is needed, the worker does not say what it has",
    )


def test_needs_have_one_canonical_form_and_old_lanes_keep_theirs() -> None:
    one = Requirements(service="c", needs=Needs(models=("a", "b")))
    other = Requirements(service="c", needs=Needs(models=("b", "a", "b")))
    assert canonical(one) == canonical(other) and lane_of(one) == lane_of(other)
    assert canonical(Requirements(service="c")) == b'{"service":"c"}'
    assert "service_offers" in asked_of(one) and "service_offers" not in asked_of(Requirements(service="c"))


def reports(name: str, machine: str, **capabilities: Any) -> DesiredWorker:
    return DesiredWorker(worker_id=name, machine_id=machine, known={}, reported=capabilities)


def test_the_verdict_names_what_nobody_has_and_where_it_was_looked_for() -> None:
    workers = [reports(f"{m}-worker-{n}", m, **capable("d")) for m, n in (("a", 0), ("a", 1), ("b", 0))]
    assert judge(NEEDS_B, workers, KNOWN) == Unworkable(
        reason="no worker has model b.ckpt (checked 3 workers of machines a, b)"
    )
    assert judge(NEEDS_B, [*workers, reports("c-worker-0", "c", **capable("e"))], KNOWN) == Workable(
        able=("c-worker-0",)
    )
    silent = DesiredWorker(worker_id="s-worker-0", machine_id="s", known={"services": ["comfyui"]})
    assert judge(NEEDS_B, [*workers, silent], KNOWN) == Possible(ids=("s-worker-0",))


def test_where_workers_lack_different_things_each_is_named() -> None:
    asked = Requirements(service="comfyui", needs=Needs(models=("a.safetensors", "b.ckpt")))
    workers = [reports("a-worker-0", "a", **capable("d")), reports("b-worker-0", "b", **capable("e"))]
    assert judge(asked, workers, KNOWN) == Unworkable(
        reason="no worker of the fleet could run it: "
        "b-worker-0: model a.safetensors is needed, the worker does not have it · "
        "a-worker-0: model b.ckpt is needed, the worker does not have it"
    )
