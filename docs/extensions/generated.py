"""A directive whose text is made from the code when the site is built."""

from __future__ import annotations

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Generated(SphinxDirective):
    """Subclasses return Markdown; the page is read as if it stood there."""

    optional_arguments = 1

    def markdown(self) -> str:
        """Return the text."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the text."""
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)
