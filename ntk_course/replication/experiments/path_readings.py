"""Remark 1, Figs 1 to 3, 5, 6, 8 and eq. (18) of the EPK paper: what one reads in the path kernel, over several seeds."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ...data.datasets import load
from ...kernels.bound import as_matrix
from ...kernels.paths.kernel import dpk, epk, mean_jacobian
from ...kernels.paths.machines import logit_uncertainty, per_class, support_vectors, symmetric_gram, weighted_gram
from ...kernels.paths.rules import Quadrature
from ...models.networks import mlp, small_cnn
from ...training.path import TrainingPath
from ...training.record import train_path
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds

MEANS = ((1.0, 4.0), (4.0, 1.0), (5.0, 5.0))


@dataclass(frozen=True)
class Config:
    """Settings; float64, full-batch steps. Points are the first two coordinates of the three Gaussian classes.

    Attributes:
        points: training points.
        test: test points.
        hidden: ReLUs of the one hidden layer.
        steps: S.
        lr: step size for the mean loss; "squared" takes a fifth of it.
        nodes: of each smooth piece.
        side: points of each side of the grid from -10 to 16.
        scales: factors on a last layer that does not start from zero (Remark 1), for tanh.
        images: digits, for the straight line of Fig 8.
        channels: of the convolutional networks there.
        line: (steps, step size) there.
        seeds: of the initial weights and the points.
    """

    points: int = 150
    test: int = 100
    hidden: int = 32
    steps: int = 60
    lr: float = 0.1
    nodes: int = 8
    side: int = 21
    scales: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0)
    images: int = 400
    channels: tuple[tuple[int, int], ...] = ((4, 8), (16, 32), (64, 128))
    line: tuple[int, float] = (100, 0.2)
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke", "class" or "paper" (ten seeds).
_SMOKE = {"nodes": 4, "side": 5, "scales": (0.0, 1.0), "images": 40, "channels": ((2, 3), (8, 12)), "line": (5, 0.2)}
PRESETS = {
    "smoke": Config(points=24, test=9, hidden=8, steps=5, seeds=(0, 1), **_SMOKE),
    "class": Config(),
    "paper": Config(seeds=tuple(range(10))),
}


def asymmetry(matrix: Tensor) -> dict:
    """Say how far a matrix is from symmetric, and its symmetric part from positive, both as shares."""
    low, *_, high = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    return {"asymmetry": ((matrix - matrix.T).norm() / matrix.norm()).item(), "lowest_over_highest": (low / high).item()}


def turns(path: TrainingPath, x: Tensor, step: int) -> Tensor:
    """Measure the cosines of (N, K) gradients at the ends of one step with those at its start: Figs 1 and 2."""
    there = [Quadrature(torch.full((1,), t, dtype=x.dtype, device=x.device), torch.ones(1).to(x)) for t in (0.0, 1.0)]
    return cosine_similarity(*(mean_jacobian(path, step, x, at) for at in there), dim=-1)


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Measure what each figure shows; rows of a part for each figure, with the seed."""
    train, test = load("gaussians"), load("gaussians", "test")
    digits = load("digits", limit=config.images)
    where = device()
    means = torch.tensor(MEANS, dtype=torch.float64, device=where)

    def one_seed(seed: int) -> list[dict]:
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: config.points]
        x, y = train.x[chosen, :2].to(where, torch.float64), train.y[chosen].to(where)
        x_test, y_test = test.x[: config.test, :2].to(x), test.y[: config.test].to(where)

        def trained(loss="log_softmax", lr=config.lr, activation="relu", scale=None):
            torch.manual_seed(seed)
            model = mlp((2, config.hidden, 3), activation).to(x)
            if scale is not None:
                with torch.no_grad():
                    for p in model[-1].parameters():
                        p *= scale
            how = {"steps": config.steps, "lr": lr, "loss": loss, "progress": False}
            return train_path(model, x, y, zero_output=scale is None, **how)

        path = trained()
        rows = [*remark_1(trained, x, x_test), *figure_6(path, means), *straight_line(seed)]
        exact, frozen, f = epk(path, x_test, "piecewise", config.nodes), dpk(path, x_test), path.log_probs(x_test)
        errors = {name: (kernel.predict() - f).abs().max().item() for name, kernel in (("EPK", exact), ("DPK", frozen))}
        steps = sorted({1, config.steps // 4, config.steps - 1})
        turned = {f"cosine_step_{s}": turns(path, x_test, s).min().item() for s in steps}
        rows.append({"part": "moving gradients", **errors, **turned})
        rows += machines(path, x_test, y_test)
        for loss, lr in (("cross_entropy", config.lr), ("squared", config.lr / 5)):
            weighted = as_matrix(weighted_gram(trained(loss, lr), x, y))
            rows.append({"part": "weighted kernel", "loss": loss, **asymmetry(weighted)})
        return rows

    def remark_1(trained, x: Tensor, x_test: Tensor) -> Iterator[dict]:
        for scale in config.scales:
            path = trained(activation="tanh", scale=scale)
            kernel, f = epk(path, x_test, "gauss", config.nodes), path.outputs(x_test)
            constant = path.outputs(x, 0).mean(0)
            spread = (path.outputs(x_test, 0) - constant).abs().max().item()
            error = (kernel.predict(constant) - f).abs().max().item()
            yield {"part": "constant b", "scale": scale, "spread": spread, "error": error, "error_with_b_of_x": kernel.error}

    def figure_6(path: TrainingPath, means: Tensor) -> Iterator[dict]:
        points, f = epk(path, means, "piecewise", config.nodes).points, path.log_probs(path.x)
        others = f.scatter(1, path.y[:, None], -torch.inf).amax(1)
        margin = f.gather(1, path.y[:, None])[:, 0] - others
        for r in range(3):
            for k in range(3):
                own, of_class = points[r, path.y == k, r].abs().cpu(), path.y == k
                distance = (path.x[of_class] - means[r]).norm(dim=1).cpu()
                ranks = {"distance": spearmanr(own, distance)[0], "margin": spearmanr(own, margin[of_class].cpu())[0]}
                yield {"part": "contributions", "mean": r, "class": k, **{key: float(v) for key, v in ranks.items()}}

    def machines(path: TrainingPath, x_test: Tensor, y_test: Tensor) -> Iterator[dict]:
        side = torch.linspace(-10, 16, config.side, dtype=path.x.dtype, device=path.x.device)
        grid, n = torch.cartesian_prod(side, side), len(path.x)
        everything = torch.cat([path.x, grid, x_test])
        training = torch.arange(len(everything), device=path.x.device) < n
        gram = symmetric_gram(path, everything, training, "gauss", 2)
        machine = support_vectors(gram[:n, :n], path.y, C=1.0)
        by_machine = torch.from_numpy(machine.predict(per_class(gram[n:, :n]).sum(0).cpu().numpy())).to(y_test)
        agree = (by_machine == path.log_probs(everything[n:]).argmax(1)).double()
        row = {"part": "support vectors", "vectors": len(machine.support_), "test": agree[len(grid) :].mean().item()}
        right = (by_machine[len(grid) :] == y_test).double().mean().item()
        network = (path.log_probs(x_test).argmax(1) == y_test).double().mean().item()
        yield row | {"grid": agree[: len(grid)].mean().item(), "accuracy": right, "network_accuracy": network}
        both = torch.arange(n + len(grid), device=path.x.device)
        spread = logit_uncertainty(gram[both][:, both], path.outputs(path.x), training[both], samples=400)[1].mean(1)
        value, away = per_class(gram).sum(0).diagonal()[n : n + len(grid)], torch.cdist(grid, path.x).amin(1)
        for name, here in (("near", away < 1), ("far", away >= 9)):
            found = {"kernel_value": value[here].mean(), "median": spread[here].median(), "mean": spread[here].mean()}
            yield {"part": "deviation", "where": name, **{key: v.item() for key, v in found.items()}}
        yield {"part": "symmetric kernel", **asymmetry(as_matrix(gram[:n, :n]))}

    def straight_line(seed: int) -> Iterator[dict]:
        for channels in config.channels:
            torch.manual_seed(seed)
            model = small_cnn(1, 8, channels).to(where)
            steps, lr = config.line
            how = {"steps": steps, "lr": lr, "zero_output": False, "progress": False}
            path = train_path(model, digits.x.to(where), digits.y.to(where), **how)
            first, last = path.weights[0], path.weights[-1]
            unit, moved = first / first.norm(), (last - first) / first.norm()
            along = moved @ unit
            losses = torch.stack([line_loss(path, first + t * (last - first)) for t in torch.linspace(0, 1, 21).tolist()])
            row = {"part": "straight line", "weights": len(first), "norm_times": (last.norm() / first.norm()).item()}
            row |= {"along": along.item(), "across": (moved - along * unit).norm().item()}
            yield row | {"loss_rises": losses.diff().clamp(min=0).sum().item(), "loss_ends": losses[[0, -1]].tolist()}

    return over_seeds("path_readings", preset, config, train, one_seed, device=where, folder=folder, progress=progress)


def line_loss(path: TrainingPath, weights: Tensor) -> Tensor:
    """Return the mean training loss at given weights."""
    with torch.no_grad():
        f = path.output(path.unflatten(weights), path.x)
    return -f[torch.arange(len(f)), path.y].mean()


def quoted(result: Result) -> list[Quoted]:
    """Set the smaller figures of the paper beside the run."""

    def of(item: str, words: str, part: str, key, paper=None, **wanted) -> Quoted:
        rows = result.frame(part=part, **wanted)
        return Quoted.of(item, words, paper, (key(rows) if callable(key) else rows[key]).dropna())

    lines = sorted(result.frame(part="straight line").weights.unique())
    last = max(int(key.split("_")[-1]) for key in result.frame(part="moving gradients") if "step_" in key)
    return [
        of(
            "Remark 1",
            "error of a constant b over the initial spread",
            "constant b",
            lambda rows: rows.error / rows.spread,
            1.0,
            scale=1.0,
        ),
        of("Remark 1", "error with b(x)", "constant b", "error_with_b_of_x", 0.0, scale=1.0),
        of("Figs. 1, 2", "least cosine of a test gradient along step 1", "moving gradients", "cosine_step_1"),
        of("Figs. 1, 2", f"least cosine along step {last}", "moving gradients", f"cosine_step_{last}"),
        of("Figs. 1, 2", "error with moving gradients (EPK)", "moving gradients", "EPK", 0.0),
        of("Figs. 1, 2", "error with frozen ones (DPK)", "moving gradients", "DPK"),
        of("Fig. 3", "share of test points where SVM and network agree", "support vectors", "test"),
        of("Fig. 3", "share of the grid where they agree", "support vectors", "grid"),
        *(
            of("Fig. 5, App. A.6", f"{key.replace('_', ' ')} of the {end} grid points", "deviation", key, where=end)
            for key in ("kernel_value", "median", "mean")
            for end in ("near", "far")
        ),
        of("Fig. 6", "rank correlation of contributions with distance", "contributions", "distance"),
        of("Fig. 6", "rank correlation with the margin", "contributions", "margin"),
        *(
            of("Fig. 8", f"norm of {n} weights grows by", "straight line", lambda rows: rows.norm_times - 1, weights=n)
            for n in lines
        ),
        *(
            of(
                "Fig. 8",
                f"move across over move along, {n} weights",
                "straight line",
                lambda rows: rows.across / rows.along.abs(),
                weights=n,
            )
            for n in lines
        ),
        of("Eq. (18)", "asymmetry, weighted by the loss", "weighted kernel", "asymmetry", loss="cross_entropy"),
        of(
            "Eq. (18)",
            "lowest over highest eigenvalue, weighted by the loss",
            "weighted kernel",
            "lowest_over_highest",
            loss="cross_entropy",
        ),
        of("Eq. (18)", "asymmetry of the EPK's own kernel", "symmetric kernel", "asymmetry"),
    ]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "constant b": ("scale", "spread", "error", "error_with_b_of_x"),
    "contributions": ("mean", "class", "distance", "margin"),
    "straight line": ("weights", "norm_times", "along", "across", "loss_rises", "loss_ends"),
    "moving gradients": ("EPK", "DPK", "cosine_step_1", "cosine_step_15", "cosine_step_59", "cosine_step_4"),
    "support vectors": ("vectors", "test", "grid", "accuracy", "network_accuracy"),
    "deviation": ("where", "kernel_value", "median", "mean"),
    "symmetric kernel": ("asymmetry", "lowest_over_highest"),
    "weighted kernel": ("loss", "asymmetry", "lowest_over_highest"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
