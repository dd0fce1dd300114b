"""hatchling's hook: every wheel of emp has its bill of materials in `*.dist-info/sboms/` (PEP 770)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Bill(BuildHookInterface[Any]):
    """Makes the bill of a wheel that others get; an editable one has none."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from audit.sbom import FILE_NAME, bill

        self._made = tempfile.TemporaryDirectory(prefix="emp-bill-")
        path = Path(self._made.name) / FILE_NAME
        path.write_text(bill(), encoding="utf-8")
        build_data["sbom_files"].append(str(path))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._made.cleanup()
