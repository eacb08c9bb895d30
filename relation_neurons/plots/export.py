"""Figures as PNG, SVG and PDF files, which needs Kaleido and a browser."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
import plotly.io

from relation_neurons.errors import ResultsError, UnknownOptionError, near_matches
from relation_neurons.plots.style import require_theme, themed

__all__ = ["IMAGE_FORMATS", "require_images", "save", "save_all"]

IMAGE_FORMATS = ("png", "svg", "pdf")
_INSTALL = 'in your checkout: pip install -c constraints.txt -e ".[images]"'


def save(fig: go.Figure, path: str | Path, *, theme: str = "light", scale: int | float = 2) -> Path:
    """Writes a figure as an image, in the format that the file's suffix names.

    Args:
        fig: a figure from a function of `plots`.
        path: the file, which ends in `.png`, `.svg` or `.pdf`.
        theme: see `themed`.
        scale: pixels per unit of a PNG.

    Raises:
        UnknownOptionError: the path has another suffix.
        ResultsError: Kaleido or a browser for it is missing, or the file cannot be written.
    """
    path = Path(path)
    ending = path.suffix.lower().removeprefix(".")
    return save_all({path.stem: fig}, path.parent, formats=(ending,), theme=theme, scale=scale)[0]


def save_all(
    figures: Mapping[str, go.Figure],
    folder: Path,
    *,
    formats: Sequence[str] = ("png",),
    theme: str = "light",
    scale: int | float = 2,
) -> list[Path]:
    """Writes figures as `<name>.<format>`, all with one browser.

    Args:
        figures: the figures, by file name.
        folder: created if it does not exist.
        formats: some of `IMAGE_FORMATS`.
        theme: see `themed`.
        scale: pixels per unit of a PNG.

    Raises:
        UnknownOptionError: the format or theme is unknown.
        ResultsError: Kaleido or a browser for it is missing, or a file cannot be written.
    """
    require_images(formats, theme)
    asked = [(fig, f"{name}.{kind}") for name, fig in figures.items() for kind in formats]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as made:
            _draw(
                [themed(fig, theme) for fig, _ in asked], [Path(made) / n for _, n in asked], scale
            )
            return [(Path(made) / name).replace(folder / name) for _, name in asked]
    except ResultsError:  # an OSError too, whose message is complete
        raise
    except OSError as error:
        raise ResultsError(
            f"The folder {folder} cannot be written: {error.strerror or error}."
        ) from error


def require_images(formats: Sequence[str], theme: str) -> None:
    """Checks the requested image formats and theme.

    Raises:
        UnknownOptionError: there is no such format or theme.
    """
    for kind in formats:
        if kind not in IMAGE_FORMATS:
            raise UnknownOptionError(
                f"There is no image format {kind!r}. {near_matches(kind, IMAGE_FORMATS)}"
            )
    require_theme(theme)


def _draw(figures: list[go.Figure], paths: list[Path], scale: int | float) -> None:
    try:
        sizes = {side: [fig.layout[side] for fig in figures] for side in ("width", "height")}
        plotly.io.write_images(figures, paths, scale=scale, **sizes)
    except Exception as error:  # Kaleido and its browser fail in many ways
        raise ResultsError(
            f"The figure {paths[0].stem} cannot be drawn as an image: {type(error).__name__}. Install "
            f"Kaleido ({_INSTALL}) and a browser (plotly_get_chrome, or your system's chromium); "
            "fig.write_html(path) needs neither."
        ) from error
