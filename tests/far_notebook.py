"""Run the code of a chapter or of a solution on the stand-in for a GPU: python far_notebook.py SOURCE.md"""

import os
import sys
from pathlib import Path

import far_device  # noqa: F401
import jupytext
import matplotlib

os.environ |= {"NTK_COURSE_DEVICE": "far", "NTK_COURSE_STATIC": "1"}
matplotlib.use("agg")
source = Path(sys.argv[1])
names: dict = {"__name__": "__main__"}
for number, cell in enumerate(jupytext.reads(source.read_text(), fmt="md:myst").cells):
    if cell.cell_type == "code":
        exec(compile(cell.source, f"{source.name}, cell {number}", "exec"), names)
