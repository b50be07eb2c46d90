"""Helpers of the tests of processes: programs that torchrun starts, and children that get killed."""

import os
import subprocess
import sys
import textwrap


def torchrun(program, processes, folder, check=True, **environment):
    """Run a program on so many processes, one thread each, and return what it printed (both streams)."""
    file = folder / "program.py"
    file.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"),
            *(f"--nproc-per-node={processes}", str(file)),
        ],
        # on this machine only, whatever its name resolves to
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def setting(seed=0):
    """Build a small network and labelled digits, the same in every process."""
    import torch

    import ntk_course as ntk

    torch.manual_seed(seed)
    data = ntk.load("digits", limit=300)
    return ntk.mlp((64, 24, 10)), data.x, ntk.labelled(data.y)


def write(path, pace=0.0, size_limit=None, errors=None):
    """Write a Gram matrix, slowly, in a process that may be killed, or may not write files beyond a size.

    An error is put into the queue ``errors``: what the child of a server prints does not reach the test.
    """
    import resource
    import time

    import torch

    import ntk_course as ntk
    from ntk_course.gram import blocks

    torch.set_num_threads(1)
    if size_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_limit, resource.RLIM_INFINITY))
    original = blocks.tangent_product

    def slow(*args):
        time.sleep(pace)
        return original(*args)

    blocks.tangent_product = slow
    try:
        ntk.Gram(*setting(), block_size=25).save(path, progress=False)
    except OSError as error:
        errors.put(str(error))
        raise SystemExit(1) from error
