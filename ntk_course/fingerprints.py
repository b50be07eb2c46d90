"""Fingerprints of models and tensors, so that what was kept on disk is only ever continued with what it was made from."""

import hashlib

import torch
from torch import Tensor, nn


def of_tensor(*tensors: Tensor) -> str:
    """Return a digest of tensors' dtypes, shapes and bits.

    Example:
        >>> of_tensor(x) == of_tensor(x.clone())
        True
    """
    digest = hashlib.sha256()
    for t in tensors:
        digest.update(f"{t.dtype}{tuple(t.shape)}".encode())
        if t.numel():
            digest.update(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def same(found: dict[str, str], wanted: dict[str, str], where: str) -> None:
    """Check that what lies somewhere was made from the same, by name, or say from what else.

    Raises:
        ValueError: it was not.
    """
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(f"{where} holds a Gram matrix of another {name}; wanted its own, or a new folder")


def of_model(model: nn.Module) -> str:
    """Return a digest of a model's modules, of which parameters train, and of all parameters and buffers.

    The code of a user's own ``forward`` is not part of it.
    """
    digest = hashlib.sha256(repr(model).encode())
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name}{t.requires_grad}{of_tensor(t)}".encode())
    return digest.hexdigest()[:16]
