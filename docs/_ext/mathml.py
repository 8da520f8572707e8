"""Formulas as MathML, which browsers show without scripts and without a network.

Docutils converts them. It lacks the commands tag, dots and big: numbers of equations are put at the
right margin here, and sizes of brackets are left to the browser.
"""

from __future__ import annotations

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

TAG = re.compile(r"\\tag\{([^}]*)\}")
SIZE = re.compile(r"\\[bB]igg?[lrm]?(?![A-Za-z])")

logger = logging.getLogger(__name__)


def _convert(node: nodes.Element, as_block: bool) -> str:
    """The formula of a node; TeX, with a warning, where it cannot be converted."""
    tex = SIZE.sub("", TAG.sub("", node.astext())).replace(r"\dots", r"\ldots")
    try:
        return str(tex2mathml(tex, as_block=as_block))
    except MathError as error:
        logger.warning("formula %r: %s", tex.strip(), error, location=node)
        return f"<code>{nodes.unescape(tex)}</code>"


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_convert(node, as_block=False))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    numbers = "".join(f"<span>({number})</span>" for number in TAG.findall(node.astext()))
    formula = _convert(node, as_block=True)
    translator.body.append(f'<div class="math equation">{formula}{numbers}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
