"""Measure what exact kernels cost: against the peers, on all of MNIST, with two processes, and against approximations.

    NTK_COURSE_DATA=folder python benchmarks/cost.py [--only peers mnist processes approximations] [--save]

Each measurement runs in a process of its own, so that its peak memory is its own. ``--save`` writes the rows, with machine
and versions, to book/results/cost/class.json, from which the book's page on cost is made. Exits with 1 when a promised
ratio is missed.
"""

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from routes import EXACT, ROUTES, installed

import ntk_course as ntk
from ntk_course.gram.plan import free_memory
from ntk_course.replication import results
from ntk_course.tangents import Layout, tangent_features
from ntk_course.tangents.probe import probe

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("ntk_course", "torch", "numpy", "nngeometry", "neural-tangents", "jax", "traker")
MODELS = {
    "LeNet-5": (ntk.lenet5, (1, 28, 28), (256, 512, 1024, 2048, 4096, 8192)),
    "MLP 3 x 512": (lambda: ntk.mlp((784, 512, 512, 512, 10)), (784,), (256, 512, 1024, 2048, 4096, 8192)),
    "ResNet-18": (ntk.resnet18, (3, 32, 32), (64, 128, 256)),
}
WIDTHS = (64, 128, 256, 512, 1024)
# ratio to the best peer that computes the same matrix
PROMISED = {("LeNet-5", 512): 2, ("LeNet-5", 2048): 2, ("LeNet-5", 8192): 2, ("ResNet-18", 256): 1}
PROMISED |= {("MLP 3 x 512", n): 2 for n in (512, 2048, 8192)}
OF_PEAK, MNIST_MEMORY, TWO_PROCESSES = 0.60, 3.0, 1.7
# A route is not tried at a size where its last one lets expect more; where a ratio is promised, four times as long.
LIMIT_SECONDS, LIMIT_BYTES = 60.0, 18 * 2**30


def best(call, repeats, patience=20.0):
    """Time a call after one warm-up: the best and the last of a few runs, fewer where one takes long."""
    start = time.perf_counter()
    out = call()
    first = time.perf_counter() - start
    if first > patience:
        return first, out
    times = []
    for _ in range(max(1, min(repeats, int(patience / max(first, 1e-3))))):
        start = time.perf_counter()
        out = call()
        times.append(time.perf_counter() - start)
    return min(times), out


def peak_of_products(n=4096):
    """Return the machine's own speed in float32 matrix products, in GFLOP/s, the best of ten."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / best(lambda: a @ b, 10)[0] / 1e9


def memory_in_use():
    """Return the peak of this process's memory in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def problem(model_name, n, width=None):
    """Build a network and n random samples with lpNTK's cotangents."""
    torch.manual_seed(0)
    build, shape, _ = MODELS[model_name] if width is None else (lambda: ntk.mlp((width,) * 4 + (10,)), (width,), ())
    model = build().eval()
    y = torch.randint(0, 10, (n,))
    # a tensor: the peers know no functions of the logits
    return model, torch.randn(n, *shape), ntk.labelled(y)(torch.zeros(n, 10))


def one_route(model_name, n, route, width=None):
    """Time one route at one size, and compare its matrix with ours on the corner."""
    model, x, c = problem(model_name, n, width)
    before = memory_in_use()
    seconds, matrix = best(ROUTES[route][0](model, x, c), 7)
    peak = memory_in_use()
    corner = min(n, 64)
    wanted = ntk.tangent_kernel(model.double(), x[:corner].double(), c[:corner].double()).float()
    off = float((matrix[:corner, :corner] - wanted).norm() / wanted.norm())
    if route in EXACT and off > 1e-3:
        raise SystemExit(f"{route} computes another matrix: relative difference {off:.1e}")
    parameters = sum(p.numel() for p in model.parameters())
    return {"model": model_name, "samples": n, "route": route, "seconds": seconds, "gib": peak - before, "error": off} | {
        "parameters": parameters
    }


def beside(model_name, n, route, rounds=25, patience=60.0):
    """Time this package and a peer in turns, so that both meet the same moments of the machine; the median of the ratios."""
    model, x, c = problem(model_name, n)
    ours, theirs = (ROUTES[name][0](model, x, c) for name in ("ntk_course", route))
    ours(), theirs()
    times = []
    while len(times) < rounds and sum(map(sum, times)) < patience:
        marks = [time.perf_counter()]
        for call in (ours, theirs):
            call()
            marks.append(time.perf_counter())
        times.append((marks[1] - marks[0], marks[2] - marks[1]))
    found = {"model": model_name, "samples": n, "route": route, "rounds": len(times)}
    found |= {"seconds": min(own for own, _ in times), "theirs": min(other for _, other in times)}
    return found | {"ratio": statistics.median(other / own for own, other in times)}


def multiply_adds(model, x):
    """Count what the kernel of one pair takes, from the features of one sample in a large matrix."""
    return tangent_features(model, x, ntk.ones, Layout.choose(probe(model, x), pairs=2e4)).multiply_adds


