"""A parsed emp.yaml: scalars, sequences and mappings that know their places."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from emp_orch.manifest.text.problems import Mark, Path


class Scalar(Struct, frozen=True):
    """`text` as it stands in the file. `plain`: unquoted, so that it may mean a number, true, false or nothing."""

    text: str
    plain: bool
    mark: Mark


class Sequence(Struct, frozen=True):
    items: tuple[Node, ...]
    mark: Mark


class Mapping(Struct, frozen=True):
    """Keys are text. `keys` holds where each key stands, `values` what it holds; merge keys are already merged."""

    keys: dict[str, Mark]
    values: dict[str, Node]
    mark: Mark


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file: its root mapping, and where everything in it stands."""

    file: str
    root: Mapping

    def node(self, path: Path) -> Node | None:
        """The node at `path`, or None."""
        node: Node | None = self.root
        for step in path:
            match node:
                case Mapping() if isinstance(step, str):
                    node = node.values.get(step)
                case Sequence() if isinstance(step, int) and step < len(node.items):
                    node = node.items[step]
                case _:
                    return None
        return node

    def key_mark(self, path: Path) -> Mark:
        """Where the last key of `path` stands; for a list's item, the item. Falls back as value_mark does."""
        parent, step = self.node(path[:-1]), path[-1] if path else ""
        if isinstance(parent, Mapping) and isinstance(step, str) and step in parent.keys:
            return parent.keys[step]
        return self.value_mark(path)

    def value_mark(self, path: Path) -> Mark:
        """Where the value at `path` stands. A machine's may stand in `defaults`; else the key nearest above it."""
        node = self.node(path)
        if node is None and path[:1] == ("machines",):
            node = self.node(("defaults", *path[2:]))
        if node is not None:
            return node.mark
        return self.key_mark(path[:-1]) if path else self.root.mark


def kind(node: Node) -> str:
    match node:
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case Scalar():
            return "text"
