"""Input files of a job: what they may be called, where their content comes from, and how a workflow refers to them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from emp_orch.jobs.document.model import InputSource
from emp_orch.jobs.document.outputs import is_safe_id, is_safe_name
from emp_orch.jobs.matching.capability import shown

MAX_INPUTS = 64
# Of one job, decoded: larger files are uploaded, for a request is held in memory.
MAX_INLINE_BYTES = 16 * 1024**2
MAX_URL = 4096
# Of all URLs of one job: they stand in its record, which lists read.
MAX_URLS = 32 * 1024
MAX_INPUT_NAME = 400
MAX_FOLDERS = 8
SOURCES = ("file", "url", "base64", "asset", "job")

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


class Content(Struct, frozen=True, kw_only=True):
    """The bytes themselves, as they came in a request: they become an asset before the job is queued."""

    data: bytes


class LocalFile(Struct, frozen=True, kw_only=True):
    """A file of whoever submits: it becomes an asset before the job is queued."""

    path: str


GivenInput = InputSource | Content | LocalFile


def is_digest(text: str) -> bool:
    """Whether `text` names an asset."""
    return _DIGEST.fullmatch(text) is not None


def inputs_of(source: Mapping[str, Any], problems: list[str], *, files: bool) -> dict[str, GivenInput]:
    """The inputs of a submitted job; what is wrong with them is added to `problems`.

    `files`: whether `{"file": PATH}` may stand there, which only a client that uploads it can read.
    """
    if "inputs" not in source:
        return {}
    read = _read(source["inputs"], problems, files=files)
    payload = source.get("payload")
    if isinstance(payload, dict):
        with suppress(RecursionError):  # a payload that is too deep is refused for that
            problems += [f"inputs.{name}: no node's input says {name}" for name in unnamed(read, payload)]
    return read


def _read(value: object, problems: list[str], *, files: bool) -> dict[str, GivenInput]:
    if not isinstance(value, dict):
        problems.append(f"inputs: expected an object of names, found {shown(value)}")
        return {}
    if len(value) > MAX_INPUTS:
        problems.append(f"inputs: {len(value)} of them, at most {MAX_INPUTS} are taken")
        return {}
    read: dict[str, GivenInput] = {}
    inline = 0
    for name, source in value.items():
        if wrong := name_fault(name):
            problems.append(f"inputs: {shown(name)}: {wrong}")
            continue
        given = _given(source, files=files)
        if isinstance(given, str):
            problems.append(f"inputs.{name}{given}")
            continue
        inline += len(given.data) if isinstance(given, Content) else 0
        read[name] = given
    if inline > MAX_INLINE_BYTES:
        most = f"at most {MAX_INLINE_BYTES} are taken; upload larger files to /api/assets"
        problems.append(f"inputs: {inline} bytes as base64, {most}")
    if sum(len(given.url) for given in read.values() if isinstance(given, InputSource)) > MAX_URLS:
        problems.append(f"inputs: more than {MAX_URLS} characters of URLs")
    problems += [f"inputs.{name}: another input's folder is called so" for name in read if name in _folders_of(read)]
    return read


def name_fault(name: object) -> str:
    """What is wrong with an input's name; empty when nothing is."""
    if not isinstance(name, str) or not name:
        return "expected a file's name"
    if len(name) > MAX_INPUT_NAME:
        return f"longer than {MAX_INPUT_NAME} characters"
    parts = name.split("/")
    if len(parts) > MAX_FOLDERS + 1:
        return f"more than {MAX_FOLDERS} folders deep"
    if not all(is_safe_name(part) for part in parts):
        return "expected a relative path without '..', leading dots and any of \\ : * ? \" < > | [ ] { }"
    return ""


def _given(source: object, *, files: bool) -> GivenInput | str:
    """The source, or what is wrong with it, to be put behind the input's name."""
    if not isinstance(source, dict) or len(source) != 1:
        return f": expected one of {', '.join(SOURCES)}, found {shown(source)}"
    ((kind, value),) = source.items()
    match kind:
        case "job":
            return _job(value)
        case _ if not isinstance(kind, str) or kind not in SOURCES:
            return f": expected one of {', '.join(SOURCES)}, found {shown(kind)}"
        case _ if not isinstance(value, str) or not value:
            return f".{kind}: expected a string, found {shown(value)}"
        case "base64":
            return _decoded(".base64", value)
        case "url":
            return _decoded(".url", value) if _DATA_URL.match(value) else _url(value)
        case "asset":
            return (
                InputSource(asset=value) if is_digest(value) else f".asset: expected sha256:HEX, found {shown(value)}"
            )
        case _:
            if not files:
                return ".file: only `emp submit` reads files; upload it to /api/assets and name its asset"
            return LocalFile(path=value)


