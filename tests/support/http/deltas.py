"""What a client of the live stream does: begins with a snapshot, applies deltas, begins anew when one is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Names in `set` and `gone`, and what the id of such a thing is.
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "machines": lambda row: row["machine_id"],
    "workers": lambda row: row["worker_id"],
    "drift": lambda row: row["key"],
    "desired": lambda row: row["id"],
    "jobs": lambda row: row["job_id"],
    "pools": lambda row: row["name"],
    "members": lambda row: row["id"],
    "points": lambda row: f"{row['pool']}/{row['at']}",
}


class Gap(Exception):
    """A delta is based on another revision than the one that is known."""


class Mirror:
    """The state as this client knows it: tables by id, and the rest."""

    def __init__(self) -> None:
        self.revision: int | None = None
        self.tables: dict[str, dict[str, Any]] = {}
        self.rest: dict[str, Any] = {}

    def snapshot(self, document: dict[str, Any]) -> None:
        self.revision = document["revision"]
        self.tables, self.rest = parted(document["data"])

    def delta(self, document: dict[str, Any]) -> None:
        """Raises Gap."""
        if document["base"] != self.revision:
            raise Gap(f"have {self.revision}, was sent what differs from {document['base']}")
        told, gone = document["set"], document["gone"]
        jobs = told.get("jobs", {})
        for name, table in self.tables.items():
            for key in gone.get(name, ()):
                del table[key]
            table.update(jobs.get("active", {}) if name == "jobs" else told.get(name, {}))
        for name, value in {**told, "counts": jobs.get("counts")}.items():
            if name in self.rest and value is not None:
                self.rest[name] = value
        self.revision = document["revision"]

    def told(self, event: str, document: dict[str, Any]) -> None:
        """Take what the stream says; other events are passed over. Raises Gap."""
        if event == "full_state_snapshot":
            self.snapshot(document)
        elif event == "delta":
            self.delta(document)

    @property
    def known(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """What means something: without what changes by itself."""
        return steady(self.tables, self.rest)


def parted(state: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """A whole state as tables by id and the rest."""
    fleet = dict(state["fleet"])
    lists = {
        **{name: state[name] for name in ("machines", "workers", "drift", "pools", "members", "points")},
        "desired": fleet.pop("machines"),
        "jobs": state["jobs"]["active"],
    }
    tables = {name: {TABLES[name](row): row for row in rows} for name, rows in lists.items()}
    return tables, {"fleet": fleet, "counts": state["jobs"]["counts"], "system_stats": state["system_stats"]}


def steady(tables: dict[str, dict[str, Any]], rest: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    bare = {
        name: {
            key: {f: v for f, v in row.items() if f != "age_s" and (f != "last_seen" or row["stale"])}
            for key, row in rows.items()
        }
        if name in ("machines", "workers")
        else rows
        for name, rows in tables.items()
    }
    stats = {k: v for k, v in rest["system_stats"].items() if k not in ("reconciler", "api")}
    reconciler = {k: v for k, v in rest["system_stats"]["reconciler"].items() if k not in ("as_of", "age_s")}
    return bare, {**rest, "system_stats": {**stats, "reconciler": reconciler}}
