"""The versions of ComfyUI that the simulation can speak as, and in what they differ for a client.

Each was read in ComfyUI's own server.py and execution.py; docs/comfyui.md has the table in words.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class PromptIds(StrEnum):
    """Who names a prompt: the server always, the client as it likes, or the client by a UUID."""

    SERVER = "server"
    ANY = "any"
    UUID = "uuid"


class Version(Struct, frozen=True, kw_only=True):
    """What a server of this version does.

    `targeted_interrupt`: POST /interrupt heeds a prompt_id; otherwise it stops whatever runs. `feature_flags`: a client
    may ask for previews with metadata. `jobs`: GET /api/jobs. `cancel`: POST /api/jobs/{id}/cancel. `hides_keys`: API
    keys of a prompt are kept out of /queue; `forgets_keys`: out of /history. `preview_method`: a prompt may choose it.
    """

    name: str
    prompt_ids: PromptIds
    targeted_interrupt: bool = True
    feature_flags: bool = True
    jobs: bool = True
    cancel: bool = True
    hides_keys: bool = True
    forgets_keys: bool = True
    preview_method: bool = True
    # The oldest that was seen to do the same, where that is another.
    since: str = ""
    # A node class that is not there: `missing_node_type`, with the node's title, since 0.12 or so.
    names_missing_nodes: bool = True


_ALL = (
    Version(
        name="0.3.10",
        prompt_ids=PromptIds.SERVER,
        targeted_interrupt=False,
        feature_flags=False,
        jobs=False,
        cancel=False,
        hides_keys=False,
        forgets_keys=False,
        preview_method=False,
        names_missing_nodes=False,
    ),
    Version(
        name="0.3.64",
        prompt_ids=PromptIds.ANY,
        jobs=False,
        cancel=False,
        hides_keys=False,
        preview_method=False,
        names_missing_nodes=False,
    ),
    Version(name="0.8.0", prompt_ids=PromptIds.ANY, cancel=False, names_missing_nodes=False),
    Version(name="0.33.0", prompt_ids=PromptIds.UUID, since="0.28.0"),
)

VERSIONS = {version.name: version for version in _ALL}
NEWEST = _ALL[-1].name
