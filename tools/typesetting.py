"""Sphinx extension: what holds for text everywhere.

Punctuation stays with its formula, docstrings say what they say, titles in the bibliography keep their capitals.
"""

import re

from docutils import nodes
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.template import field, sentence

_FORMULA = re.compile(
    r"([(\[\u201c\u2018]*)(<span class=\"math notranslate nohighlight\">(?:(?!</span>).)*</span>)([,.;:?!)\]\u201d\u2019]*)",
    re.DOTALL,
)
_RAISES = re.compile(
    r"^(?P<error>(?:scipy's )?[A-Za-z_.]*(?:Error|Exception|Interrupt|NoConvergence)(?:, [A-Za-z_.]*Error)*): (?P<why>.*)$"
)


def keep(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Put a formula and the brackets, commas and stops that touch it where no line breaks between them."""
    if "body" in context:
        context["body"] = _FORMULA.sub(
            lambda m: f'<span class="ntk-kept">{m[0]}</span>' if m[1] or m[3] else m[0], context["body"]
        )


class AsWritten(Style):
    """Sort and write as BibTeX's "plain" does, but leave a title's capitals as the paper has them."""

    def format_title(self, e, which_field, as_sentence=True):
        """Give the title, with a full stop where it is a sentence."""
        title = field(which_field)
        return sentence[title] if as_sentence else title


def count(app, doctree) -> None:
    """Tell Sphinx of formulas in printed HTML: it loads MathJax only on pages where it has read one itself."""
    if any('class="math' in node.astext() for node in doctree.findall(nodes.raw)):
        app.env.get_domain("math").data["has_equations"][app.env.docname] = True


def mend(app, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Write sections of a docstring so that each item is one line, which is what napoleon takes for an item.

    Errors stand one after another, parted by semicolons, over as many lines as they need. An item of one letter and a full
    stop ("K.") would be an enumerated list.
    """
    lines[:] = [re.sub(r"^(\s+\*{0,2}\w+\*{0,2}: )([A-Za-z])\.$", r"\1*\2*.", line) for line in lines]
    try:
        start = next(i for i, line in enumerate(lines) if line.strip() == "Raises:")
    except StopIteration:
        return
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].strip()), len(lines))
    words = " ".join(line.strip() for line in lines[start + 1 : end])
    items = re.split(r";\s+(?=[A-Za-z_.\\' ]*(?:Error|Exception|Interrupt|NoConvergence)\b)", words)
    if all(_RAISES.match(item) for item in items):
        lines[start + 1 : end] = [f"    {item}" for item in items]
    else:  # words about another function's errors
        lines[start:end] = [f"**Raises** {words[0].lower()}{words[1:]}", ""]


def setup(app) -> dict:
    """Register the extension; docstrings before napoleon reads them."""
    register_plugin("pybtex.style.formatting", "as_written", AsWritten)
    app.connect("doctree-read", count)
    app.connect("html-page-context", keep)
    app.connect("autodoc-process-docstring", mend, priority=100)
    return {"version": "1", "parallel_read_safe": True}
