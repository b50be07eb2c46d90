"""Judge what traker, dattri and kronfluence say of chapter 19's networks by the same halves and removals as our own scores.

    python benchmarks/attribution.py [--seeds 0 1 2 3 4] [--save]

Draws, networks and judges are those of the experiment ``attribution``, preset "class"; only the scores are others'. The source of
TRAK has no ridge but a projection: both are tried. ``--save`` writes the rows to book/results/attribution_peers/class.json, from which
the chapter's table is made. They need an environment of their own, see README.md.
"""

import argparse
import platform
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch
from dattri.algorithm.influence_function import IFAttributorExplicit
from dattri.task import AttributionTask
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments
from kronfluence.task import Task
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset
from trak import TRAKer
from trak.projectors import BasicProjector, NoOpProjector, ProjectionType

import ntk_course as ntk
from ntk_course.analysis import Laplace, trak
from ntk_course.basics.progress import after_a_moment
from ntk_course.replication import results
from ntk_course.replication.experiments import attribution
from ntk_course.tangents import log_odds

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("traker", "dattri", "kronfluence", "torch", "ntk_course")
# The source's projection has fewer numbers than there are samples; of 200 here.
PROJECTIONS = (50, 100, 150)


def less_odds(z: Tensor, labels: Tensor) -> Tensor:
    """Return minus the log odds (M,): what an influence on a loss is about."""
    return -attribution.odds(z, labels)


def by_traker(model: nn.Module, trial: attribution.Trial, size: int | None, ridge: float) -> Tensor:
    """Return TRAK's scores (M, N), of features projected to ``size`` numbers, or as they are; in single precision."""
    model, (x, y, asked, labels) = model.float(), trial.given
    x, asked, dim = x.float(), asked.float(), sum(p.numel() for p in model.parameters())
    how = (dim, size or dim, 0, ProjectionType.normal, "cpu")
    # in one block traker 0.3.2 forgets its projection before it scores
    projector = NoOpProjector(*how) if size is None else BasicProjector(*how, size // 2, torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        traker = TRAKer(
            model=model,
            task="image_classification",
            train_set_size=len(x),
            save_dir=folder,
            device="cpu",
            projector=projector,
            proj_dim=size or dim,
            lambda_reg=ridge / dim if size is None else ridge,  # it divides features by the root of their number
            use_half_precision=False,
        )
        traker.load_checkpoint(model.state_dict(), model_id=0)
        for batch in DataLoader(TensorDataset(x, y), batch_size=50):
            traker.featurize(batch=batch, num_samples=len(batch[0]))
        traker.finalize_features()
        traker.start_scoring_checkpoint("a", model.state_dict(), model_id=0, num_targets=len(asked))
        traker.score(batch=(asked, labels), num_samples=len(asked))
        return torch.as_tensor(traker.finalize_scores(exp_name="a")).T.double()


def by_dattri(model: nn.Module, trial: attribution.Trial, damping: float) -> Tensor:
    """Return influences (M, N) with the whole Hessian of the sum of losses, which need not be positive."""
    x, y, asked, labels = trial.given

    def loss(params, data):
        image, label = data
        return nn.functional.cross_entropy(functional_call(model, params, image), label, reduction="sum")

    def target(params, data):
        image, label = data
        return less_odds(functional_call(model, params, image), label).sum()

    task = AttributionTask(loss, model, model.state_dict(), target_func=target)
    found = IFAttributorExplicit(task, regularization=damping)
    whole = DataLoader(TensorDataset(x, y), batch_size=len(x))
    found.cache(whole)
    return found.attribute(whole, DataLoader(TensorDataset(asked, labels), batch_size=len(asked))).T.double()


class Odds(Task):
    """What kronfluence is asked: the cross entropy of training images, the odds of test images."""

    def compute_train_loss(self, batch, model, sample=False):
        z, y = model(batch[0]), batch[1]
        if sample:  # the true Fisher information, with labels that the network draws
            y = torch.multinomial(z.detach().softmax(1), 1)[:, 0]
        return nn.functional.cross_entropy(z, y, reduction="sum")

    def compute_measurement(self, batch, model):
        return less_odds(model(batch[0]), batch[1]).sum()