def mnist():
    """Row maxima and ten closest partners of all of MNIST, LeNet-5's lpNTK."""
    data = ntk.load("mnist")
    torch.manual_seed(0)
    model = ntk.lenet5()
    ntk.train(model, data.x, data.y, epochs=1, lr=0.05, momentum=0.9, progress=False)
    c = ntk.labelled(data.y)
    peak = peak_of_products()
    start = time.perf_counter()
    found = ntk.Gram(model, data.x, c).reduce(ntk.TopPartners(10))
    seconds = time.perf_counter() - start
    # multiply-adds, two operations, of the pairs that are computed: half of all, and the rest of the smallest blocks on the diagonal
    operations = len(data) * (len(data) + 128) * multiply_adds(model, data.x[:1])
    speed = operations / seconds / 1e9
    row = {"samples": len(data), "seconds": seconds, "gflops": speed, "peak_gflops": max(peak, peak_of_products())}
    redundant = float((found.value[:, 0] > found.own).float().mean())
    return row | {"of_peak": speed / row["peak_gflops"], "gib": memory_in_use(), "redundant": redundant}


def share_of_work(n):
    """Reduce n samples in as many processes as torchrun started, one thread each; the first prints the seconds."""
    torch.set_num_threads(1)
    model, x, c = problem("LeNet-5", n)
    with ntk.processes.joined() as here:
        ntk.Gram(model, x[:512], c[:512]).reduce(ntk.TopPartners(10), progress=False)
        ntk.processes.agreed({}, "warm-up")
        start = time.perf_counter()
        ntk.Gram(model, x, c).reduce(ntk.TopPartners(10), progress=False)
        if here.rank == 0:
            print(json.dumps({"processes": here.size, "samples": n, "seconds": time.perf_counter() - start}))


def approximations(n=4096):
    """Error and seconds of approximations of the lpNTK of trained LeNet-5 on MNIST, beside the exact matrix."""
    data = ntk.load("mnist", limit=n)
    torch.manual_seed(0)
    model = ntk.lenet5()
    ntk.train(model, data.x, data.y, epochs=10, lr=0.05, momentum=0.9, progress=False)
    x, c = data.x, ntk.labelled(data.y)
    seconds, exact = best(lambda: ntk.tangent_kernel(model, x, c), 3)
    rows = [{"method": "exact", "size": 0, "seconds": seconds, "error": 0.0, "partners": 1.0}]
    closest = ntk.analysis.closest_partners(exact).index

    def note(method, size, call):
        taken, matrix = best(call, 2)
        matrix = (matrix + matrix.T) / 2
        same = float((ntk.analysis.closest_partners(matrix).index == closest).float().mean())
        off = float((matrix - exact).norm() / exact.norm())
        rows.append({"method": method, "size": size, "seconds": taken, "error": off, "partners": same})

    def squared(f):
        return f @ f.T

    for k in (64, 256, 1024, 4096):
        note("random projection", k, lambda k=k: squared(ntk.Gram(model, x, c).projected(k)))
    for m in (32, 128, 512, 2048):
        note("Nystrom", m, lambda m=m: squared(ntk.Gram(model, x, c).nystrom(m)))
    note("last layer", 0, lambda: list(ntk.Gram(model, x, c).per_layer().values())[-1].dense())
    note("bf16", 0, lambda: ntk.tangent_kernel(model, x, c, precision="bf16"))
    v = torch.randn(n)
    taken, product = best(lambda: ntk.Gram(model, x, c) @ v, 3)
    off = float((product - exact @ v).norm() / (exact @ v).norm())
    rows.append({"method": "product with a vector", "size": 0, "seconds": taken, "error": off, "partners": None})
    return rows


def alone(*arguments, torchrun=0, threads=None):
    """Run one measurement in a process of its own (or several), and return what it printed last; None if it died."""
    start = [sys.executable]
    if torchrun:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={torchrun}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads or os.cpu_count()), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([*start, __file__, "--one", *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("{", "["))]
    return json.loads(lines[-1]) if done.returncode == 0 and lines else None


def foreseen(done, n):
    """Foresee seconds and GiB at n samples from the runs so far: they grow as they did last, memory at least linearly."""
    if not done:
        return 0.0, 0.0
    growth, exponent = n / done[-1]["samples"], 2.0
    if len(done) > 1:
        a, b = done[-2:]
        exponent = (
            math.log(b["seconds"] / max(a["seconds"], 1e-9)) / math.log(b["samples"] / a["samples"]) if b["seconds"] else 2.0
        )
    return done[-1]["seconds"] * growth ** min(2.0, max(1.0, exponent)), done[-1]["gib"] * growth


