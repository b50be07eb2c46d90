"""What kernels and networks say about how sure they are: on classes that they know, and on images of others."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss, one_hot

from ...analysis.calibration import calibration_error
from ...analysis.laplace import Laplace, averaged
from ...analysis.laws import Law, trained_law
from ...analysis.regression import kernel_ridge
from ...kernels.infinite import mlp as infinite_mlp
from ...kernels.infinite import network
from ...models.linear import restarted
from ...models.networks import mlp
from ...training.sgd import train
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import as_rows, both_splits, together

# A label has no less than this probability in a mean of logarithms: votes can be zero to rounding.
_LEAST = 1e-6


@dataclass(frozen=True)
class Config:
    """Settings; rows of norm sqrt(d), float64, on the CPU.

    Attributes:
        data: name of the data set; its first half of classes is known, of the other half are the unseen images.
        known: classes that are known.
        lessons: training images of known classes.
        tested: test images of known classes, and as many of others.
        depth: hidden layers of ReLUs.
        w_std: sigma_w of the kernels, and of networks in their parameterization.
        b_std: likewise.
        noise: of the posteriors, and ridge of all laws, as a share of the tangent kernel's mean diagonal.
        width: of finite networks.
        members: networks of an ensemble.
        steps: of gradient descent on half the squared errors, at one over the kernel's largest eigenvalue.
        epochs: of training on the cross entropy, on the whole batch.
        lr: of that training, with momentum 0.9.
        weight_decay: of that training.
        temperatures: of one network, from which the log loss on other images chooses.
        precisions: of weights, from which the evidence of linearised Laplace chooses.
        seeds: of the draws of images, and of networks.
    """

    data: str = "mnist"
    known: int = 5
    lessons: int = 200
    tested: int = 300
    depth: int = 2
    w_std: float = 2**0.5
    b_std: float = 0.1
    noise: float = 1e-3
    width: int = 256
    members: int = 10
    steps: int = 1000
    epochs: int = 500
    lr: float = 0.05
    weight_decay: float = 1e-3
    temperatures: tuple[float, ...] = tuple(10 ** (k / 20) for k in range(-10, 21))
    precisions: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4)
    seeds: tuple[int, ...] = tuple(range(10))


# "smoke" and "class" on the digits, "paper" on MNIST; all on a CPU.
PRESETS = {
    "smoke": Config(
        data="digits", lessons=30, tested=30, width=16, members=3, steps=20, epochs=20, precisions=(1.0, 10.0), seeds=(0, 1)
    ),
    "class": Config(data="digits", width=128, members=8, steps=500, seeds=tuple(range(5))),
    "paper": Config(),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compare laws of trained networks, ensembles of finite ones and linearised Laplace; rows by part and seed."""
    learnt, test = both_splits(config.data)
    data = together([learnt, test])

    def images(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Draw rows and labels: to learn, to check settings on, and to be asked about, of known classes and of unseen ones."""
        draw, known = torch.Generator().manual_seed(seed), config.known
        found, n, m = {}, config.lessons, config.tested
        for names, data, which, counts in (
            (("learnt", "checked"), learnt, learnt.y < known, (n, n)),
            (("known",), test, test.y < known, (m,)),
            (("unseen",), test, test.y >= known, (m,)),
        ):
            where = which.nonzero()[:, 0]
            where = where[torch.randperm(len(where), generator=draw)[: sum(counts)]]
            for name, some in zip(names, where.split([*counts[:-1], len(where) - sum(counts[:-1])]), strict=True):
                found[name] = as_rows(data.x[some].double()), data.y[some]
        return found

    def kernels(x: Tensor, asked: Tensor):
        everything = torch.cat([x, asked])
        return infinite_mlp(everything, depth=config.depth, activation="relu", w_std=config.w_std, b_std=config.b_std)

    def laws(seed: int) -> list[dict]:
        drawn = images(seed)
        (x, y), wanted = drawn["learnt"], drawn["known"][1]
        asked = torch.cat([drawn["known"][0], drawn["unseen"][0]])
        found = kernels(x, asked)
        noise = {kind: config.noise * float(getattr(found, kind).diagonal().mean()) for kind in found._fields}
        targets, rows = _targets(y, config.known), []
        found_laws: dict[str, Law] = {}
        for name, tangent, start, more in (
            ("posterior of the NNGP", "nngp", "nngp", noise["nngp"]),
            ("ensemble", "ntk", "nngp", 0.0),
            ("posterior of the NTK", "ntk", "ntk", noise["ntk"]),
        ):
            theta = getattr(found, tangent)
            law = trained_law(theta, getattr(found, start), targets, noise[tangent], more)
            rows.append({"part": "laws", "method": name} | _scores(law.votes(), wanted, law.deviation))
            if tangent == start:  # the scale of the kernel that makes the labels likeliest, in closed form; the mean stays
                fit = kernel_ridge(theta[: len(x), : len(x)], targets, noise[tangent])
                scale = float((targets * fit.coefficients).mean())
                mixed = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))]
                shuffled = float((mixed * kernel_ridge(theta[: len(x), : len(x)], mixed, noise[tangent]).coefficients).mean())
                law = Law(law.mean, scale * law.covariance)
                scores = _scores(law.votes(), wanted, law.deviation)
                rows.append({"part": "laws", "method": f"{name}, scaled", "scale": scale, "scale_shuffled": shuffled} | scores)
            found_laws[name] = law
        size = found_laws["posterior of the NTK"].deviation.square().mean()  # scaled
        plain = found_laws["ensemble"]
        even = torch.eye(len(asked)).to(size) * size
        for name, covariance in (
            ("ensemble, as large as that", plain.covariance * size / plain.deviation.square().mean()),
            ("the same everywhere, as large as that", even),
        ):
            law = Law(plain.mean, covariance)
            rows.append({"part": "laws", "method": name} | _scores(law.votes(), wanted, law.deviation))
        near = torch.cdist(asked, x).min(1).values
        for row in rows:
            if (law := found_laws.get(row["method"])) is not None:
                row["with_distance"] = float(spearmanr(law.deviation, near).statistic)
        return [*rows, {"part": "laws", "method": "distance to the nearest", "by_spread": _told(near, len(wanted))}]

    def networks(seed: int, kind: str, labels: str) -> list[dict]:
        drawn = images(seed)
        (x, y), wanted = drawn["learnt"], drawn["known"][1]
        asked = torch.cat([drawn["known"][0], drawn["unseen"][0]])
        if labels == "shuffled":
            y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1000 + seed))]
        targets, found = _targets(y, config.known), kernels(x, asked)
        rate = 1 / float(torch.linalg.eigvalsh(found.ntk[: len(x), : len(x)])[-1])
        start = found.ntk if kind == "restarted" else found.nngp
        law = trained_law(found.ntk, start, targets, time=rate * config.steps)
        answers, moved = [], []
        for member in range(config.members):
            torch.manual_seed(100 * seed + member)
            hidden = (config.width,) * config.depth
            net = network((x.shape[1], *hidden, config.known), "relu", config.w_std, config.b_std).double()
            before = torch.cat([p.detach().flatten() for p in net.parameters()])
            trained = restarted(net, seed=100 * seed + member) if kind == "restarted" else net
            _descend(trained, list(net.parameters()), x, targets, rate, config.steps)
            after = torch.cat([p.detach().flatten() for p in net.parameters()])
            moved.append(float((after - before).norm() / before.norm()))
            with torch.no_grad():
                answers.append(trained(asked))
        stack = torch.stack(answers)
        spread = stack.var(0).mean(1).sqrt()
        row = {"part": "networks", "kind": kind, "labels": labels, "spread": float(spread.mean())}
        row["over_law"] = float((stack.var(0).mean() / law.deviation.square().mean()).sqrt())
        # of the mean of so many networks, about 1 where the law's mean is theirs
        error = spread.square().mean().sqrt() / config.members**0.5
        row["means_apart"] = float((stack.mean(0) - law.mean).square().mean().sqrt() / error)
        row["moved"], row["by_law"] = sum(moved) / len(moved), _told(law.deviation, len(wanted))
        # and what as many draws from the law itself would say
        root = torch.linalg.cholesky(law.covariance + 1e-10 * law.covariance.diagonal().mean() * torch.eye(len(asked)))
        noise = torch.randn(config.members, *law.mean.shape, generator=torch.Generator().manual_seed(seed), dtype=root.dtype)
        for words, some in (("", stack), ("_of_draws", law.mean + root @ noise)):
            spread = some.var(0).mean(1).sqrt()
            row[f"rank{words}"] = float(spearmanr(spread, law.deviation).statistic)
            row[f"by_spread{words}"] = _told(spread, len(wanted))
            row[f"accuracy{words}"] = float((some.mean(0)[: len(wanted)].argmax(1) == wanted).double().mean())
        return [row]

    def laplace(seed: int) -> list[dict]:
        drawn = images(seed)
        (x, y), (checked, right), wanted, nets = drawn["learnt"], drawn["checked"], drawn["known"][1], []
        asked = torch.cat([drawn["known"][0], drawn["unseen"][0]])
        for member in range(5):
            torch.manual_seed(100 * seed + member)
            net = mlp((x.shape[1], *(64,) * config.depth, config.known)).double()
            how = {"momentum": 0.9, "weight_decay": config.weight_decay, "batch_size": None, "progress": False}
            train(net, x, y, epochs=config.epochs, lr=config.lr, each_epoch=False, **how)
            nets.append(net)
        with torch.no_grad():
            logits = [net(asked) for net in nets]
            said = -float(cross_entropy(nets[0](x), y, reduction="sum"))
        spread, several = Laplace(nets[0], x), torch.stack([z.softmax(1) for z in logits])
        with torch.no_grad():
            beside = nets[0](checked)

        def log_loss(p: Tensor) -> float:
            return float(nll_loss(p.clamp(min=_LEAST).log(), right))

        def held_out(precision: float) -> float:
            return -log_loss(averaged(beside, spread.covariance(checked, precision), draws=200))

        cooled = min(config.temperatures, key=lambda t: log_loss((beside / t).softmax(1)))
        spreads = {"by_spread": several.var(0).sum(1), "by_logits": torch.stack(logits).var(0).sum(1)}
        rows = [
            {"method": "one network"} | _scores(logits[0].softmax(1), wanted),
            {"method": "one network, by temperature", "temperature": cooled} | _scores((logits[0] / cooled).softmax(1), wanted),
            {"method": "five networks"} | _scores(several.mean(0), wanted, **spreads),
        ]
        own = config.weight_decay * len(x)  # the prior under which the network is trained: half its norm's square times this
        for how, best in (
            ("weight decay", own),
            ("evidence", max(config.precisions, key=lambda p: spread.log_evidence(said, p))),
            ("other images", max(config.precisions, key=held_out)),
        ):
            covariance = spread.covariance(asked, best)
            spreads = {
                "by_spread": _spread_of_probabilities(logits[0], covariance),
                "by_logits": covariance.diagonal(dim1=1, dim2=2).sum(1),
            }
            scores = _scores(averaged(logits[0], covariance), wanted, **spreads)
            rows.append({"method": f"linearised Laplace, by {how}", "precision": best} | scores)
        return [{"part": "laplace"} | row for row in rows]

    kinds = [("laws",), ("laplace",)]
    kinds += [("networks", kind, labels) for kind in ("plain", "restarted") for labels in ("true", "shuffled")]
    work = {"laws": laws, "laplace": laplace, "networks": networks}
    return over_seeds(
        "uncertainty",
        preset,
        config,
        data,
        lambda seed, kind, *more: work[kind](seed, *more),
        device=torch.device("cpu"),
        parts=kinds,
        folder=folder,
        progress=progress,
    )


def _targets(y: Tensor, classes: int) -> Tensor:
    return one_hot(y, classes).double() - 1 / classes


def _descend(model, weights: Sequence[Tensor], x: Tensor, targets: Tensor, rate: float, steps: int) -> None:
    """Take steps of gradient descent on half the squared errors, summed."""
    for _ in range(steps):
        loss = (model(x) - targets).square().sum() / 2
        for p, g in zip(weights, torch.autograd.grad(loss, list(weights)), strict=True):
            p.data -= rate * g


def _told(unsure: Tensor, known: int) -> float:
    """Return how often an unseen image is less sure than a known one: the area under the curve."""
    labels = torch.arange(len(unsure)) >= known
    return float(roc_auc_score(labels.numpy(), unsure.detach().numpy()))


def _spread_of_probabilities(z: Tensor, covariance: Tensor, draws: int = 500) -> Tensor:
    """Return the variances of probabilities, summed over classes, for Gaussian logits (M, K), as :func:`averaged` draws them."""
    values, vectors = torch.linalg.eigh(covariance.double())
    root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    noise = torch.randn(draws, *z.shape, generator=torch.Generator().manual_seed(0), dtype=root.dtype)
    return (z + (root @ noise[..., None])[..., 0]).softmax(2).var(0).sum(1)


def _scores(probabilities: Tensor, wanted: Tensor, by_spread: Tensor | None = None, by_logits: Tensor | None = None) -> dict:
    """Score probabilities (M, K): the first of them are of known classes, with labels; the others are unseen."""
    p = probabilities.detach()
    known = p[: len(wanted)]
    found = {
        "accuracy": float((known.argmax(1) == wanted).double().mean()),
        "nll": float(nll_loss(known.clamp(min=_LEAST).log(), wanted)),
        "calibration": calibration_error(known, wanted),
        "floor": _floor(known),
        "confidence": float(known.max(1).values.mean()),
        "by_votes": _told(-p.max(1).values, len(wanted)),
    }
    others = {"by_spread": by_spread, "by_logits": by_logits}
    return found | {name: _told(spread, len(wanted)) for name, spread in others.items() if spread is not None}


def _floor(p: Tensor, draws: int = 50) -> float:
    """Return the calibration error that so many images have on average where labels are drawn from the probabilities."""
    draw = torch.Generator().manual_seed(0)
    return sum(calibration_error(p, torch.multinomial(p, 1, generator=draw)[:, 0]) for _ in range(draws)) / draws


def quoted(result: Result) -> list[Quoted]:
    """Set the order of the spreads, and what averaging over weights does to calibration, beside the run."""
    networks = result.frame(part="networks", labels="true")
    found = [
        Quoted.of("Start of an ensemble", f"spread of {kind} networks over that of the law", None, rows.over_law.tolist())
        for kind, rows in networks.groupby("kind", sort=False)
    ]
    for part, item, one, other in (
        ("laws", "Posterior of the NTK", "posterior of the NTK", "ensemble"),
        ("laplace", "Linearised Laplace", "linearised Laplace, by other images", "one network"),
    ):
        rows = result.frame(part=part)
        for column, words in (("nll", "loss on known classes"), ("by_votes", "unseen classes told, area")):
            by = rows.pivot(index="seed", columns="method", values=column)
            found.append(Quoted.of(item, f"{words}, {one} less {other}", None, (by[one] - by[other]).tolist()))
    return found


_SCORED = ("method", "accuracy", "nll", "calibration", "floor", "confidence", "by_votes", "by_spread")
# Columns of the rows, by part; "seed" is added to each.
COLUMNS = {
    "laws": (*_SCORED, "scale", "scale_shuffled", "with_distance"),
    "laplace": (*_SCORED, "by_logits", "precision", "temperature"),
    "networks": (
        *("kind", "labels", "spread", "over_law", "means_apart", "moved", "rank", "by_spread", "by_law", "accuracy"),
        *("rank_of_draws", "by_spread_of_draws", "accuracy_of_draws"),
    ),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
