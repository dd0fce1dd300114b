"""The artifact store, tried from the control host before a fleet is told to use it."""

from __future__ import annotations

from emp_orch.control.checks.images import Tell
from emp_orch.errors import EmpError
from emp_orch.settings import Settings
from emp_orch.store.artifacts.store import LOOK_CLOSER, Artifacts
from emp_orch.store.artifacts.url import CannotStore


async def refuse_store(settings: Settings, known: Settings | None, warn: Tell) -> None:
    """Raises EmpError where `settings` name a store, another than those `known`, that does not work. That of a fleet
    which has it already may be away for the moment: that is only told.
    """
    try:
        await Artifacts(settings.artifacts).check()
    except CannotStore as e:
        why = e
    else:
        return
    if known is None or known.artifacts != settings.artifacts:
        way_out = "correct jobs.artifacts in emp.yaml, or its credentials in the environment of `emp apply`"
        raise EmpError(why.message, hint=way_out if why.hint in ("", LOOK_CLOSER) else f"{why.hint}; or {way_out}")
    warn(f"{why.message}; jobs wait until it does")
