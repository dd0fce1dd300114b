"""What the doctor finds in the checkouts of ComfyUI that machines of this host start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from emp_orch.control.doctor.checks.checkouts import CHECKS
from emp_orch.control.doctor.facts.checkouts import CheckoutFacts, checkout_facts
from emp_orch.control.doctor.facts.gather import Facts, gather
from emp_orch.control.doctor.model import Problem
from emp_orch.fleet.model.fleet import Checkout, Fleet, GpuKind, Gpus, Scale
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.layout import Layout
from support.comfyui.checkout import OLD, make_checkout
from support.fleet.fleets import fleet, machine, service

(CHECK,) = CHECKS


def of(path: Path, *, num_gpus: int = 2, gpus: GpuKind = GpuKind.NONE, **checkout: object) -> Fleet:
    asked = Checkout(path=str(path), **checkout)  # type: ignore[arg-type]
    comfyui = service("comfyui", scale=Scale.PER_GPU, builtin="comfyui", port=8188, checkout=asked)
    here = machine(services=["comfyui"], num_gpus=num_gpus, gpus=Gpus(kind=gpus, ids=()))
    return fleet([comfyui], here)


def answering(root: Path, answer: str) -> Path:
    """The checkout's interpreter gives this answer to whatever it is asked."""
    (root / ".venv/bin/python").write_text(f"#!/bin/sh\n{answer}\n")
    return root


async def found(tmp_path: Path, wanted: Fleet) -> tuple[list[Problem], str]:
    facts = await gather(Layout(tmp_path), {})
    facts = msgspec.structs.replace(facts, checkouts=await checkout_facts(wanted))
    return list(CHECK.find(facts)), CHECK.fine(facts)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "c")


async def test_a_whole_one(tmp_path: Path, root: Path) -> None:
    answering(root, """echo '{"torch": "2.9.0+cu130", "missing": []}'""")
    told = f"ComfyUI 0.3.64 in {root}, torch 2.9.0+cu130"
    assert await found(tmp_path, of(root, gpus=GpuKind.NVIDIA)) == ([], told)


async def test_its_interpreter_is_asked_for_what_its_requirements_name(tmp_path: Path, root: Path) -> None:
    """By the interpreter of these tests, which has aiohttp and no torch."""
    (root / "requirements.txt").write_text(
        "torch\nAIOHTTP>=3.11.8\n# comment\n-r other.txt\nno-such_package~=2.0 ; x\n"
    )
    told = [p.what for p in (await found(tmp_path, of(root)))[0]]
    python = root / ".venv/bin/python"
    assert told == [
        f"{python} has no torch, and comfyui needs it",
        f"{python} lacks no-such_package of {root}/requirements.txt",
    ]


async def test_what_is_no_checkout(tmp_path: Path) -> None:
    ((problem,), _) = await found(tmp_path, of(tmp_path / "no"))
    assert problem.what == f"comfyui cannot start: {tmp_path}/no does not exist"
    assert problem.where == "emp.yaml:comfyui"


async def test_a_torch_without_cuda_matters_where_a_machine_has_gpus(tmp_path: Path, root: Path) -> None:
    answering(root, """echo '{"torch": "2.9.0+cpu", "missing": []}'""")
    ((problem,), _) = await found(tmp_path, of(root, gpus=GpuKind.NVIDIA))
    assert problem.what == "the torch of comfyui (2.9.0+cpu) cannot use the GPUs that its machine has"
    assert (await found(tmp_path, of(root)))[0] == []
    assert (await found(tmp_path, of(root, gpus=GpuKind.NVIDIA, args=("--cpu",))))[0] == []


async def test_what_slots_of_an_old_version_share(tmp_path: Path) -> None:
    old = answering(make_checkout(tmp_path / "old", options=OLD), """echo '{"torch": "2", "missing": []}'""")
    told = [p.what for p in (await found(tmp_path, of(old)))[0]]
    assert [t.split(":")[0] for t in told] == [
        "the ComfyUI of comfyui knows no --user-directory",
        "the ComfyUI of comfyui knows no --database-url",
    ]
    assert (await found(tmp_path, of(old, num_gpus=1)))[0] == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("echo 'no module' >&2; exit 3", "ends with status 3: no module"),
        ("echo hello", "does not answer as a Python does"),
        ("exec sleep 30", "gives no answer within 2 s"),
    ],
)
async def test_an_interpreter_that_does_not_answer(tmp_path: Path, root: Path, answer: str, told: str) -> None:
    ((problem,), _) = await found(tmp_path, of(answering(root, answer)))
    assert problem.what == f"{root}/.venv/bin/python {told}"


async def test_others_look_after_their_own(tmp_path: Path) -> None:
    comfyui = service("comfyui", builtin="comfyui", port=8188, checkout=Checkout(path="/no"))
    boxes = [machine(kind.value, services=["comfyui"], runtime=kind) for kind in RuntimeKind if kind != "process"]
    assert await checkout_facts(fleet([comfyui], *boxes)) == ()


async def test_the_doctor_asks_of_what_emp_yaml_says(tmp_path: Path, root: Path) -> None:
    text = "version: 1\nname: f\nservices:\n  c: {{scale: per_gpu, builtin: comfyui, port: 8188, path: {}}}\n"
    (tmp_path / "emp.yaml").write_text(text.format(root) + "machines:\n  m: {services: [c]}\n")
    facts: Facts = await gather(Layout(tmp_path), {})
    (one,) = facts.checkouts
    assert isinstance(one, CheckoutFacts)
    assert (one.service, one.origin, one.slots) == ("c", "emp.yaml:4:3", 1)
