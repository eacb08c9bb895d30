"""The example: a small spreadsheet of three relations, to run as it is and to put one's own facts into."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from relation_neurons.errors import RelationFormatError

__all__ = ["write_example"]


def write_example(path: str | Path) -> Path:
    """Writes the example spreadsheet.

    Its facts are common knowledge, typed in by hand (MIT). Facts and wordings were kept where
    SmolLM2-135M knows them, so that a first heatmap lacks nothing.

    Args:
        path: the file, `.csv`; the folder above it must be there.

    Raises:
        RelationFormatError: a file that is there already, another suffix, or one that cannot be
            written.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise RelationFormatError(
            f"{path} is no place for the example; expected a file that ends in .csv."
        )
    text = (resources.files("relation_neurons") / "data" / "example.csv").read_text(
        encoding="utf-8"
    )
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError as error:
        raise RelationFormatError(
            f"{path} is there already and may hold your facts. Give another name."
        ) from error
    except OSError as error:
        raise RelationFormatError(f"{path} cannot be written: {error}.") from error
    return path