def peers(routes):
    """Every route at every size it can reach, this package first."""
    rows = []
    for model_name, (_, _, sizes) in MODELS.items():
        for route in routes:
            done = []
            for n in sizes:
                row = {"model": model_name, "samples": n, "route": route}
                seconds, gib = foreseen(done, n)
                if not installed(route):
                    row["why"] = "not installed"
                elif route == "traker" and model_name == "ResNet-18":
                    row["why"] = "2048 projections of 11 million numbers take minutes on a CPU"
                elif seconds > LIMIT_SECONDS * (4 if (model_name, n) in PROMISED else 1):
                    row["why"] = f"would take about {seconds:.0f} s"
                elif gib * 2**30 > LIMIT_BYTES:
                    row["why"] = f"would need about {gib:.0f} GiB"
                else:
                    found = alone("route", model_name, n, route)
                    row |= found or {"why": "failed"}
                    done.append(found or {"samples": n, "seconds": 0.0, "gib": 1e9})
                print(*(f"{v:.3g}" if isinstance(v, float) else v for v in row.values()), sep="  ", flush=True)
                rows.append({"part": "peers"} | row)
    for model_name, n in PROMISED:
        reached = {r["route"]: r["seconds"] for r in rows if (r["model"], r["samples"]) == (model_name, n) and "seconds" in r}
        others = [route for route in EXACT[2:] if route in reached]
        if others and "ntk_course" in reached:
            rows.append({"part": "beside"} | alone("beside", model_name, n, min(others, key=reached.get)))
            print(*rows[-1].values(), sep="  ", flush=True)
    for route in [route for route in EXACT[:2] if route in routes]:
        for width in WIDTHS if route == "ntk_course" else WIDTHS[:-1]:  # 4 million parameters do not fit
            found = alone("route", "MLP", 2048, route, width)
            if found:
                print("width", width, route, f"{found['seconds']:.3f}", flush=True)
                rows.append({"part": "widths", "width": width} | found)
    return rows


def missed_promises(rows):
    """List the promised ratios that these rows miss, in words."""
    missed = []
    for r in rows:
        if r["part"] == "beside" and r["ratio"] < PROMISED[r["model"], r["samples"]]:
            wanted = PROMISED[r["model"], r["samples"]]
            missed.append(f"{r['model']}, N = {r['samples']}: {r['ratio']:.2f} x {r['route']}, promised {wanted}")
    for r in rows:
        if r["part"] == "mnist" and (r["of_peak"] < OF_PEAK or r["gib"] > MNIST_MEMORY):
            missed.append(f"MNIST: {r['of_peak']:.0%} of the peak, {r['gib']:.1f} GiB")
    shared = {}
    for r in rows:
        if r["part"] == "processes":
            shared[r["processes"]] = min(r["seconds"], shared.get(r["processes"], float("inf")))
    if shared and shared[1] < TWO_PROCESSES * shared[2]:
        missed.append(f"two processes: {shared[1] / shared[2]:.2f} x one, promised {TWO_PROCESSES}")
    return missed


def measure(name, *arguments):
    """Carry out one measurement in this process and print it as JSON."""
    if name == "route":
        model_name, n, route, *width = arguments
        found = one_route(model_name, int(n), route, *map(int, width))
    elif name == "beside":
        found = beside(arguments[0], int(arguments[1]), arguments[2])
    elif name == "share":
        share_of_work(int(arguments[0]))
        return
    else:
        found = {"mnist": mnist, "approximations": approximations, "peak": lambda: {"gflops": peak_of_products()}}[name]()
    print(json.dumps(found))


def main() -> int:
    """Run the parts and return 0 when every promise holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("mnist", "processes", "approximations", "peers")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES), help="of the part peers")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(*args.one)
        return 0
    start, rows = time.perf_counter(), [{"part": "peak"} | alone("peak"), {"part": "peak, one thread"} | alone("peak", threads=1)]
    print(rows)
    if "mnist" in args.only:
        rows.append({"part": "mnist"} | alone("mnist"))
        print(rows[-1])
    if "processes" in args.only:
        for count in (1, 2, 1, 2):
            rows.append({"part": "processes"} | alone("share", 32768, torchrun=count, threads=1))
            print(rows[-1])
    if "approximations" in args.only:
        rows += [{"part": "approximations"} | row for row in alone("approximations")]
        print(ntk.table([r for r in rows if r["part"] == "approximations"]))
    if "peers" in args.only:
        rows += peers(args.routes)
    missed = missed_promises(rows)
    print("\n".join(["MISSED", *missed] if missed else ["all promises hold"]))
    if args.save:
        save(rows, time.perf_counter() - start)
    return int(bool(missed))


def save(rows, seconds):
    """Store the rows with machine and versions; parts and routes that were not run keep what was stored."""
    before = results.read("cost", "class", ROOT / "book/results")
    made = {(row["part"], row.get("route")) for row in rows}
    kept = [] if before is None else [row for row in before.rows if (row["part"], row.get("route")) not in made]
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    told = Path("/proc/cpuinfo")
    cpu = (
        next((line.split(":")[1].strip() for line in told.read_text().splitlines() if "model name" in line), "")
        if told.exists()
        else ""
    )
    machine = {"processor": cpu or platform.machine(), "cores": os.cpu_count(), "memory": free_memory()}
    provenance = {"versions": found, "machine": machine, "commit": results._commit(), "seconds": round(seconds, 1)}
    rows = [results._plain(row) for row in [*kept, *rows]]
    print("wrote", results.save(results.Result("cost", "class", rows, provenance), ROOT / "book/results"))


if __name__ == "__main__":
    raise SystemExit(main())
