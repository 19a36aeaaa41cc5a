"""A page of SVG: rectangles, lines, arrows, grids and text, with one set of colours."""

from __future__ import annotations

from html import escape
from pathlib import Path

INK = "#2b2b33"
PALE = "#f4f2f5"
LINE = "#b9b4bd"
KNOWN = "#cfe3d4"
HOLE = "#e9b8e2"
ACCENT = "#8a1c7c"
BLUE = "#bcd3ee"
GOLD = "#f5dfa6"
GREY = "#dedbe0"
WHITE = "#ffffff"
_FONT = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"


class Canvas:
    """Shapes in the order in which they are drawn; places and sizes in pixels.

    Args:
        width, height: of the page.
        title: what the picture shows, for readers who do not see it.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        self.size = (width, height)
        self.title = title
        self._parts: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = WHITE,
        *,
        stroke: str = LINE,
        round: float = 0,
        thick: float = 1,
        title: str = "",
    ) -> None:
        """Draw a rectangle from its top left corner; `title` is shown under the pointer."""
        inner = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round:g}" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="{thick:g}">{inner}</rect>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 13,
        anchor: str = "middle",
        colour: str = INK,
        bold: bool = False,
        turn: float = 0,
    ) -> None:
        """Write words whose baseline is at y; `anchor` is start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        turned = f' transform="rotate({turn:g} {x:g} {y:g})"' if turn else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{colour}"{weight}{turned}>{escape(words)}</text>'
        )

    def line(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        *,
        colour: str = INK,
        thick: float = 1.2,
        dash: str = "",
        arrow: bool = False,
    ) -> None:
        """Draw a straight line, with `arrow` one that points to its end."""
        head = ' marker-end="url(#head)"' if arrow else ""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{colour}" '
            f'stroke-width="{thick:g}"{dashes}{head}/>'
        )

    def curve(
        self, path: str, *, colour: str = INK, thick: float = 1.2, arrow: bool = False
    ) -> None:
        """Draw an SVG path."""
        head = ' marker-end="url(#head)"' if arrow else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{thick:g}"{head}/>'
        )

    def grid(
        self,
        x: float,
        y: float,
        rows: int,
        columns: int,
        cell: float,
        fills: dict[tuple[int, int], str] | None = None,
        *,
        fill: str = WHITE,
    ) -> None:
        """Draw cells; `fills` colours some of them by (row, column)."""
        for row in range(rows):
            for column in range(columns):
                colour = (fills or {}).get((row, column), fill)
                self.rect(x + column * cell, y + row * cell, cell, cell, colour)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        words: str,
        fill: str = PALE,
        *,
        size: float = 13,
    ) -> None:
        """Draw a rounded rectangle with lines of words in its middle."""
        self.rect(x, y, width, height, fill, round=5, stroke=INK)
        lines = words.split("\n")
        top = y + height / 2 - (len(lines) - 1) * size * 0.62 + size * 0.35
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + number * size * 1.24, line, size=size)

    def svg(self) -> str:
        """Return the page."""
        width, height = self.size
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker>'
        )
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" font-family="{_FONT}" role="img">\n'
            f"<title>{escape(self.title)}</title>\n<defs>{head}</defs>\n"
            f'<rect width="{width:g}" height="{height:g}" fill="{WHITE}"/>\n{body}\n</svg>\n'
        )

    def save(self, file: Path) -> None:
        """Write the page."""
        file.write_text(self.svg(), encoding="utf-8")
