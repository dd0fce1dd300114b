"""No archive, however hostile, leaves its folder, or anything but regular files in it."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from emp_orch.machine.package.archive import BadPackage, unpack
from support.machine.package import MODULES, tar_of

PARTS = st.sampled_from(["emp_orch", "a", "b.py", "..", ".", "", "\\", "é\udcff", "a" * 300])
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join) | st.text(max_size=20)
TYPES = st.sampled_from([tarfile.REGTYPE] * 6 + [bytes([b]) for b in b"123456LKSgxX7\0"])
PAX = st.dictionaries(
    st.sampled_from(["path", "linkpath", "size", "GNU.sparse.name", "GNU.sparse.map", "GNU.sparse.major", "mtime"]),
    st.sampled_from(["../../escaped", "/escaped", "emp_orch/x.py", "-1", "99999999999999", "0,1", "1", "0", "nan"]),
    max_size=2,
)
MEMBERS = st.tuples(NAMES, TYPES, NAMES, st.binary(max_size=40), PAX)


def _archive(members: list[tuple[str, bytes, str, bytes, dict[str, str]]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name, kind, link, content, pax in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.pax_headers = kind, link, len(content), pax
            try:
                tar.addfile(member, io.BytesIO(content))
            except (ValueError, UnicodeError):
                continue  # tarfile would not even write it
    return out.getvalue()


def _try(archive: bytes) -> dict[str, bytes] | None:
    """What unpacking leaves; None when it was refused."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.joinpath("archive").write_bytes(archive)
        try:
            unpack(root / "archive", root / "to")
        except BadPackage as e:
            assert e.message
            return None
        finally:
            assert {p.name for p in root.iterdir()} <= {"archive", "to"}
            assert not (root.parent / "escaped").exists() and not Path("/escaped").exists()
            found = list((root / "to").rglob("*"))
            assert all(not p.is_symlink() and (p.is_dir() or p.is_file()) for p in found)
            assert sum(p.stat().st_size for p in found if p.is_file()) <= len(archive)
            assert all(p.relative_to(root / "to").parts[0] == "emp_orch" for p in found)
        return {str(p.relative_to(root / "to")): p.read_bytes() for p in found if p.is_file()}


# A disk may take its time.
@settings(deadline=None)
@given(st.lists(MEMBERS, max_size=5))
@example([("emp_orch/../../escaped", tarfile.REGTYPE, "", b"x", {})])
@example([("/escaped", tarfile.REGTYPE, "", b"x", {})])
@example([("emp_orch/a", tarfile.SYMTYPE, "..", b"", {}), ("emp_orch/a/escaped", tarfile.REGTYPE, "", b"x", {})])
@example([("emp_orch/a", tarfile.REGTYPE, "", b"x", {}), ("emp_orch/a", tarfile.REGTYPE, "", b"y", {})])
@example([("emp_orch/a", tarfile.REGTYPE, "", b"x", {}), ("emp_orch/a/b", tarfile.REGTYPE, "", b"y", {})])
@example([("emp_orch/a", tarfile.REGTYPE, "", b"x", {"size": "99999999999999"})])
def test_hostile_archives(members: list[tuple[str, bytes, str, bytes, dict[str, str]]]) -> None:
    _try(_archive(members))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_damaged_archives(data: st.DataObject) -> None:
    """Bytes that are other, or missing: refused, or unpacked to what may be there."""
    archive = bytearray(tar_of(MODULES))
    for _ in range(data.draw(st.integers(0, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    _try(bytes(archive[: data.draw(st.integers(0, len(archive)))]))


@settings(deadline=None, max_examples=20)
@given(st.dictionaries(st.sampled_from([f"emp_orch/{n}.py" for n in "abcd"]), st.binary(max_size=2_000), min_size=1))
def test_what_is_fit_is_unpacked_as_it_is(files: dict[str, bytes]) -> None:
    assert _try(tar_of(files)) == files


LONG = "emp_orch/" + "a" * 300


def test_each_kind_of_hostility_is_refused() -> None:
    good: tuple[str, bytes, str, bytes, dict[str, str]] = ("emp_orch/a", tarfile.REGTYPE, "", b"x", {})
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        assert _try(_archive([good, ("emp_orch/b", kind, "/etc/passwd", b"", {})])) is None, kind
    for name in (
        "/emp_orch/a",
        "../emp_orch/a",
        "emp_orch/../a",
        "emp_orch",
        "a",
        "emp_orch//a",
        "emp_orch/" + "a" * 300,
    ):
        assert _try(_archive([(name, tarfile.REGTYPE, "", b"x", {})])) is None, name
    assert _try(_archive([good, good])) is None
    assert _try(_archive([good, ("emp_orch/a/b", tarfile.REGTYPE, "", b"x", {})])) is None
    assert _try(_archive([good])) == {"emp_orch/a": b"x"}
