"""Formulas as MathML, which browsers draw themselves: no script and no font from the network."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator


def _formula(text: str, display: str) -> str:
    """Return MathML.

    Raises:
        ExtensionError: the converter left something as it was in TeX.
    """
    formula = convert(text, display=display)
    if "\\" in formula or "&#x00026;" in formula:
        raise ExtensionError(f"no MathML for {text}")
    return formula


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula inside a sentence."""
    translator.body.append(_formula(node.astext(), "inline"))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula of its own line."""
    formula = _formula(node.astext(), "block")
    translator.body.append(f'<div class="math-block">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the writer of formulas."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline, None), block_renderers=(block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
