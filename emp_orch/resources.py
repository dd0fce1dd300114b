"""Files that ship with emp: templates, the schema, the default emp.yaml.

In a wheel they lie in `emp_orch/_data`; in a checkout beside the package.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

MODULES = Path(__file__).resolve().parent
# As pyproject.toml puts them into a wheel's `_data`.
DATA = ("templates", "schema", "emp.yaml")

_BASES = (MODULES / "_data", MODULES.parent)


@cache
def read_text(name: str) -> str:
    """The text of `name`, e.g. `templates/supervisord.conf.j2` or `schema/emp.schema.json`."""
    for base in _BASES:
        path = base / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"emp was installed without {name}; reinstall it")


def data_files() -> dict[str, Path]:
    """All of them, by the names that `read_text` takes."""
    base = next(b for b in _BASES if (b / DATA[0]).is_dir())
    tops = [base / name for name in DATA]
    paths = [p for top in tops for p in ([top] if top.is_file() else top.rglob("*")) if p.is_file()]
    return {path.relative_to(base).as_posix(): path for path in paths}
