"""Files that ship with emp: templates, the schema, the default emp.yaml.

In a wheel they lie in `emp_orch/_data`; in a checkout beside the package.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def read_text(name: str) -> str:
    """The text of `name`, e.g. `templates/supervisord.conf.j2` or `schema/emp.schema.json`."""
    for base in (_PACKAGE / "_data", _PACKAGE.parent):
        path = base / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"emp was installed without {name}; reinstall it")
