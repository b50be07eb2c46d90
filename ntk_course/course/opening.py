"""The picture on the first page that moves: one SGD step on a seven, and what it does to other digits."""

import base64
import io

import torch
from matplotlib.image import imsave

from ..analysis.one_step import true_change
from ..data import load
from ..models import mlp
from ..training import train

RATE = 0.01  # of the step; at ten times as much every digit is taken for a seven
_PAGE = """<figure class="ntk-opening" id="ntk-opening">
<div class="ntk-row" role="img" aria-label="{alt}">
<div class="ntk-taught"><img src="{taught}" alt=""><span>one step on this seven</span></div>
<div class="ntk-others">{others}</div></div>
<figcaption>Bars: how much the network takes each digit for a seven, before the step (outline) and after it (filled).
The step is on that one image alone. <button type="button">Play again</button></figcaption>
<script>(function(){{const box=document.getElementById("ntk-opening");
box.querySelector("button").addEventListener("click",function(){{
const row=box.querySelector(".ntk-row");row.classList.add("ntk-still");void row.offsetWidth;row.classList.remove("ntk-still");}});
}})();</script></figure>"""
_ONE = """<div class="ntk-other"><img src="{image}" alt=""><div class="ntk-bar"><i style="--from:{before:.3f};--to:{after:.3f}"></i>
<b style="height:{high:.1f}%"></b></div><span>{before_words} → {after_words}</span></div>"""


def seven(rate: float = RATE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take one step on a hard seven, and look at the first digit of each class of the test set, and at three more sevens.

    Returns:
        The image of the step (8, 8); the other images (12, 8, 8); their probabilities of a seven before and after, (12,).

    Example:
        >>> taught, others, before, after = seven()
        >>> bool((after - before)[7] > 0)
        True
    """
    data, held_out = load("digits"), load("digits", "test")
    x, y = data.x.double(), data.y
    torch.manual_seed(0)
    model = mlp((64, 48, 48, 10)).double()
    train(model, x, y, epochs=3, lr=0.05, batch_size=32, seed=0, progress=False)
    sevens = (y == 7).nonzero()[:, 0]
    with torch.no_grad():
        u = sevens[model(x[sevens]).softmax(1)[:, 7].argmin()]
    first = [int((held_out.y == k).nonzero()[0, 0]) for k in range(10)]
    shown = first + (held_out.y == 7).nonzero()[1:3, 0].tolist()
    images = held_out.x[shown].double()
    with torch.no_grad():
        before = model(images).softmax(1)[:, 7]
    change = true_change(model, images, x[u : u + 1], y[u : u + 1], rate)[:, 0, 7]
    return x[u, 0], images[:, 0], before, before + change


def one_step_on_a_seven() -> str:
    """Return the picture as HTML that moves once, in four seconds, and stands still for readers who want no motion."""
    taught, others, before, after = seven()
    cells = "\n".join(
        _ONE.format(
            image=_uri(image),
            before=float(b),
            after=float(a),
            high=100 * float(b),
            before_words=f"{100 * float(b):.0f} %",
            after_words=f"{100 * float(a):.0f} %",
        )
        for image, b, a in zip(others, before, after, strict=True)
    )
    ups = int((after > before + 0.01).sum())
    downs = int((after < before - 0.01).sum())
    alt = (
        f"One SGD step on an image of a seven. Of twelve other digits {ups} are taken for a seven by at least one per cent more "
        f"after it, {downs} by one per cent less."
    )
    return _PAGE.format(taught=_uri(taught), others=cells, alt=alt)


def _uri(image: torch.Tensor) -> str:
    held = io.BytesIO()
    imsave(held, image.numpy(), cmap="gray_r", format="png")
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
