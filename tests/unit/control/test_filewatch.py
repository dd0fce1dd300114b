"""Changes of files, told once for each, however they are written. Real files, the kernel's own word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from emp_orch.control.host.filewatch import FileWatch

DEADLINE_S = 20.0


def _in_place(file: Path, text: str) -> None:
    file.write_text(text)


def _replaced(file: Path, text: str) -> None:
    new = file.with_name(".new")
    new.write_text(text)
    new.replace(file)


def _through_a_link(file: Path, text: str) -> None:
    """As configurations are mounted into containers: the link to the folder with all files changes."""
    folder = file.parent / f"..{abs(hash(text))}"
    folder.mkdir()
    (folder / file.name).write_text(text)
    link = file.with_name("..new")
    link.symlink_to(folder.name)
    link.replace(file.with_name("..data"))
    if not file.is_symlink():
        file.unlink()
        file.symlink_to(f"..data/{file.name}")


@pytest.mark.parametrize("write", [_in_place, _replaced, _through_a_link])
async def test_a_change_is_told_however_it_is_written(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    file = tmp_path / "emp.yaml"
    file.write_text("a")
    with FileWatch() as files:
        files.watch([file])
        for text in ("b", "c"):
            files.mark()
            told = asyncio.create_task(files.changed())
            await asyncio.sleep(0)
            write(file, text)
            async with asyncio.timeout(DEADLINE_S):
                await told
            assert file.read_text() == text


async def test_what_changed_before_the_wait_is_told(tmp_path: Path) -> None:
    file = tmp_path / "emp.yaml"
    file.write_text("a")
    with FileWatch() as files:
        files.watch([file])
        file.write_text("b")
        async with asyncio.timeout(DEADLINE_S):
            await files.changed()


async def test_a_file_that_comes_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    file = folder / "token"
    with FileWatch() as files:
        files.watch([tmp_path / "emp.yaml"])
        files.mark()
        files.watch([tmp_path / "emp.yaml", file])
        for change in (lambda: file.write_text("a"), file.unlink):
            told = asyncio.create_task(files.changed())
            await asyncio.sleep(0)
            change()
            async with asyncio.timeout(DEADLINE_S):
                await told
            files.mark()


async def test_the_same_content_and_other_files_are_no_change(tmp_path: Path) -> None:
    """The wait lives through all that, and ends with the first real change."""
    file = tmp_path / "emp.yaml"
    file.write_text("a")
    with FileWatch() as files:
        files.watch([file])
        files.mark()
        told = asyncio.create_task(files.changed())
        await asyncio.sleep(0)
        file.touch()
        _replaced(file, "a")
        (tmp_path / "notes").write_text("x")
        file.write_text("b")
        file.write_text("a")
        (tmp_path / ".emp").mkdir()
        done, _ = await asyncio.wait({told}, timeout=1.0)
        assert not done
        file.write_text("b")
        async with asyncio.timeout(DEADLINE_S):
            await told


async def test_a_burst_is_one_change(tmp_path: Path) -> None:
    file = tmp_path / "emp.yaml"
    file.write_text("start")
    with FileWatch() as files:
        files.watch([file])
        files.mark()
        told = asyncio.create_task(files.changed())
        for n in range(20):
            file.write_text(f"{n}")
            await asyncio.sleep(0.01)
        async with asyncio.timeout(DEADLINE_S):
            await told
        assert file.read_text() == "19"
        files.mark()
        again = asyncio.create_task(files.changed())
        done, _ = await asyncio.wait({again}, timeout=0.5)
        assert not done
        again.cancel()
