"""Whatever an environment holds: no slot gets a device that was not allotted, and none gets another's."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from emp_orch.fleet.model.allotment import CUDA, HIP, NVIDIA, ROCR, SLURM, Allotment, read, variables

WORDS = st.one_of(
    st.integers(-2, 9).map(str), st.sampled_from(["GPU-a", "GPU-ab", "GPU-b", "MIG-1", "", "x", "0-3", "none", "all"])
)
VALUES = st.one_of(st.lists(WORDS, max_size=6).map(",".join), st.text(max_size=20))
NAMES = (CUDA, HIP, ROCR, *SLURM, "DOCKER_RESOURCE_GPU", NVIDIA)
ENVIRONMENTS = st.dictionaries(st.sampled_from(NAMES), VALUES)
DRIVERS = st.one_of(st.none(), st.lists(st.sampled_from([f"GPU-{c}" for c in "abcdef"]), unique=True).map(tuple))


@given(ENVIRONMENTS, DRIVERS)
def test_slots_share_no_device(environ: dict[str, str], driver: tuple[str, ...] | None) -> None:
    found = read(environ, lambda: driver)
    assert (found is None) == (not variables(environ))
    if found is None:
        return
    chosen = [(slot.get(ROCR), slot.get(HIP), slot[CUDA]) for slot in found.slots]
    assert len(set(chosen)) == len(chosen) == len(found.names)
    assert found.said.isprintable()
    assert all(value and "," not in value for slot in found.slots for value in slot.values())
    assert set(found.beyond.values()) == {"-1"}


@given(ENVIRONMENTS, DRIVERS)
def test_no_more_than_what_programs_would_see_themselves(
    environ: dict[str, str], driver: tuple[str, ...] | None
) -> None:
    found = read(environ, lambda: driver)
    if found is not None and CUDA in environ:
        words = [word.strip() for word in environ[CUDA].split(",")]
        assert len(found.slots) <= len(words)
        assert all(name in words or name in [w.lstrip("0") or "0" for w in words] for name in found.names)


@given(ENVIRONMENTS, DRIVERS)
def test_it_is_kept_as_it_is(environ: dict[str, str], driver: tuple[str, ...] | None) -> None:
    found = read(environ, lambda: driver)
    if found is not None:
        assert msgspec.json.decode(msgspec.json.encode(found), type=Allotment) == found
        assert read({**environ, "PATH": "/bin"}, lambda: driver) == found
