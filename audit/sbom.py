"""A bill of materials in CycloneDX 1.6: what emp needs as locked, who needs whom, and what the page brings.

The same files give the same bytes: there is no time in it, and its number is made of its content. The standard library
alone: a build makes it. Source: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import tomllib
import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from audit.lock import ROOT, RUNTIME, Locked, normal, read_lock
from audit.vendored import PAGE, Vendored, vendored

NAME = "emp-orch"
FILE_NAME = f"{NAME}.cdx.json"
_REQUIREMENT_ENDS = "<>=!~;[ ("


def bill() -> str:
    """The document. Raises what `read_lock` and `vendored` raise."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = read_lock(RUNTIME)
    needed = runtime(locked, roots=[_name(line) for line in project["dependencies"]])
    own = _purl("pypi", NAME, project["version"])
    page = vendored(PAGE)
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": "",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": NAME,
                "version": project["version"],
                "description": project["description"],
                "purl": own,
            }
        },
        "components": [_component(one, required=one.name in needed) for one in locked] + _of_the_page(page),
        "dependencies": _dependencies(own, locked, page),
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document))}"
    return json.dumps(document, indent=1) + "\n"


def runtime(locked: Iterable[Locked], *, roots: Iterable[str]) -> frozenset[str]:
    """The names that `roots` need, themselves among them; the others only build emp."""
    needs: dict[str, set[str]] = {}
    for one in locked:
        for by in one.needed_by:
            needs.setdefault(by, set()).add(one.name)
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += needs.get(name, ())
    return frozenset(found)


def _name(requirement: str) -> str:
    end = min((i for i in map(requirement.find, _REQUIREMENT_ENDS) if i >= 0), default=len(requirement))
    return normal(requirement[:end])


def _purl(kind: str, name: str, version: str) -> str:
    return f"pkg:{kind}/{quote(name)}@{quote(version)}"


def _hashes(digests: Iterable[str]) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest} for digest in digests]


def _component(one: Locked, *, required: bool) -> dict[str, Any]:
    purl = _purl("pypi", one.name, one.version)
    marker = [{"name": "emp:needed-where", "value": one.marker}] if one.marker else []
    return {
        "type": "library",
        "bom-ref": purl,
        "name": one.name,
        "version": one.version,
        "scope": "required" if required else "excluded",
        "purl": purl,
        "externalReferences": [
            {
                "type": "distribution",
                "url": purl,
                "comment": "a file of it has one of these digests",
                "hashes": _hashes(one.digests),
            }
        ],
        **({"properties": marker} if marker else {}),
    }


def _of_the_page(page: Iterable[Vendored]) -> list[dict[str, Any]]:
    """One component for each package, with its files below it."""
    by_package: dict[tuple[str, str, str], list[Vendored]] = {}
    for one in page:
        by_package.setdefault((one.package, one.version, one.licence), []).append(one)
    return [
        {
            "type": "library",
            "bom-ref": _purl("npm", package, version),
            "name": package,
            "version": version,
            "scope": "required",
            "licenses": [{"license": {"id": licence}}],
            "purl": _purl("npm", package, version),
            "components": [
                {
                    "type": "file",
                    "bom-ref": one.file.relative_to(ROOT).as_posix(),
                    "name": one.file.relative_to(ROOT).as_posix(),
                    "hashes": _hashes([one.sha256]),
                }
                for one in files
            ],
        }
        for (package, version, licence), files in sorted(by_package.items())
    ]


def _dependencies(own: str, locked: Iterable[Locked], page: Iterable[Vendored]) -> list[dict[str, Any]]:
    references = {normal(NAME): own} | {one.name: _purl("pypi", one.name, one.version) for one in locked}
    needs: dict[str, set[str]] = {reference: set() for reference in references.values()}
    for one in locked:
        for by in one.needed_by:
            needs[references[by]].add(references[one.name])
    for file in page:
        needs[own].add(_purl("npm", file.package, file.version))
        needs.setdefault(_purl("npm", file.package, file.version), set())
    return [{"ref": reference, "dependsOn": sorted(names)} for reference, names in needs.items()]
