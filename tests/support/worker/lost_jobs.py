"""A fleet whose reconciler looks after lost jobs: its emp.yaml, and who leads it."""

from __future__ import annotations

FLEET = """
version: 1
name: lost
services: {simulation: {scale: per_machine, builtin: simulation, port: 8299}}
machines: {m: {num_gpus: 1, services: [simulation]}}
jobs: {lease: 1s}
"""

LONG_MS = 3_600_000


def leading() -> None:
    """Nobody else cares for lost jobs here."""
