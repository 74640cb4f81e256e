"""Self-contained HTML pages and the figures in them: no script, font or picture from elsewhere.

On the floor above `errors`. matplotlib and Jinja2 are imported when a page is written.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
BLUE, ORANGE, INK = "#2563eb", "#d97706", "#111827"


def write(template: str, path: Path, **told: Any) -> None:
    """Write a page from a template, all or nothing."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template(template).render(**told)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def axes(n: int, height: float = 2.6) -> "tuple[Figure, Sequence[Axes]]":
    """A figure with n plots side by side, `height` inches high."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "ecom", "svg.fonttype": "none"}  # text stays text: a tenth of the size
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    found = figure.subplots(1, n, squeeze=False)[0]
    for one in found:
        one.spines[["top", "right"]].set_visible(False)
    return figure, found


def forest(where: "Axes", names: Sequence[str], rows: Sequence[Any], zero: bool = False) -> None:
    """Values with their intervals, the first on top; rows have `value`, `ci_low`, `ci_high`."""
    for place, row in enumerate(rows):
        where.plot([row.ci_low, row.ci_high], [-place, -place], color=BLUE, linewidth=2)
        where.plot(row.value, -place, "o", color=BLUE)
    where.set_yticks([-place for place in range(len(names))], names)
    where.margins(y=0.2 if len(names) < 10 else 0.03)
    if zero:
        where.axvline(0, color=INK, linewidth=1, linestyle=":")


def svg(figure: "Figure") -> str:
    """A figure as a piece of HTML."""
    from markupsafe import Markup

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup(buffer.getvalue()[buffer.getvalue().index("<svg") :])  # ours: nothing of a user's is in it unescaped
