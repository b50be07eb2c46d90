"""Many processes as one: started by torchrun, on one machine or several, they share out work and join what they found."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
from torch import distributed

T = TypeVar("T")

# One process may have to wait for another for as long as a share of the work can differ.
_PATIENCE = timedelta(days=7)


class World(NamedTuple):
    """Which process this is, and of how many."""

    rank: int
    size: int


def world() -> World:
    """Return this process's rank and the number of processes; (0, 1) where it runs alone."""
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World(0, 1)


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started, for as long as the context lasts; without torchrun do nothing.

    A program that may run under torchrun wraps its work in this context, and nothing else in it changes. Each process
    takes the GPU of its local rank where there are GPUs (messages still go over gloo: they are small), and the cores that
    torchrun gives it (``OMP_NUM_THREADS``, 1 unless set).

    Yields:
        the :class:`World`.

    Example:
        >>> with joined():  # torchrun --nproc-per-node 2 program.py
        ...     top = Gram(model, x, labelled(y)).reduce(TopPartners(10))
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or distributed.is_initialized():
        yield world()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield world()
    finally:
        distributed.destroy_process_group()


def gathered(work: Callable[[], T], what: str) -> list[T]:
    """Do this process's part of some work, and return what all processes found, by rank.

    A process that fails says so at once; the others finish their part, so that what they keep on disk is kept, and then
    fail too.

    Args:
        work: this process's part; its result is sent to all others, so tensors in it should be on the CPU.
        what: the work's name, for messages.

    Raises:
        RuntimeError: another process failed; names it and its error. This process's own error is raised as it is.
    """
    here = world()
    if here.size == 1:
        return [work()]
    found, error = None, None
    try:
        found = work()
    except Exception as raised:
        error = raised
        print(f"{what}: process {here.rank} of {here.size} failed: {raised!r}; the others finish their part", file=sys.stderr)
    parts: list = [None] * here.size
    distributed.all_gather_object(parts, (found, None if error is None else repr(error)))
    if error is not None:
        raise error
    failed = {rank: words for rank, (_, words) in enumerate(parts) if words is not None}
    if failed:
        raise RuntimeError(f"{what}: {', '.join(f'process {r} failed with {w}' for r, w in failed.items())}; run it again")
    return [part for part, _ in parts]


def agreed(values: dict[str, str], what: str) -> None:
    """Check that all processes hold the same values, by name, or say which process differs in what.

    Raises:
        ValueError: they do not; in every process.
    """
    for rank, others in enumerate(parts := gathered(lambda: values, what)):
        for name in values:
            if others.get(name) != parts[0].get(name):
                raise ValueError(f"{name}: got another one in process {rank} than in process 0; wanted the same in all ({what})")


def from_first(work: Callable[[], T], what: str) -> T:
    """Do something in the first process only, and return its result in all."""
    found = gathered(lambda: [work()] if world().rank == 0 else [], what)
    return found[0][0]
