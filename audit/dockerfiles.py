"""The Dockerfiles by hadolint, and by rules of our own: bases that an ARG names, secrets, who runs at the end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from audit.lock import ROOT

FOLDER = ROOT / "containers"
_SECRET = re.compile(r"pass(word|wd|phrase)?|secret|token|credential|api_?key|private", re.IGNORECASE)
_PIPED = re.compile(r"\b(curl|wget)\b[^|;&]*\|\s*(sudo\s+)?\S*(sh|python3?|perl)\b")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def dockerfiles() -> list[Path]:
    return sorted(FOLDER.rglob("Dockerfile*"))


def faults(files: Iterable[Path]) -> list[str]:
    """All that is wrong, `path:line: what`. Raises OSError, and RuntimeError where hadolint does not run."""
    files = list(files)
    return _hadolint(files) + [
        fault for path in files for fault in of_text(path.read_text(encoding="utf-8"), str(path))
    ]


def _hadolint(files: list[Path]) -> list[str]:
    """Findings of every level. A remark that silences one in the file is not heeded."""
    program = Path(sys.executable).with_name("hadolint")
    argv: list[str | Path] = [
        program,
        "--format",
        "json",
        "--no-fail",
        "--disable-ignore-pragma",
        "--config",
        "/dev/null",
        *files,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0 or not done.stdout:
        raise RuntimeError(f"hadolint: exit {done.returncode}: {done.stderr.strip()}")
    return [f"{one['file']}:{one['line']}: {one['code']} {one['message']}" for one in json.loads(done.stdout)]


def instructions(text: str) -> list[tuple[int, str, str]]:
    """Line (from 1), name in capitals and the rest, continued lines put together. Heredocs are not known."""
    found: list[tuple[int, str, str]] = []
    open_line, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        start = start if open_line else number
        open_line += line.removesuffix("\\") + (" " if line.endswith("\\") else "")
        if not line.endswith("\\") and open_line.strip():
            name, _, rest = open_line.strip().partition(" ")
            found.append((start, name.upper(), rest.strip()))
            open_line = ""
        elif not line.endswith("\\"):
            open_line = ""
    return found


def of_text(text: str, name: str) -> list[str]:
    """What our own rules say of one file. The last base may be an image of emp's own, which an ARG without a default
    names: it brings its user."""
    found: list[str] = []
    arguments: dict[str, str] = {}
    stages: set[str] = set()
    user, own_base = "", False
    for line, word, rest in instructions(text):
        match word:
            case "ARG":
                key, _, value = rest.partition("=")
                arguments[key] = value.strip("\"'")
                found += [f"{name}:{line}: ARG {key}: a secret in an image's history"] if _SECRET.search(key) else []
            case "ENV":
                found += [
                    f"{name}:{line}: ENV {key}: a secret in an image"
                    for key in re.findall(r"(\w+)=", rest) or rest.split()[:1]
                    if _SECRET.search(key)
                ]
            case "FROM":
                words = [one for one in rest.split() if not one.startswith("--")]
                base = re.sub(r"\$\{?(\w+)\}?", lambda m: arguments.get(m[1], ""), words[0])
                own_base, user = not base, ""
                if base and base not in stages and (why := _loose(base)):
                    found.append(f"{name}:{line}: FROM {base}: {why}")
                stages |= {words[2]} if len(words) == 3 else set()
            case "USER":
                user = rest
            case "RUN" if _PIPED.search(rest):
                found.append(f"{name}:{line}: RUN: what comes from the net is run unseen")
            case "ADD" if re.search(r"https?://|git@", rest) and "--checksum=" not in rest:
                found.append(f"{name}:{line}: ADD: from the net, without a checksum")
            case _:
                pass
    if (not user and not own_base) or re.match(r"(root|0+)(:|$)", user):
        found.append(f"{name}: root runs at the end: USER")
    return found


def _loose(base: str) -> str:
    """Why `base` may be another image tomorrow; empty where it has a version or a digest."""
    if _DIGEST.search(base):
        return ""
    tag = base.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest") or not re.search(r"\d", tag):
        return "name a version or a digest"
    return ""
