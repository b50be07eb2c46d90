"""The stand-in for a GPU is as strict as one, and every chapter and solution runs on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = sorted(path for folder in ("book", "solutions") for path in (HERE.parent / folder).glob("[01]*.md"))
MIXED = """
import torch, far_device
far, near, net = torch.ones(3, device="far"), torch.ones(3), torch.nn.Linear(3, 2).to("far")
assert net.weight.device == far.device == net(far).device == torch.zeros_like(far).device and (far + 2.0).device.type == "far"
assert (far + torch.tensor(2.0)).sum().item() == 9 and far.cpu().device.type == "cpu" and torch.equal(far.cpu(), near)
refused = {
    "sum": lambda: far + near,
    "product": lambda: near @ far,
    "layer": lambda: net(near),
    "joined": lambda: torch.cat([far, near]),
    "chosen": lambda: torch.where(near > 0, far, far),
    "written": lambda: far.add_(near),
    "numpy": lambda: far.numpy(),
    "drawn": lambda: torch.randn(3, device="far", generator=torch.Generator()),
}
for name, ask in refused.items():
    try:
        ask()
    except (RuntimeError, TypeError) as error:
        print(name, "refused")
"""


def run(arguments, folder):
    """Run Python in an empty folder, in a process of its own: the stand-in is for a whole process."""
    paths = os.pathsep.join(str(p) for p in (HERE, HERE.parent, HERE.parent / "tools"))
    settings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=settings, capture_output=True, text=True, timeout=900)


def test_devices_do_not_mix(tmp_path):
    done = run(["-c", MIXED], tmp_path)
    assert done.returncode == 0, done.stderr
    names = ("sum", "product", "layer", "joined", "chosen", "written", "numpy", "drawn")
    assert done.stdout.split("\n")[:-1] == [f"{name} refused" for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_runs_there(source, tmp_path):
    done = run([str(HERE / "far_notebook.py"), str(source)], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