def by_kronfluence(model: nn.Module, trial: attribution.Trial) -> Tensor:
    """Return influences (M, N) by EK-FAC with its own damping."""
    x, y, asked, labels = trial.given
    learnt, test = TensorDataset(x.float(), y), TensorDataset(asked.float(), labels)
    torch.manual_seed(trial.seed)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("a", prepare_model(model.float(), Odds()), Odds(), cpu=True, disable_tqdm=True, output_dir=folder)
        analyzer.fit_all_factors("f", learnt, per_device_batch_size=len(x), factor_args=FactorArguments("ekfac"))
        analyzer.compute_pairwise_scores("s", "f", test, learnt, len(asked), per_device_train_batch_size=len(x))
        return analyzer.load_pairwise_scores("s")["all_modules"].double()


def of_one_draw(config: attribution.Config, seed: int) -> list[dict]:
    """Return rows as the experiment has them, and those of seconds and of differences to our own scores."""
    trial = attribution.drawn(config, seed)
    x, y, asked, labels = trial.given
    outcomes, taught = trial.outcomes(), attribution.odds(trial.answers(trial.others, 2), labels).mean(0)
    paths = [trial.path(member) for member in range(config.members)]
    scores: dict[tuple[str, float | None], list[Tensor]] = {}
    rows = []

    def timed(name, ridge, call):
        start = time.perf_counter()
        scores[name, ridge] = [call(path.model_at(-1)) for path in paths]
        seconds = (time.perf_counter() - start) / len(paths)
        rows.append({"part": "seconds", "seed": seed, "method": name, "ridge": ridge, "seconds": round(seconds, 3)})

    for size in PROJECTIONS:
        timed(f"traker, {size} projections", None, lambda model, size=size: by_traker(model, trial, size, 0.0))
    means = [float(ntk.Gram(p.model_at(-1), x, log_odds(y)).diagonal().mean()) for p in paths]
    curvatures = [float(Laplace(p.model_at(-1), x).values.sum()) / len(y) for p in paths]
    for ridge in attribution.RIDGES:
        given = iter(means)
        timed(
            "traker, as it is", ridge, lambda model, ridge=ridge, given=given: by_traker(model, trial, None, ridge * next(given))
        )
        ours = [trak(p.model_at(-1), *trial.given, ridge=ridge) for p in paths]
        off = max(1 - _cosine(a, b) for a, b in zip(scores["traker, as it is", ridge], ours, strict=True))
        rows.append({"part": "same", "seed": seed, "method": "traker, as it is", "ridge": ridge, "off": off})
        given = iter(curvatures)
        timed(
            "dattri, whole Hessian", ridge, lambda model, ridge=ridge, given=given: by_dattri(model, trial, ridge * next(given))
        )
    timed("kronfluence, EK-FAC", None, lambda model: by_kronfluence(model, trial))
    made = [*attribution.judged_by_halves(trial, scores, outcomes, taught), *attribution.judged_by_removal(trial, scores)]
    return [*rows, *(row | {"seed": seed} for row in made)]


def _cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two matrices of scores: libraries scale theirs otherwise."""
    return float((a * b).sum() / (a.norm() * b.norm()))


def saved(rows: list[dict], seconds: float) -> Path:
    """Store a draw's rows with versions; draws that were not run keep what was stored."""
    before = results.read("attribution_peers", "class", ROOT / "book/results")
    made = {row["seed"] for row in rows}
    kept = [] if before is None else [row for row in before.rows if row["seed"] not in made]
    everything = sorted([*kept, *map(results._plain, rows)], key=lambda row: row["seed"])
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = getattr(sys.modules.get(name), "__version__", "unknown")
    settings = {"data": attribution.PRESETS["class"].data, "seeds": sorted({row["seed"] for row in everything})}
    earlier = 0.0 if before is None else before.provenance["seconds"]
    provenance = {"config": settings, "versions": found, "machine": {"processor": platform.machine(), "threads": 1}}
    provenance |= {"commit": results._commit(), "seconds": round(earlier + seconds, 1)}
    return results.save(results.Result("attribution_peers", "class", everything, provenance), ROOT / "book/results")


def main() -> int:
    """Run, print and perhaps save, a draw at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(attribution.PRESETS["class"].seeds))
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict] = []
    for seed in after_a_moment(args.seeds, "draws", len(args.seeds), "draw"):
        start = time.perf_counter()
        drawn = of_one_draw(attribution.PRESETS["class"], seed)
        if args.save:
            print("wrote", saved(drawn, time.perf_counter() - start))
        rows += drawn
    frame = pd.DataFrame(rows)
    frame = frame[frame.networks != "one"].groupby(["method", "ridge"], dropna=False)
    print(frame[["score", "on_others", "fall", "flipped", "seconds", "off"]].mean().to_string())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
