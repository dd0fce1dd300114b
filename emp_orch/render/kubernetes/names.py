"""What the objects of a pool are called, and by which labels they know its pods."""

from __future__ import annotations

from msgspec import Struct

from emp_orch.fleet.model.fleet import Pool
from emp_orch.render.box import Box

FLEET, POOL = "emp.fleet", "emp.pool"
# Of both secrets.
TOKEN_KEY = "token"  # noqa: S105  # a key's name

Document = dict[str, object]


class OnCluster(Struct, frozen=True, kw_only=True):
    """A pool as a cluster is to have it: `box` as each of its boxes is, `api` the URL at which they join. No more than
    `max_unavailable` of them (a number, or a per cent: `25%`) may be away for the cluster's own reasons. `downloads`:
    jobs may name URLs as inputs.
    """

    fleet: str
    pool: Pool
    box: Box
    api: str
    max_unavailable: int | str
    downloads: bool = False

    @property
    def name(self) -> str:
        """Of all its objects. A pod is called NAME-0, NAME-1, …, which are ids of members."""
        return self.pool.name

    @property
    def join_secret(self) -> str:
        """Holds the token of `emp pool join`."""
        return f"{self.name}-join"

    @property
    def api_secret(self) -> str:
        """Holds a token of the API with the role read."""
        return f"{self.name}-api"

    @property
    def scales(self) -> bool:
        """Whether its size is for the queue to say."""
        return self.pool.min_size < self.pool.max_size

    @property
    def labels(self) -> dict[str, str]:
        # A label's value ends with a letter or digit.
        return {FLEET: self.fleet.rstrip("-"), POOL: self.name}

    def document(self, api: str, kind: str, name: str = "", **content: object) -> Document:
        """One object, with the pool's name unless another is given."""
        metadata = {"name": name or self.name, "labels": self.labels}
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}