def _decoded(where: str, text: str) -> Content | str:
    head = _DATA_URL.match(text)
    text = text[head.end() :] if head else text
    if len(text) > MAX_INLINE_BYTES * 2:
        return f"{where}: larger than {MAX_INLINE_BYTES} bytes; upload it to /api/assets"
    try:
        return Content(data=base64.b64decode(re.sub(r"\s+", "", text), validate=True))
    except (binascii.Error, ValueError) as e:
        return f"{where}: not base64: {e}"


def _url(text: str) -> InputSource | str:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return ".url: not a URL"
    if not fits or len(text) > MAX_URL or not text.isprintable() or " " in text:
        return f".url: expected an http or https URL of at most {MAX_URL} characters"
    if "@" in parts.netloc:
        return ".url: holds a login, and none is sent"
    return InputSource(url=text)


def _job(value: object) -> InputSource | str:
    if isinstance(value, str):
        job_id, _, output = value.partition("/")
        value = {"id": job_id, "output": output}
    if not isinstance(value, dict) or value.keys() != {"id", "output"}:
        return f".job: expected {{id, output}} or ID/OUTPUT, found {shown(value)}"
    job_id, output = value["id"], value["output"]
    if not isinstance(job_id, str) or not is_safe_id(job_id):
        return f".job: expected a job's id, found {shown(job_id)}"
    if not isinstance(output, str) or not is_safe_name(output):
        return f".job: expected the name of an output of job {job_id}, found {shown(output)}"
    return InputSource(job=job_id, output=output)


def shown_source(source: InputSource) -> dict[str, Any]:
    """`source` fit for an answer or a page: of a URL only where it leads, for its query may be a key."""
    if source.url:
        return {"url": shown_url(source.url)}
    if source.asset:
        return {"asset": source.asset, "size": source.size}
    return {"job": {"id": source.job, "output": source.output}}


def shown_url(url: str) -> str:
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return urlunsplit(bare) + ("?…" if parts.query else "")


# How a workflow refers to its inputs


def _folders_of(names: Iterable[str]) -> set[str]:
    """Every folder that some name lies in."""
    return {"/".join(parts[:n]) for name in names for parts in [name.split("/")] for n in range(1, len(parts))}


def references(names: Iterable[str]) -> dict[str, str]:
    """What a node's literal may say to mean one of these inputs, and which it means: a name, or a folder of some.

    ComfyUI's own form `photo.png [input]` too.
    """
    known = list(names)
    plain = {text: text for text in (*known, *_folders_of(known))}
    return {**plain, **{f"{text} [input]": text for text in plain}}


def literals(value: object) -> Iterator[str]:
    """The strings that a node's inputs say, without its links to other nodes."""
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from literals(inner)
        case list() if not is_link(value):
            for inner in value:
                yield from literals(inner)


def is_link(value: list[Any]) -> bool:
    """Whether a list is ComfyUI's link to another node's output: [node, number]."""
    return len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def unnamed(names: Iterable[str], payload: Mapping[str, Any]) -> list[str]:
    """The inputs that no node of the payload's workflow says; none where the payload holds no workflow."""
    known = list(names)
    workflow = _workflow_in(payload)
    if workflow is None or not known:
        return []
    means = references(known)
    said = {means[text] for node in workflow.values() for text in literals(node["inputs"]) if text in means}
    return [name for name in known if name not in said and not said & _folders_of([name])]


def _workflow_in(payload: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """The payload's workflow in ComfyUI's API format, when it is one in every node."""
    for value in (payload.get("workflow"), payload.get("prompt"), payload):
        if isinstance(value, Mapping) and value and all(_is_node(node) for node in value.values()):
            return {
                str(key): {"inputs": node["inputs"] if isinstance(node.get("inputs"), dict) else {}}
                for key, node in value.items()
            }
    return None


def _is_node(node: object) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str)
