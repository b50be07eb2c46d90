"""Time the analyses of chapters 6 to 8 on all of MNIST, each against what the project promises.

    NTK_COURSE_DATA=folder python benchmarks/interactions.py [--threads 2] [--only clusters redundancy forgetting]

Each line runs in a process of its own, so that its peak memory is its own. Exits with 1 when a promise is missed.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import torch

import ntk_course as ntk

# seconds, and GiB of peak memory where one is promised
PROMISED = {"clusters": (20.0, None), "redundancy": (180.0, 4.0), "forgetting": (90.0, None)}


def trained(data):
    """Train LeNet-5 for two epochs; not timed."""
    torch.manual_seed(0)
    model = ntk.lenet5()
    ntk.train(model, data.x, data.y, epochs=2, lr=0.05, momentum=0.9, progress=False)
    return model


def clusters(data):
    """Farthest point clustering of one class, from images to clusters, as many clusters as a tenth of the class."""
    model, where = trained(data), data.y == 0
    x, c = data.x[where], ntk.labelled(data.y[where])

    def run():
        found = ntk.farthest_point_clustering(ntk.Gram(model, x, c), len(x) // 10)
        return f"{len(x)} samples, {len(found.centroids)} centroids, head {found.sizes.max() / len(x):.0%}"

    return run


def redundancy(data):
    """Redundant samples under lpNTK, all training images against all."""
    model, c = trained(data), ntk.labelled(data.y)

    def run():
        marked = ntk.redundant(ntk.Gram(model, data.x, c))
        return f"{len(marked)} samples, {marked.float().mean():.1%} redundant"

    return run


def forgetting(data):
    """Table 1: ten seeds of 50 iterations, batches of 128, six predictors."""

    def run():
        runs = []
        for seed in range(10):
            torch.manual_seed(seed)
            settings = {"iterations": 50, "lr": 0.1, "seed": seed, "progress": False}
            runs.append(ntk.analysis.forgetting_run(ntk.lenet5(), data.x, data.y, **settings))
        lost = torch.stack([r.forgotten for r in runs])
        f1 = ntk.analysis.event_scores(lost, torch.stack([r.predicted["logits, gradient"] for r in runs])).f1
        return f"{int(lost.sum())} events, F1 in logits {f1:.3f}"

    return run


def measure(name: str, threads: int) -> int:
    """Run one line in this process and print it; return 1 when it misses its promise."""
    torch.set_num_threads(threads)
    run = {"clusters": clusters, "redundancy": redundancy, "forgetting": forgetting}[name](ntk.load("mnist"))
    start = time.perf_counter()
    words = run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    limit, memory = PROMISED[name]
    missed = seconds > limit or (memory is not None and peak > memory)
    print(f"{name:<11} {seconds:6.1f} s (promised {limit:g})", end="   ")
    print(f"peak {peak:.1f} GiB{f' (promised {memory:g})' if memory else ''}   {words}   {'MISSED' if missed else 'reached'}")
    return int(missed)


def main() -> int:
    """Run every line and return 0 when all promises hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=PROMISED, default=list(PROMISED))
    args = parser.parse_args()
    if len(args.only) == 1:
        return measure(args.only[0], args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads; LeNet-5 on MNIST, float32", flush=True)
    command = [sys.executable, __file__, "--threads", str(args.threads), "--only"]
    return max(subprocess.run([*command, name], check=False).returncode for name in args.only)


if __name__ == "__main__":
    raise SystemExit(main())
