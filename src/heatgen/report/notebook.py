"""What Python gets of a run: samples and results as plain objects, which notebooks show as pictures and tables."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.metric.pictures.figure import as_image
from heatgen.metric.result import Result, Series, Value
from heatgen.picture import grid, is_points, save_gif
from heatgen.report.page import cell
from heatgen.report.table import FILM, plot_series
from heatgen.runtime.files import absolute, atomic_path, save_picture, save_tensors

PICTURED = 100  # images in a grid; of points, all
SAID = ("n", "seed", "t", "sampler", "steps", "nfe")  # of the settings of samples, and what is true


@dataclass(frozen=True, eq=False)
class Samples:
    """Fields that a model has drawn.

    Args:
        tensor: (n, C, H, W) float32 on the CPU, in the range of the data.
        initial: the states that the way back began from, of the same shape.
        states: the states on the way, of the first few, (m, frames, C, H, W).
        settings: how they were drawn, as plain data.
        spec: of the data, for pictures.
    """

    tensor: Tensor
    initial: Tensor
    states: Tensor
    settings: Mapping[str, object]
    spec: DataSpec = field(repr=False)

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        return f"Samples({list(self.tensor.shape)}, {self.words})"

    @property
    def words(self) -> str:
        """How they were drawn, on one line."""
        return as_words({key: value for key, value in self.settings.items() if key in SAID or value is True})

    def picture(self, columns: int | None = None) -> Image.Image:
        """The first 100 images in a grid, or all points."""
        shown = self.tensor if is_points(self.tensor.shape[1:]) else self.tensor[:PICTURED]
        return grid(self.spec.to_unit(shown), columns)

    def film(self) -> list[Image.Image]:
        """The way back of the first few, a picture a state."""
        return [grid(state) for state in self.spec.to_unit(self.states).unbind(1)]

    def show(self) -> None:
        """Show the grid: in a notebook below the cell, else in a window."""
        show(self.picture())

    def save(self, path: str | Path) -> Path:
        """Write them: FILE.pt with tensors and settings, as `heatgen sample` does; FILE.png, the grid; FILE.gif, the film.

        ConfigError for another kind of file.
        """
        path = absolute(path)
        if path.suffix == ".pt":
            save_tensors(path, {"samples": self.tensor, "initial": self.initial, "settings": dict(self.settings)})
        elif path.suffix == ".gif":
            with atomic_path(path) as beside:
                save_gif(beside, self.film())
        elif path.suffix == ".png":
            save_picture(path, self.picture())
        else:
            raise ConfigError(f"path = {path} must end in .pt, .png or .gif.")
        return path

    def _repr_html_(self) -> str:
        caption = f"{len(self)} of {' x '.join(map(str, self.tensor.shape[1:]))}; {self.words}"
        return f"<figure>{as_html(self.picture(), 'samples')}<figcaption>{escape(caption)}</figcaption></figure>"


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What a mode has measured.

    Args:
        mode: its name.
        values: name -> number with its standard error, unit and label.
        facts: what a reader must know of them, such as n and the split.
        notes: caveats, a sentence each.
        series: columns of numbers by name, the first one the abscissa.
        pictures: name -> image, or the images of a film.
        content: all of it but the pictures as plain data, which is what `heatgen evaluate` writes.
    """

    mode: str
    values: Mapping[str, Value]
    facts: Mapping[str, object]
    notes: Sequence[str]
    series: Mapping[str, Series]
    pictures: Mapping[str, Image.Image | list[Image.Image]] = field(repr=False)
    content: Mapping[str, object] = field(repr=False)

    @classmethod
    def of(cls, mode: str, result: Result) -> "EvaluationResult":
        """That of a metric's result."""
        return cls(
            mode,
            {value.name: value for value in result.numbers},
            result.facts,
            tuple(result.notes),
            {curve.name: curve for curve in result.curves},
            result.pictures,
            {"mode": mode} | json.loads(json.dumps(result.content(), default=str)),
        )

    def __getitem__(self, name: str) -> float:
        """The value of this name."""
        return self.values[name].value

    def __repr__(self) -> str:
        headlines = [f"{value.label} {cell(value.value, value.error)} {value.unit}".strip() for value in self.headline]
        return f"EvaluationResult({self.mode}: {', '.join(headlines)})"

    @property
    def headline(self) -> list[Value]:
        """The values that stand for the result."""
        names = self.content["headline"]
        return [self.values[name] for name in names if name in self.values] if isinstance(names, list) else []

    def _repr_html_(self) -> str:
        rows = [(value.label, cell(value.value, value.error), value.unit) for value in self.values.values()]
        parts = [f"<b>{escape(self.mode)}</b>", html_table(("metric", "value ± standard error", "unit"), rows)]
        parts += [f"<p>{escape(as_words(self.facts))}</p>"] if self.facts else []
        parts += [f"<p>Note: {escape(note)}</p>" for note in self.notes]
        if self.series:
            parts.append(as_html(as_image(plot_series(list(self.series.values()), self.mode)), "series"))
        parts += [as_html(picture, name) for name, picture in self.pictures.items()]
        return "\n".join(parts)


def as_words(facts: Mapping[str, object]) -> str:
    """Facts on one line."""
    return "; ".join(f"{key}: {value}" for key, value in facts.items() if value is not None)


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts."""
    head, *body = [
        "".join(f"<{tag}>{escape(text)}</{tag}>" for text in row)
        for tag, row in [("th", headings), *(("td", row) for row in rows)]
    ]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in body)}</table>"


def as_html(picture: Image.Image | list[Image.Image], name: str) -> str:
    """A picture, or a film, inside a page."""
    buffer, kind = io.BytesIO(), "gif" if isinstance(picture, list) else "png"
    if isinstance(picture, list):
        picture[0].save(buffer, "GIF", save_all=True, append_images=picture[1:], duration=FILM, loop=0)
    else:
        picture.save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(name)}" style="max-width: 100%" src="data:image/{kind};base64,{content}">'


def show(picture: Image.Image) -> None:
    """Show a picture: in a notebook below the cell, else in a window."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        picture.show()
        return
    if get_ipython() is None:
        picture.show()
    else:
        display(picture)
