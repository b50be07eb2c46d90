"""Time whole data sets on a CUDA GPU, with the error of each precision, and ten networks trained at once against one.

    NTK_COURSE_DATA=folder python benchmarks/gpu.py [--only mnist ensemble cifar10] [--precision tf32 bf16] [--save FILE]

Each part fits in a call of ten minutes. Rows of earlier calls in FILE are kept, so that the parts can run one by one; copy
it to book/results/cost/gpu.json, and the book's page on cost shows it.
"""

import argparse
import json
import time
from pathlib import Path

import torch

import ntk_course as ntk
from ntk_course.replication import results
from ntk_course.tangents import Layout, tangent_features
from ntk_course.tangents.probe import probe


def seconds_of(call):
    """Time one call, the GPU's queue emptied before and after."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    out = call()
    torch.cuda.synchronize()
    return time.perf_counter() - start, out


def peak(precision, n=8192):
    """Return this card's own speed in matrix products of a precision, in TFLOP/s, the best of ten."""
    from ntk_course.tangents.precision import multiplying, times

    a = torch.randn(n, n, device="cuda")
    a = a.bfloat16() if precision == "bf16" else a
    with multiplying(precision):
        return 2 * n**3 / min(seconds_of(lambda: times(a, a))[0] for _ in range(10)) / 1e12


def whole(name, model, x, c, precision):
    """Find the ten closest partners in a whole data set; error against float64 on a corner of it."""
    corner = slice(0, 256)
    wanted = ntk.tangent_kernel(model.double(), x[corner].double(), c[corner])
    model.float()
    found = ntk.tangent_kernel(model, x[corner], c[corner], precision=precision).double()
    error = float((found - wanted).norm() / wanted.norm())
    work = tangent_features(model, x[:1], ntk.ones, Layout.choose(probe(model, x), len(x) / 3)).multiply_adds
    ntk.Gram(model, x[:4096], c[:4096], precision=precision).reduce(ntk.TopPartners(10), progress=False)
    torch.cuda.reset_peak_memory_stats()
    seconds, _ = seconds_of(lambda: ntk.Gram(model, x, c, precision=precision).reduce(ntk.TopPartners(10)))
    speed, own = len(x) ** 2 * work / seconds / 1e12, peak(precision)
    row = {"part": name, "precision": precision, "samples": len(x), "seconds": seconds, "error": error}
    return row | {"tflops": speed, "of_peak": speed / own, "gib": torch.cuda.max_memory_allocated() / 2**30}


def trained(model, data, epochs, lr, **settings):
    """Train on the GPU; not timed."""
    ntk.train(model, data.x, data.y, epochs=epochs, lr=lr, momentum=0.9, schedule=ntk.training.cosine(epochs), **settings)
    return model


def mnist(precision):
    """All of MNIST under a trained LeNet-5."""
    data = on_gpu("mnist")
    torch.manual_seed(0)
    model = trained(ntk.lenet5().cuda(), data, 3, 0.05)
    return whole("MNIST, LeNet-5", model, data.x, ntk.labelled(data.y), precision)


def cifar10(precision):
    """All of CIFAR-10 under ResNet-18 at full width."""
    data = on_gpu("cifar10")
    torch.manual_seed(0)
    model = trained(ntk.resnet18().cuda(), data, 5, 0.05, weight_decay=5e-4)
    return whole(f"{data.name}, ResNet-18", model, data.x, ntk.labelled(data.y), precision)


def ensemble(_):
    """Ten LeNets in one vmap against one, an epoch of MNIST each."""
    data = on_gpu("mnist")
    times = {}
    for members in (1, 10, 1, 10):
        subsets = torch.arange(len(data)).repeat(members, 1)
        models = [ntk.lenet5().cuda() for _ in range(members)]
        how = {"epochs": 1, "lr": 0.05, "momentum": 0.9, "progress": False}
        times[members], _ = seconds_of(
            lambda models=models, subsets=subsets, how=how: ntk.training.train_ensemble(models, data.x, data.y, subsets, **how)
        )
    return {
        "part": "ten LeNets, one epoch",
        "precision": "exact",
        "samples": len(data),
        "seconds": times[10],
        "times_one": times[10] / times[1],
    }


def on_gpu(name):
    """Load a data set onto the GPU."""
    from dataclasses import replace

    data = ntk.load(name)
    return replace(data, x=data.x.cuda(), y=data.y.cuda())


def main() -> int:
    """Run the parts and print their rows; 1 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"mnist": mnist, "ensemble": ensemble, "cifar10": cifar10}
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--precision", nargs="+", default=["exact", "tf32", "bf16"])
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device; nothing was measured")
        return 1
    card = torch.cuda.get_device_name()
    before = json.loads(args.save.read_text())["rows"] if args.save and args.save.exists() else []
    rows = []
    for name in args.only:
        # CIFAR-10 in full float32 takes longer than a call may
        precisions = ["exact"] if name == "ensemble" else [p for p in args.precision if name != "cifar10" or p != "exact"]
        for precision in precisions:
            rows.append(results._plain(parts[name](precision)))
            print(rows[-1], flush=True)
            if args.save:
                made = {(r["part"], r["precision"]) for r in rows}
                kept = [r for r in before if (r["part"], r["precision"]) not in made]
                provenance = {"card": card, "torch": torch.__version__, "commit": results._commit()}
                results._write(args.save, {"name": "cost", "preset": "gpu", "rows": kept + rows, "provenance": provenance})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
