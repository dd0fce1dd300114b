"""How a machine reaches its fleet's API: `api.json` in its folder, 0600, or the file that EMP_API names."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError


class ApiAccess(Struct, frozen=True, kw_only=True):
    """`ca` is a file of certificates to trust; `owner` the user whose server it is, where it is on loopback."""

    url: str
    token: str = ""
    ca: str = ""
    owner: int | None = None


def access_file(machine: Path) -> Path:
    """Of the machine in that folder."""
    return Path(os.environ.get("EMP_API") or machine / "api.json")


def read_access(path: Path) -> ApiAccess:
    """Raises EmpError where nobody said how the API is reached."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ApiAccess)
    except FileNotFoundError:
        raise EmpError(f"there is no {path}: it says where the API is") from None
    except (OSError, msgspec.MsgspecError) as e:
        raise EmpError(f"{path} cannot be read: {e}") from e
