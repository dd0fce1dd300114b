"""What a run made, on its way from the service into the artifact store."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath

from emp_orch.connectors.base import Run, RunFailed
from emp_orch.connectors.comfyui import follow
from emp_orch.connectors.comfyui.protocol import File, Record, files_of, texts_of
from emp_orch.connectors.comfyui.server import Server
from emp_orch.connectors.http_client import NETWORK
from emp_orch.connectors.outputs import body_of, content_type_of, once
from emp_orch.jobs.model import Output, Result


async def save(server: Server, record: Record, run: Run) -> Result:
    """Copy what the record names into the artifact store."""
    outputs = [await _save_file(server, file, run) for _, file in files_of(record)]
    outputs += [
        await run.save(f"{node_id}.txt", "text/plain; charset=utf-8", once(text.encode(errors="replace")))
        for node_id, text in texts_of(record)
    ]
    return Result(outputs=tuple(outputs))


async def _save_file(server: Server, file: File, run: Run) -> Output:
    """Copy one file; begun again for a while when the connection breaks."""
    name = PurePosixPath(file.filename).name
    loop = asyncio.get_running_loop()
    deadline = loop.time() + follow.GONE_S
    query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
    while True:
        try:
            async with server.view(query) as answer:
                if answer.status != 200:
                    words = f"the service made {name} but answered {answer.status} for it"
                    raise RunFailed(words, retryable=True)
                return await run.save(name, content_type_of(answer, name), body_of(answer))
        except NETWORK:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(follow.RECONNECT_S)
