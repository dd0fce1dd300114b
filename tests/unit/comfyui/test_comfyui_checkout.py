"""Whether a checkout of ComfyUI can be started, and the words it is started with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from emp_orch.comfyui import models, options
from emp_orch.comfyui.checkout import NotUsable, look
from emp_orch.comfyui.slot import Slot, command, environment, prepare
from emp_orch.errors import EmpError
from support.comfyui.checkout import ALL, OLD, make_checkout, make_python


def refusal(path: Path, python: str | None = None) -> tuple[str, str, str]:
    with pytest.raises(NotUsable) as caught:
        look(path, python)
    return caught.value.key, caught.value.message, caught.value.hint


def test_a_whole_checkout(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "ComfyUI")
    found = look(root, None)
    assert (found.path, found.python, found.version) == (root, root / ".venv/bin/python", "0.3.64")
    assert found.options == frozenset(ALL)
    assert found.lacks == {}


def test_what_an_old_one_lacks(tmp_path: Path) -> None:
    found = look(make_checkout(tmp_path / "c", options=OLD), None)
    assert list(found.lacks) == ["--user-directory", "--database-url"]


def test_what_is_no_checkout(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no")[:2] == ("path", f"{tmp_path}/no does not exist")
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file")[:2] == ("path", f"{tmp_path}/file is no folder")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == (
        "path",
        f"{tmp_path}/empty is no checkout of ComfyUI: it has no main.py and no comfy/cli_args.py",
        "path: the folder with ComfyUI's main.py",
    )
    ancient = make_checkout(tmp_path / "ancient", options=("--listen", "--port", "--output-directory"))
    assert refusal(ancient)[1] == (
        f"the ComfyUI in {ancient} is too old: comfy/cli_args.py knows no --temp-directory and no --input-directory"
    )


def test_the_interpreter_is_that_of_the_venv_beside_main(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "c", venv="venv")
    assert look(root, None).python == root / "venv/bin/python"
    make_python(root / ".venv" / "bin" / "python")
    assert look(root, None).python == root / ".venv/bin/python"
    assert look(root, str(root / "venv/bin/python")).python == root / "venv/bin/python"


def test_an_interpreter_by_name_is_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_checkout(tmp_path / "c", venv=None)
    python = make_python(tmp_path / "bin" / "python3.99")
    monkeypatch.setenv("PATH", str(python.parent))
    assert look(root, "python3.99").python == python
    assert refusal(root, "python3.98") == (
        "python",
        "there is no python3.98 on the PATH",
        "python: the interpreter that ComfyUI was installed for",
    )


def test_without_an_interpreter_it_is_said_what_was_looked_for(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "c", venv=None)
    assert refusal(root) == (
        "python",
        f"{root} has no interpreter of its own: neither {root}/.venv/bin/python nor {root}/venv/bin/python is there",
        f"python: the interpreter it was installed for; or make one: python3 -m venv {root}/.venv",
    )
    assert refusal(root, "/no/python")[:2] == ("python", "there is no /no/python")


def test_an_environment_of_another_host(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "c", venv=None)
    link = root / ".venv" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to("/elsewhere/python3.12")
    assert refusal(root)[1] == f"{link} leads to /elsewhere/python3.12, which is not here"
    link.unlink()
    link.write_text("")
    assert refusal(root)[1] == f"{link} cannot be run"


# --- the command line


def slot(folder: Path, **more: object) -> Slot:
    return Slot(folder=folder, host="127.0.0.1", port=8189, **more)  # type: ignore[arg-type]


def test_a_slot_has_folders_and_a_database_of_its_own(tmp_path: Path) -> None:
    root, home = make_checkout(tmp_path / "c"), tmp_path / "data" / "comfyui-gpu1"
    found, ours = look(root, None), slot(home, args=("--cpu", "--preview-method", "auto"))
    prepare(ours, found)
    assert sorted(p.name for p in home.iterdir()) == ["input", "output", "user"]
    assert command(ours, found) == [
        *(f"{root}/.venv/bin/python", f"{root}/main.py", "--listen", "127.0.0.1", "--port", "8189"),
        *("--output-directory", f"{home}/output", "--temp-directory", str(home), "--input-directory", f"{home}/input"),
        *("--user-directory", f"{home}/user", "--database-url", f"sqlite:///{home}/user/comfyui.db"),
        *("--cpu", "--preview-method", "auto"),
    ]


def test_what_a_version_does_not_know_is_left_out(tmp_path: Path) -> None:
    found = look(make_checkout(tmp_path / "c", options=OLD), None)
    words = command(slot(tmp_path / "s"), found)
    assert [w for w in words if w.startswith("--")] == list(OLD)


def test_it_takes_files_as_large_as_jobs_may_bring(tmp_path: Path) -> None:
    found = look(make_checkout(tmp_path / "c", options=(*OLD, "--max-upload-size")), None)
    words = command(slot(tmp_path / "s", upload_mib=256, args=("--cpu",)), found)
    assert words[-3:] == ["--max-upload-size", "257", "--cpu"]
    old = look(make_checkout(tmp_path / "old", options=OLD), None)
    assert "--max-upload-size" not in command(slot(tmp_path / "s", upload_mib=256), old)


def test_a_folder_that_no_url_can_name_gets_a_database_in_memory(tmp_path: Path) -> None:
    found = look(make_checkout(tmp_path / "c"), None)
    for name in ("50%", "what?", "a#b"):
        words = command(slot(tmp_path / name), found)
        assert words[words.index("--database-url") + 1] == "sqlite:///:memory:"


def test_models_of_a_folder_of_a_list_and_of_sections(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "c")
    shared = tmp_path / "shared models"
    for name in ("loras", "ultralytics", ".cache", "custom_nodes"):
        (shared / name).mkdir(parents=True)
    found = look(root, None)
    sections = {"farm": {"base_path": "/srv/a1111", "is_default": True, "loras": "models/Lora\nmodels/LyCORIS"}}
    ours = slot(tmp_path / "s", model_folders=(str(shared), "/not/there"), model_paths=sections)
    prepare(ours, found)
    file = ours.folder / "extra_model_paths.yaml"
    assert yaml.safe_load(file.read_text()) == {
        "emp-0": {
            "base_path": str(shared),
            "checkpoints": "checkpoints",
            "loras": "loras",
            "ultralytics": "ultralytics",
        },
        "emp-1": {"base_path": "/not/there", "checkpoints": "checkpoints"},
        **sections,
    }
    assert command(ours, found)[-2:] == ["--extra-model-paths-config", str(file)]
    bare = slot(tmp_path / "s")
    prepare(bare, found)
    assert "--extra-model-paths-config" not in command(bare, found)


def test_models_for_a_version_that_takes_none_from_elsewhere(tmp_path: Path) -> None:
    found = look(make_checkout(tmp_path / "c", options=OLD), None)
    with pytest.raises(EmpError, match="knows no --extra-model-paths-config, which models needs"):
        prepare(slot(tmp_path / "s", model_folders=("/srv/models",)), found)


def test_names_of_models_survive_the_file(tmp_path: Path) -> None:
    section: dict[str, str | bool] = {"base_path": "/srv/Ünïcode 🙂: #1", "vae": "yes\n- no"}
    assert yaml.safe_load(models.text((), {"a: b": section}, tmp_path)) == {"a: b": section}


def test_emps_own_environment_is_not_where_pip_would_install(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "c")
    emps = Path(sys.prefix) / "bin"
    inherited = {"PATH": f"{emps}:/bin", "VIRTUAL_ENV": sys.prefix, "A": "b"}
    assert environment(look(root, None), inherited) == {"PATH": "/bin", "A": "b"}
    (root / ".venv" / "pyvenv.cfg").write_text("")
    ours = {"PATH": f"{root}/.venv/bin:/bin", "VIRTUAL_ENV": f"{root}/.venv", "A": "b"}
    assert environment(look(root, None), inherited) == ours


def test_an_interpreter_by_name_is_never_emps_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_checkout(tmp_path / "c", venv=None)
    emps = Path(sys.prefix) / "bin"
    monkeypatch.setenv("PATH", str(emps))
    assert (emps / "python3").exists()
    assert refusal(root, "python3")[1] == "there is no python3 on the PATH"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmpError, match=r"cannot write .*file/s/output: Not a directory"):
        prepare(slot(tmp_path / "file" / "s"), look(make_checkout(tmp_path / "c"), None))


# --- a user's own words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cpu", "--fast", "fp16_accumulation", "--cuda-malloc", "--enable-cors-header=*"], []),
        (["--", "-x", "--port=1"], [(2, "--port")]),
        (["--user-dir", "/x"], [(0, "--user-directory")]),
        (
            ["--out", "x", "--temp", "y", "--database"],
            [(0, "--output-directory"), (2, "--temp-directory"), (4, "--database-url")],
        ),
        (["--extra-model-paths-config", "/a.yaml", "--base-directory", "/b"], []),
        (["--tls-key", "k"], [(0, "--tls-keyfile")]),
    ],
)
def test_words_that_undo_what_emp_sets(words: list[str], told: list[tuple[int, str]]) -> None:
    assert [(index, option) for index, option, _ in options.refused(words)] == told
