"""Raw relations: rows and templates as a source states them, before anything is merged or refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["RawRelation", "Row"]


class Row(NamedTuple):
    """One row of a source."""

    subject: str
    objects: tuple[str, ...]
    id: str = ""
    year: int | None = None


@dataclass
class RawRelation:
    """A relation as a source states it."""

    name: str
    language: str
    where: str
    """The file, or what else it was read from."""
    rows: list[Row] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    """Each with `text`, and `form`, `side` and `separator` where they are stated."""
    description: str = ""
    source: str = ""
