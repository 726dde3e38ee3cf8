"""Charts in one style, each as two PNG files: on light and on dark ground."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Colours of lines (Okabe and Ito 2008); the last one is grey.
SERIES = ("#3f7fd6", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8f99")

_INK = {"light": ("#1b1f27", "#ffffff", "#d9dde5"), "dark": ("#e7eaf0", "#171b22", "#343b47")}


@dataclass(frozen=True)
class Chart:
    """A chart on light and on dark ground, PNG bytes."""

    light: bytes
    dark: bytes


def chart(draw: Callable[[Figure], None], size: tuple[float, float]) -> Chart:
    """What ``draw`` puts on a figure of so many inches, 120 pixels each."""
    return Chart(*(_render(draw, size, ground) for ground in ("light", "dark")))


def _render(draw: Callable[[Figure], None], size: tuple[float, float], ground: str) -> bytes:
    ink, paper, line = _INK[ground]
    style = {
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.titlecolor": ink,
        "axes.facecolor": paper,
        "figure.facecolor": paper,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.edgecolor": line,
        "grid.color": line,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "font.size": 9,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "text.parse_math": False,  # names from data are text, never formulas
    }
    with mpl.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
