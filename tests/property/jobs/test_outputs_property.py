"""Names, types and records from anywhere: what comes out is safe, and stays what it is."""

from __future__ import annotations

import os
import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from emp_orch.jobs.document.model import Output
from emp_orch.jobs.document.outputs import (
    MAX_NAME_BYTES,
    is_safe_id,
    is_safe_name,
    location_of,
    safe_content_type,
    safe_name,
    unique_name,
    url_holds_login,
)

HOSTILE = st.sampled_from(
    [
        *("..", "../x", "/etc/passwd", "C:\\x", ".ssh", "a/../b", "a\0b", "\r\nX: y", "*", "[a]", "\u202egnp.exe"),
        *("", " ", ". .", "~", "-rf", "é" * 150 + ".png", "x" * 300 + ".safetensors", "a." + "b" * 300, "\ud800"),
    ]
)
TEXT = st.text(st.characters(), max_size=300) | HOSTILE | st.text(alphabet="./\\.- aé\n\0*", max_size=12)


@given(TEXT)
def test_a_safe_name_is_one_step_of_a_path(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES
    assert os.path.normpath(f"/job/run/{name}") == f"/job/run/{name}"
    assert not name.startswith(".") and not set(name) & set('/\\:*?"<>|[]{}')
    assert not any(unicodedata.category(c)[0] == "C" for c in name)
    assert safe_name(name) == name and is_safe_name(name)


@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_-]{0,80}\.[a-z0-9]{1,5}", fullmatch=True))
def test_a_usual_name_stays_as_it_is(name: str) -> None:
    assert safe_name(name) == name


@given(st.lists(TEXT | st.sampled_from(["a.png", "A.png", "a-2.png", "x" * 300 + ".png"]), max_size=12))
def test_names_of_one_run_never_meet(texts: list[str]) -> None:
    taken: set[str] = set()
    for text in texts:
        name = unique_name(safe_name(text), taken)
        assert name.casefold() not in taken and is_safe_name(name)
        taken.add(name.casefold())


@given(
    TEXT
    | st.sampled_from(["image/png", "text/html; charset=\r\nX: y", "a/b\nSet-Cookie: c", "TEXT/Plain;charset=UTF-8"])
)
def test_a_content_type_fits_into_a_header(text: str) -> None:
    kind = safe_content_type(text)
    assert re.fullmatch(r"[!-~]+/[!-~]+(; charset=[!-~]+)?", kind) and safe_content_type(kind) == kind


@given(TEXT | st.tuples(TEXT, TEXT).map("/".join) | st.tuples(st.just("1-ab"), TEXT).map("/".join))
def test_a_record_leads_into_its_run_or_nowhere(path: str) -> None:
    output = Output(name="a", content_type="text/plain", size=1, sha256="0" * 64, path=path)
    place = location_of(output)
    if place is not None:
        run, file = place
        assert is_safe_id(run) and f"{run}/{file}" == path
        assert os.path.normpath(f"/store/job/{path}") == f"/store/job/{run}/{file}"


@given(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.from_regex(r"[^@/]{0,5}", fullmatch=True))
def test_a_login_in_a_url_is_seen(user: str, password: str) -> None:
    assert url_holds_login(f"s3://{user}:{password}@bucket/x")
    assert not url_holds_login(f"abfs://{user}@account/{password}@x")
    assert not url_holds_login(f"sftp://host:22/{user}")
