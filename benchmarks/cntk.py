"""Time the convolutional NTK of CIFAR-sized images, seven layers, float64, in blocks.

    python benchmarks/cntk.py [--images 1000] [--pooling flatten] [--threads 2]

Random images: the time does not depend on what they show. With "--pooling average" take few images on a CPU: it is a thousand
times the work. Prints seconds, microseconds a pair, and peak memory; checks one block against the whole.
"""

import argparse
import os
import resource
import time

import torch

import ntk_course as ntk


def main() -> int:
    """Run, print, and return 0 when a block computed alone is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--pooling", default="flatten", choices=("flatten", "average"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    x = torch.randn(args.images, 3, 32, 32, device=ntk.device())
    start = time.perf_counter()
    whole = ntk.cntk(x, depth=7, pooling=args.pooling, progress=True)
    last = whole.ntk[-1, -1].item()  # waits for the GPU
    seconds = time.perf_counter() - start
    pairs = args.images * (args.images + 1) / 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"torch {torch.__version__}, {x.device}, {args.threads} threads, {args.images} images, {args.pooling}")
    print(f"{seconds:.1f} s, {1e6 * seconds / pairs:.0f} us a pair, peak {peak:.2f} GiB")
    alone = ntk.cntk(x[-1:], x[:2], depth=7, pooling=args.pooling).ntk
    same = torch.allclose(alone, whole.ntk[-1:, :2], rtol=1e-5) and last > 0
    print("two pairs alone are the same:", same)
    return int(not same)


if __name__ == "__main__":
    raise SystemExit(main())
