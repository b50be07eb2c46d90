"""Learning difficulty: how much loss a sample collects during training, and how it depends on the company it keeps."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..basics import validate
from ..training.ensemble import train_ensemble

MEASURES = ("loss", "distance")


def learning_difficulty(logits: Tensor, y: Tensor, measure: str = "loss") -> Tensor:
    r"""Add up over the epochs what a sample costs: its learning difficulty (Guo et al., 2024, sec. 3.2).

    "loss" is the paper's definition, :math:`\sum_e -\log q_y`; "distance" is what its public code adds up,
    :math:`\sum_e \|q - e_y\|_2`, which is bounded by :math:`\sqrt2` an epoch.

    Args:
        logits: a sample's logits in each epoch, (E, ..., K), as :attr:`ntk_course.training.Ensemble.logits`.
        y: integer labels (...).
        measure: "loss" (in nats) or "distance".

    Returns:
        (...), larger is harder, in the dtype of logits.

    Raises:
        TypeError, ValueError: labels that do not fit the logits, an unknown measure.

    Example:
        >>> subsets = nested_subsets(data.y, (16, 4))[4]
        >>> ensemble = train_ensemble(mlp((64, 8, 10)), data.x, data.y, subsets, epochs=3, lr=0.1)
        >>> learning_difficulty(ensemble.logits, data.y[subsets]).shape
        torch.Size([4, 40])
    """
    if measure not in MEASURES:
        raise ValueError(f"measure: got {measure!r}; wanted one of {MEASURES}")
    if logits.dim() < 3 or logits.shape[1:-1] != y.shape:
        raise ValueError(f"y: got shape {tuple(y.shape)}; wanted {tuple(logits.shape[1:-1])}, from logits (E, ..., K)")
    k = logits.shape[-1]
    target = one_hot(validate.labels(y.flatten(), y.numel(), k, logits), k).view(*y.shape, k).to(logits.dtype)
    if measure == "loss":
        return -(logits.log_softmax(-1) * target).sum(-1).sum(0)
    return (logits.softmax(-1) - target).norm(dim=-1).sum(0)


def nested_subsets(y: Tensor, sizes: Sequence[int], seed: int = 0) -> dict[int, Tensor]:
    """Split samples at random into subsets of X per class, for every X, each subset inside one of the next size up.

    Algorithm 1 of Guo et al. (2024) trains on every subset of every size. Samples of a class beyond the largest size are
    left out, so the largest size has one subset: the universe.

    Args:
        y: integer labels (N,).
        sizes: samples per class; each must divide the next larger one.
        seed: of the split.

    Returns:
        Size X to indices (largest // X, X * classes), class by class within a subset.

    Raises:
        ValueError: sizes that do not divide one another, a class with fewer samples than the largest size.

    Example:
        >>> nested_subsets(data.y, (16, 4))[4].shape
        torch.Size([4, 40])
    """
    order = sorted({validate.positive(size, "sizes") for size in sizes}, reverse=True)
    for large, small in zip(order, order[1:], strict=False):
        if large % small:
            raise ValueError(f"sizes: got {large} and {small}; wanted each size to divide the next larger one")
    y = validate.labels(y, len(y), int(y.max()) + 1, y)
    counts = torch.bincount(y)
    if (counts < order[0]).any():
        few = int(counts.argmin())
        raise ValueError(f"sizes: got {order[0]}, but class {few} has only {int(counts[few])} sample(s)")
    generator = torch.Generator().manual_seed(seed)
    members = [(y.cpu() == k).nonzero()[:, 0] for k in range(len(counts))]
    universe = torch.stack([m[torch.randperm(len(m), generator=generator)[: order[0]]] for m in members])  # (classes, largest)
    return {x: universe.view(len(counts), -1, x).transpose(0, 1).reshape(-1, len(counts) * x) for x in order}


def visits_by_size(
    model: nn.Module | Callable[[int], nn.Module],
    x: Tensor,
    y: Tensor,
    sizes: Sequence[int],
    *,
    seed: int = 0,
    batch_size: int = 128,
    **training,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Train on every subset of every size and keep what each sample was answered on every visit.

    Algorithm 1 of Guo et al. (2024): all models start from the weights of ``model``, and losses are taken on the visit of
    a sample, before that visit's step, in train mode. The models of one size are trained together in a vmap.

    Args:
        model: the initial weights of all, not changed; or a function that builds the m-th model, m counted over all sizes from the
            largest on, for initial weights of their own.
        x: (N, ...), on the model's device.
        y: integer labels (N,).
        sizes: samples per class, as in :func:`nested_subsets`.
        seed: of the split and of the batches.
        batch_size: samples a step; a smaller subset is one batch.
        **training: recipe (or its fields) and progress of :func:`ntk_course.training.train_ensemble`.

    Returns:
        The indices of the U samples of the universe in increasing order, and for each size X the logits (E, U, K) of
        their visits, on the CPU, for :func:`learning_difficulty`.

    Raises:
        TypeError, ValueError: as :func:`nested_subsets` and :func:`ntk_course.training.train_ensemble`.

    Example:
        >>> universe, visits = visits_by_size(mlp((64, 8, 10)), data.x, data.y, (16, 4), epochs=3, lr=0.1)
        >>> difficulty = {size: learning_difficulty(z, data.y[universe]) for size, z in visits.items()}
        >>> difficulty[4].shape
        torch.Size([160])
    """
    splits = nested_subsets(y, sizes, seed)
    universe = splits[max(splits)].flatten().sort().values
    visits: dict[int, Tensor] = {}
    begun = 0
    for size, subsets in splits.items():
        own = model if isinstance(model, nn.Module) else [model(begun + m) for m in range(len(subsets))]
        begun += len(subsets)
        # about 16,000 samples in flight: enough to fill the machine, few enough to fit in it
        together = max(1, 2**14 // min(subsets.shape[1], batch_size))
        ensemble = train_ensemble(own, x, y, subsets, seed=seed, batch_size=batch_size, together=together, **training)
        visits[size] = ensemble.logits.flatten(1, 2)[:, subsets.flatten().argsort()]
    return universe, visits


def difficulty_correlation(difficulty: dict[int, Tensor]) -> Tensor:
    r"""Correlate the difficulties found at every pair of sizes (Pearson's :math:`\rho`; Guo et al., 2024, Tables 4 to 6).

    Args:
        difficulty: size to difficulties (U,), as from :func:`learning_difficulty`.

    Returns:
        (S, S) float64, sizes in the order of the argument.

    Raises:
        ValueError: difficulties of different lengths, or the same for every sample (the correlation is undefined).

    Example:
        >>> difficulty_correlation({16: torch.arange(8.0), 4: torch.arange(8.0)})[0, 1]
        tensor(1., dtype=torch.float64)
    """
    lengths = {len(d) for d in difficulty.values()}
    if len(lengths) != 1 or lengths.pop() < 2:
        raise ValueError(f"difficulty: got lengths {[len(d) for d in difficulty.values()]}; wanted one length of at least 2")
    stacked = torch.stack([d.double() for d in difficulty.values()])
    flat = [size for size, d in zip(difficulty, stacked, strict=True) if d.max() == d.min()]
    if flat:
        raise ValueError(f"difficulty: got the same value for every sample at size {flat[0]}; wanted some that differ")
    return torch.corrcoef(stacked)
