"""Sphinx extension: the directive ``verdict``, claims of the sources in their chapter, from the one list of all claims."""

from docutils import nodes
from docutils.parsers.rst import Directive

from ntk_course.replication.verdicts import boxes, heading


class Verdict(Directive):
    """``{verdict} Table 1; Table 2``: what the source says, what came out here and why, and the way to all the numbers."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Build one box; more than two claims in it are folded away."""
        found = boxes(self.arguments[0])
        whole = nodes.admonition(classes=["verdict-box", *["dropdown"] * (len(found) > 2)])
        title = heading(found)
        whole += nodes.title(title, title)
        for each in found:
            if len(found) > 1:
                whole += nodes.paragraph("", "", nodes.strong(each.title, each.title), classes=["verdict-item"])
            for lead, words in each.lines:
                whole += nodes.paragraph("", "", nodes.emphasis(lead, lead), nodes.Text(f" {words}"))
            link = nodes.reference("", "All its numbers", refuri=f"replication.html#{each.anchor}", internal=True)
            whole += nodes.paragraph("", "", link)
        return [whole]


def setup(app) -> dict:
    """Register the extension."""
    app.add_directive("verdict", Verdict)
    return {"version": "1", "parallel_read_safe": True}
