"""Draw the README's picture: the labelled pseudo-NTK of 200 digits, ordered by class, before and after training."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image

import ntk_course as ntk

ntk.plots.style()
data = ntk.load("digits")
x, y = data.x.double(), data.y
some, labels = x[:200], y[:200]
order = torch.argsort(labels, stable=True)
torch.manual_seed(0)
model = ntk.mlp((64, 128, 10)).double()
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.7))
for ax, title in zip(axes, ("before training", "after ten epochs"), strict=True):
    gram = ntk.lpntk(model, some, labels)[order][:, order]
    ax.imshow(gram, cmap=ntk.plots.SEQUENTIAL, vmin=0, vmax=gram.quantile(0.99).item())
    ax.set(title=title, xticks=[], yticks=[], xlabel="200 digits, ordered by class")
    ntk.train(model, x, y, epochs=10, lr=0.1, batch_size=32, progress=False)
picture = io.BytesIO()
fig.savefig(picture, dpi=80)
few_colours = Image.open(picture).convert("RGB").quantize(48)
few_colours.save(Path(__file__).resolve().parent.parent / "book/static/lpntk.png", optimize=True)
