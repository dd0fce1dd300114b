"""Files: colours, counters that two services share, uploads, what /view gives and refuses, models."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from emp_orch.services.simulation import png
from support.comfyui.client import Client, Make
from support.comfyui.service import ComfyService, running
from support.comfyui.workflows import a_color, color_of, first_color_of, node, saved

SOLID = png.Picture(width=4, height=4, rgb=bytes.fromhex("c04020") * 16)


async def test_a_batch_is_counted_on_from_the_highest_number_there_is(client: Client, service: ComfyService) -> None:
    (service.output / "count_00041_.png").write_bytes(b"")
    (service.output / "count_x_.png").write_bytes(b"")
    (service.output / "counted_00099_.png").write_bytes(b"")
    color = a_color()
    files = (await client.run(saved(color, batch=3, prefix="count")))["outputs"]["2"]["images"]
    assert [f["filename"] for f in files] == [f"count_000{n}_.png" for n in (42, 43, 44)]
    for file in files:
        content = await client.view(file)
        assert content is not None and color_of(content) == color


async def test_previews_are_temporary_files(client: Client, service: ComfyService) -> None:
    color = a_color()
    record = await client.run({"1": saved(color)["1"], "2": node("PreviewImage", images=["1", 0])})
    (file,) = record["outputs"]["2"]["images"]
    assert file["type"] == "temp" and file["filename"].startswith("ComfyUI_temp_")
    content = await client.view(file)
    assert content is not None and color_of(content) == color
    assert (service.temp / file["filename"]).is_file()


async def test_a_prefix_cannot_leave_the_output_folder(client: Client, service: ComfyService) -> None:
    record = await client.run(saved(a_color(), prefix="../../evil"))
    error = record["status"]["messages"][-1][1]
    assert record["status"]["messages"][-1][0] == "execution_error" and record["outputs"] == {}
    assert "outside the output folder is not allowed" in error["exception_message"]
    assert not list(service.files.parent.glob("evil*"))


async def test_what_view_refuses(client: Client) -> None:
    cases = [
        ({"filename": "../x.png"}, 400),
        ({"filename": "/etc/hostname"}, 400),
        ({"filename": "nothing.png"}, 404),
        ({"filename": "x.png", "type": "nowhere"}, 400),
        ({"filename": "x.png", "subfolder": "../.."}, 403),
        ({}, 404),
    ]
    for query, status in cases:
        async with client.http.get("/view", params=query) as answer:
            assert answer.status == status, query


async def upload(client: Client, path: str, content: bytes, name: str = "in.png", **fields: str) -> tuple[int, object]:
    form = aiohttp.FormData()
    form.add_field("image", content, filename=name, content_type="image/png")
    for key, value in fields.items():
        form.add_field(key, value)
    async with client.http.post(path, data=form) as answer:
        return answer.status, await answer.json() if answer.status == 200 else None


async def test_an_upload_is_loaded_from_its_subfolder(client: Client, service: ComfyService) -> None:
    status, told = await upload(client, "/upload/image", png.encode(SOLID), subfolder="emp/job-1")
    assert status == 200 and told == {"name": "in.png", "subfolder": "emp/job-1", "type": "input"}
    assert (service.input / "emp/job-1/in.png").read_bytes() == png.encode(SOLID)
    workflow = saved(0) | {"1": node("LoadImage", image="emp/job-1/in.png")}
    (file,) = (await client.run(workflow))["outputs"]["2"]["images"]
    content = await client.view(file)
    assert content is not None and color_of(content) == 0xC04020


async def test_an_upload_under_a_taken_name(client: Client) -> None:
    """Other content gets another name, the same content the same; with `overwrite` the name is kept."""
    first, second = png.encode(SOLID), png.encode(png.Picture(width=1, height=1, rgb=b"\x01\x02\x03"))
    assert (await upload(client, "/upload/image", first, "taken.png"))[1]["name"] == "taken.png"  # type: ignore[index]
    assert (await upload(client, "/upload/image", first, "taken.png"))[1]["name"] == "taken.png"  # type: ignore[index]
    again = (await upload(client, "/upload/image", second, "taken.png"))[1]
    assert again["name"] == "taken (1).png"  # type: ignore[index]
    over = (await upload(client, "/upload/image", second, "taken.png", overwrite="true"))[1]
    assert over["name"] == "taken.png"  # type: ignore[index]
    found = await client.view({"filename": "taken.png", "type": "input"})
    assert found == second


async def test_a_changed_file_is_loaded_anew(client: Client) -> None:
    workflow = saved(0) | {"1": node("LoadImage", image="changed.png")}
    await upload(client, "/upload/image", png.encode(SOLID), "changed.png", overwrite="true")
    await client.run(workflow)
    other = png.encode(png.Picture(width=1, height=1, rgb=b"\x01\x02\x03"))
    await upload(client, "/upload/image", other, "changed.png", overwrite="true")
    (file,) = (await client.run(workflow))["outputs"]["2"]["images"]
    content = await client.view(file)
    assert content is not None and color_of(content) == 0x010203


async def test_uploads_stay_in_their_folder(client: Client, service: ComfyService) -> None:
    for subfolder in ("../..", "/tmp/evil"):
        status, _ = await upload(client, "/upload/image", png.encode(SOLID), "evil.png", subfolder=subfolder)
        assert status == 400, subfolder
    assert not list(service.files.glob("evil*"))


async def test_a_mask_is_put_onto_its_picture(client: Client) -> None:
    await upload(client, "/upload/image", png.encode(SOLID), "masked.png", overwrite="1")
    half = bytes([0] * 8 + [255] * 8)
    mask = png.encode(png.Picture(width=4, height=4, rgb=bytes(48), alpha=half))
    reference = '{"filename": "masked.png", "type": "input"}'
    status, told = await upload(client, "/upload/mask", mask, "mask.png", original_ref=reference, overwrite="1")
    assert status == 200 and told["name"] == "mask.png"  # type: ignore[index]
    content = await client.view({"filename": "mask.png", "type": "input"})
    assert content is not None
    found = png.decode(content)
    assert found.alpha == half and found.rgb == SOLID.rgb
    workflow = saved(0) | {
        "1": node("LoadImageMask", image="mask.png", channel="alpha"),
        "3": node("MaskToImage", mask=["1", 0]),
        "2": node("SaveImage", images=["3", 0], filename_prefix="mask"),
    }
    (file,) = (await client.run(workflow))["outputs"]["2"]["images"]
    content = await client.view(file)
    assert content is not None and png.decode(content).rgb == b"\xff" * 24 + b"\x00" * 24


async def test_two_services_on_one_output_folder_take_each_others_names(make: Make, tmp_path: Path) -> None:
    """Both look for the highest number and write: the last one wins. A prefix of its own keeps a run's pictures."""

    async def colours(services: list[ComfyService], prefix: str) -> list[tuple[int, int | None]]:
        """What was asked for, and what is found under the name that was given for it."""

        async def one(service: ComfyService, number: int) -> list[tuple[int, int | None]]:
            client, color = Client(service.url), 0x100000 * number + 0x800 + a_color() % 0x100
            try:
                name = prefix.replace("JOB", str(number))
                record = await client.run(saved(color, batch=8, prefix=name, side=768))
                read = [await client.view(f) for f in record["outputs"]["2"]["images"]]
                return [(color, first_color_of(c) if c else None) for c in read]
            finally:
                await client.http.close()

        made = await asyncio.gather(*(one(s, 2 * n + at) for n in range(2) for at, s in enumerate(services)))
        return [pair for found in made for pair in found]

    shared = tmp_path / "shared"
    with running(make(shared)) as first, running(make(shared)) as second:
        mixed = await colours([first, second], "same")
        apart = await colours([first, second], "emp/JOB/same")
    wrong = [pair for pair in mixed if pair[0] != pair[1]]
    assert wrong, "each is told names that the other wrote"
    assert all(asked == found for asked, found in apart)


async def test_models_are_listed_by_kind(client: Client) -> None:
    kinds = await client.get("/models")
    assert {"checkpoints", "loras", "vae", "controlnet", "upscale_models", "embeddings"} <= set(kinds)
    assert isinstance(await client.get("/models/checkpoints"), list)
    async with client.http.get("/models/nonsense") as answer:
        assert answer.status == 404
