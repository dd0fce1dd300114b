"""Whatever a value holds, it arrives as it is and stays in its place: PyYAML reads every compose.yaml back."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from emp_orch.fleet.model.fleet import GpuKind, Gpus, Volume
from emp_orch.render.quoting import compose_text
from support.docker.compose import container, placed, read, text

CHARS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NASTY = st.sampled_from(
    [
        *("", " ", "\n", "a\r\nb", "\t", "\x7f", "\x85", "\u2028", "\ufeff", "🙂", "ü", "\x1b[0m", "\x01"),
        *("$", "$$", "${HOME}", "$HOME", "$${A:-b}", '"', "'", "\\", "\\n", '"\n  evil: 1', "#", " # x", ": ", "- "),
        *("{", "}", "[", "]", "*a", "&a", "!x", "|", ">", "%", "@", "`", "null", "true", "1", "0x1", "1e3", "~"),
        *("{{ x }}", "{% x %}"),
    ]
)
TEXT = st.one_of(NASTY, st.text(CHARS, max_size=20), st.lists(NASTY, max_size=4).map("".join))
STEADY = settings(deadline=None, derandomize=True)


@settings(STEADY, max_examples=500)
@given(TEXT)
def test_a_quoted_text_is_read_back(value: str) -> None:
    line = compose_text(value)
    assert line.isascii()
    assert line.isprintable()
    assert yaml.safe_load(line).replace("$$", "$") == value
    assert yaml.safe_load(line).count("$") == 2 * value.count("$")


@settings(STEADY, max_examples=200)
@given(TEXT, TEXT, TEXT, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3), st.none() | TEXT)
def test_no_value_leaves_its_place(
    image: str, url: str, prefix: str, source: str, target: str, ids: list[str], folder: str | None
) -> None:
    m = container(
        image=image or "x",
        num_gpus=len(ids),
        gpus=Gpus(kind=GpuKind.NVIDIA, ids=tuple(ids)),
        volumes=(Volume(source=source, target=target, read_only=True),),
    )
    one = placed(m, redis_url=url, prefix=prefix, artifacts_url=url, secrets=folder, artifacts=folder, user=prefix)
    document: dict[str, Any] = read(text(one, fleet="f", project=source))
    assert set(document) == {"name", "services", "volumes"} | ({"secrets"} if folder is not None else set())
    assert list(document["services"]) == ["m"]
    service = document["services"]["m"]
    plain = set(read(text(placed(container(), secrets=folder, artifacts=folder)))["services"]["m"])
    assert set(service) == plain | {"deploy"}
    assert (document["name"], service["image"], service["user"]) == (source, image or "x", prefix)
    assert (service["container_name"], document["volumes"]["m"]["name"]) == (f"{source}-m", f"{source}_m")
    environment = service["environment"]
    assert (environment["REDIS_URL"], environment["HUB_REDIS_URL"]) == (url, url)
    assert (environment["EMP_REDIS_PREFIX"], environment["EMP_ARTIFACTS_URL"]) == (prefix, url)
    assert len(environment) == 9
    bind = service["volumes"][2]
    assert (bind["source"], bind["target"]) == (source, target)
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ids
    if folder is not None:
        assert {s["file"] for s in document["secrets"].values()} == {
            f"{folder}/{n}" for n in ("hub_redis_url", "secrets.json", "orders.json")
        }
        assert service["volumes"][3]["source"] == service["volumes"][3]["target"] == folder
