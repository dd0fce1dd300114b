"""luacheck over every Lua script as Redis gets it: put together, with what it includes. `python -m audit.lua`.

A name that a script uses and did not declare is an undefined variable there; one that it declares and does not use, an
unused one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import STORE, declaration, script

RULES = Path(__file__).resolve().parent.parent / ".luacheckrc"


def files() -> list[Path]:
    return sorted(STORE.rglob("*.lua"))


def scripts() -> dict[str, str]:
    """Each script by name, whatever its limits are: all files that no other includes."""
    declared = [one for path in files() for line in path.read_text().splitlines() if (one := declaration(line, path))]
    limits = {name: 1 for one in declared if one.kind == "limits" for name in one.names}
    included = {one.source for one in declared}
    names = [path.relative_to(STORE).with_suffix("") for path in files() if path.stem not in included]
    return {text: script(text, Keys(), limits) for text in (name.as_posix().replace("/lua/", "/") for name in names)}


def main() -> int:
    luacheck = shutil.which("luacheck")
    if luacheck is None:
        print("luacheck is not installed (apt-get install lua-check): the Lua scripts were not checked")
        return int(os.environ.get("CI") == "true")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in scripts().items():
            path = Path(folder, f"{name}.lua")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        argv = [luacheck, "--config", str(RULES), "--formatter", "plain", "--no-color", "--codes", "."]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        found = {_told(Path(folder), line) for line in done.stdout.splitlines()}
    print("\n".join(sorted(found)) or f"luacheck: {len(scripts())} scripts are in order")
    sys.stderr.write(done.stderr)
    return done.returncode


def _told(folder: Path, line: str) -> str:
    """What luacheck said, with the text of the line: its number is that of the script as a whole."""
    name, number, column, words = line.split(":", 3)
    text = (folder / name).read_text().splitlines()[int(number) - 1].strip()
    return f"{name.removesuffix('.lua')}:{words} in `{text}` (column {column})"


if __name__ == "__main__":
    sys.exit(main())
