"""The Gram matrix as one lazy object: checked once, laid out once, nothing computed until something is asked of it."""

import math
import operator as builtin
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..basics import validate
from ..basics.fingerprints import checksum
from ..basics.progress import after_a_moment
from ..basics.samples import Stored, leaves
from ..basics.settings import settings, where_it_lies, without
from ..models.adapted import Output, origin
from ..models.choice import Choice, chosen_from
from ..tangents.certified import state
from ..tangents.cotangents import Cotangent, PerSample, Summed, part
from ..tangents.features import Tangents, tangent_product
from ..tangents.running import run
from . import approximate, implicit, interoperate
from .blocks import Worker, all_tiles, tile_blocks, with_mirror
from .plan import Plan, free_on, plan, slices
from .reduce import reduce
from .reducers import Reducer
from .sides import Sides, against, check
from .store import write

# Samples whose products with themselves are taken out of a product of all with all.
_DIAGONAL = 16


class Gram:
    r"""The Gram matrix of tangent features, :math:`\langle\phi_{c_n}(x_n), \phi_{c_m}(x_m)\rangle`, computed when asked.

    Made once, it is checked once, and what decides how features are kept (which gradients are formed, block size, memory,
    precision) is chosen once and stays with it. ``G[7]``, ``G[:100]`` and ``G[rows, columns]`` are parts of it, ``G @ v`` its
    product with a vector, ``numpy.asarray(G)`` the whole, as scikit-learn takes it for ``kernel="precomputed"``. Without x2
    and c2 it is symmetric, and only half of it is ever computed. Lists of rows and of columns pick a submatrix, as
    :func:`numpy.ix_` does, and not pairs.

    The model's parameters are read when something is asked, not when the object is made; which of them train is settled when
    it is made. Features that were kept (:meth:`keep`) are made again where weights, samples or cotangents have changed since.

    Args:
        model: gives logits (N, K), or (N,), or (N, T, K) for T positions such as tokens, in eval mode where it has BatchNorm or
            Dropout; its trainable parameters are the ones differentiated.
        x1: (N, ...); or a tuple or dict of tensors with samples first, for ``model(*x1)`` or ``model(**x1)``; or a
            :class:`torch.utils.data.Dataset` (or a DataLoader in its order) of such, read a block at a time; of pairs
            (input, target) it is the input.
        c1: the cotangent, see :mod:`ntk_course.tangents.cotangents`: a function of the logits, such as
            :func:`ntk_course.ones` or ``ntk_course.labelled(y)``, or a tensor (N, K), or (N, R, K) for R rows of the
            matrix a sample.
        x2: (M, ...), as x1, or None for x1 against itself.
        c2: its cotangent; by default c1, where that is a function of the logits alone.
        output: the part of the model's answer that counts, where that is no tensor: a name (``"logits"``), a number, or a function
            of the answer.
        block_size: samples a side of a block; by default 512 (2048 on a GPU), or fewer where ``memory`` asks for it.
        memory: bytes for all that is held at a time; by default half of what is free. The model's own work space for one
            sample is the least there is.
        precision: "exact" in the model's dtype; "tf32" or "bf16" for a float32 model on a GPU: products of numbers
            rounded to 10 or 7 binary digits, added up in float32. The features come from TF32 then. On a CPU "tf32" is
            exact and "bf16" rounds the same way without being faster.
        parameters: which of the trainable parameters count: names, patterns (``"blocks.*.weight"``), modules by name or as they are,
            parameters, or a list of these; by default all. Nothing is computed for the others.

    Raises:
        TypeError, ValueError: bad shapes, dtypes, devices or values, a model in train mode with BatchNorm or Dropout.

    Example:
        >>> G = Gram(model, x, labelled(y))
        >>> G.shape, G[3].shape, (G @ torch.ones(len(x))).shape
        ((32, 32), torch.Size([32]), torch.Size([32]))
        >>> torch.allclose(G.dense(), lpntk(model, x, y))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        x1: Any,
        c1: Cotangent,
        x2: Any = None,
        c2: Cotangent | None = None,
        *,
        output: Output | None = None,
        block_size: int | None = None,
        memory: int | None = None,
        precision: str = "exact",
        parameters: Choice | None = None,
    ):
        """Check the arguments and choose the layout."""
        sides = check(model, x1, c1, x2, c2, precision, output, parameters)
        self._set(sides, plan(sides, block_size, memory))

    def _set(self, sides: Sides, chosen: Plan, features: Tangents | None = None) -> None:
        self._sides, self._plan, self._features = sides, chosen, features
        self._seen = None if features is None else _state(sides)

    @property
    def _kept(self) -> Tangents | None:
        """The features of the second side, where they are kept and the model is still as it was."""
        if self._features is not None and self._seen != _state(self._sides):
            self.release()
        return self._features

    @classmethod
    def _of(cls, sides: Sides, chosen: Plan, kept: Tangents | None = None) -> "Gram":
        made = cls.__new__(cls)
        made._set(sides, chosen, kept)
        return made

    # ----- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, M), or (N, M, R, S) for cotangents (N, R, K) and (M, S, K)."""
        return self._sides.shape

    @property
    def ndim(self) -> int:
        """2, or 4 for stacked cotangents."""
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The model's."""
        return self._sides.dtype

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self._sides.device

    @property
    def symmetric(self) -> bool:
        """Whether the second side is the first."""
        return self._sides.symmetric

    @property
    def block_size(self) -> int:
        """Samples a side of a block."""
        return self._plan.block_size

    @property
    def T(self) -> "Gram":  # noqa: N802
        """The transposed matrix: the same object where it is symmetric and has one cotangent a sample."""
        s = self._sides
        if s.symmetric and s.stacked is None:
            return self
        stacked = s.stacked and s.stacked[::-1]
        sides = replace(s, x1=s.x2, c1=s.c2, x2=s.x1, c2=s.c1, rows=s.rows[::-1], stacked=stacked)
        return Gram._of(sides, self._plan, self._kept if s.symmetric else None)

    @property
    def routes(self) -> dict[str, str]:
        """How each trainable parameter's per-sample gradients are made, by its name.

        "rule": from the factors they are made of; "torch.func": by vmap; "autograd": one sample at a time, right for any model
        and slow; "none": no sample reaches it. Which is right was found by trying a few samples against plain autograd; every
        block is held against it once more when it is computed, and what is wrong there goes one sample at a time.

        Example:
            >>> set(Gram(model, x, ones).routes.values())
            {'rule'}
        """
        known = self._sides.known
        return (
            dict.fromkeys(known.numels, "autograd")
            | dict.fromkeys(known.batched, "torch.func")
            | dict.fromkeys(known.understood, "rule")
            | dict.fromkeys(known.unreached, "none")
        )

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Say its size, and how it is laid out."""
        size, chosen = " x ".join(map(str, self.shape)), self._plan
        kept = f"{len(chosen.layout.factored)} of {len(chosen.layout.known.sizes)} weights in factors"
        kind = ", symmetric" * self.symmetric
        return f"Gram({size}, {self.dtype}, {self.device}{kind}; {kept}, blocks of {chosen.block_size})"

    # ----- parts of it

    def dense(self, progress: bool = True) -> Tensor:
        """Return the whole matrix, (N, M) or (N, M, R, S), in the model's dtype and on its device.

        Args:
            progress: show a bar, where it takes longer than a moment.

        Raises:
            MemoryError: a matrix larger than what is free, and what to do instead.

        Example:
            >>> Gram(model, x, ones).dense().shape
            torch.Size([32, 32])
        """
        needed, free = math.prod(self.shape) * self._sides.known.z.element_size(), free_on(self.device)
        if needed > free:
            raise MemoryError(
                f"dense: got a matrix of {' x '.join(map(str, self.shape))}, {needed / 2**30:.1f} GiB, with {free / 2**30:.1f} GiB free; "
                "wanted one that fits: G.reduce(...) folds its blocks, G.save(folder) writes them to disk, G.blocks() hands them out, "
                "G @ v and G[rows] need no more than they return"
            )
        sides, chosen = self._sides, self._plan
        out, work = sides.known.z.new_empty(self.shape), all_tiles(sides, chosen)
        blocks = tile_blocks(sides, chosen, work, self._kept)
        for _, rows, cols, block in after_a_moment(blocks, "Gram matrix", len(work), shown=progress):
            for where, there, part_ in with_mirror(sides, rows, cols, block):
                out[where, there] = part_
        return out

    def blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Stream the matrix in blocks, never holding all of it: ``(rows, cols, block)``.

        Blocks cover every pair exactly once, in no promised order. Of a symmetric matrix half of them are computed, and each
        off-diagonal block is handed out a second time, transposed. Rows are worked through in stripes whose tangent features
        fit in ``memory``; columns stream past them. Where a GPU runs out of memory all the same, the work goes on in halves.

        Yields:
            Two slices and a tensor (n, m), or (n, m, R, S), in the model's dtype and on its device.

        Example:
            >>> largest = torch.full((len(x),), -torch.inf)
            >>> for rows, cols, block in Gram(model, x, ones).blocks():
            ...     largest[rows] = torch.maximum(largest[rows], block.amax(1))
        """
        sides = self._sides
        for _, rows, cols, block in tile_blocks(sides, self._plan, all_tiles(sides, self._plan), self._kept):
            yield from with_mirror(sides, rows, cols, block)

    def keep(self) -> bool:
        """Keep the features of the second side (the training side) where they fit in ``memory``, and say whether they did.

        Rows and products with them, also of other samples (:meth:`against`), then need no pass over that side. They are made
        again where the weights have changed; :meth:`release` gives them back. Asking for rows does this by itself.

        Example:
            >>> G = Gram(model, x, labelled(y))
            >>> G.keep()
            True
        """
        return self._held() is not None

    def _held(self) -> Tangents | None:
        """Return the features of the second side, made where they are missing and fit."""
        sides, chosen, kept = self._sides, self._plan, self._kept
        if kept is None:
            numbers = chosen.layout.numbers(sides.rows[1]) * len(sides.x2)
            if numbers * sides.known.z.element_size() > chosen.memory:
                return None
            worker = Worker(sides, chosen.layout)
            wide = after_a_moment(slices(len(sides.x2), chosen.block_size), "features")
            kept = self._features = Tangents.join([worker.features(sides.x2[some], part(sides.c2, some)) for some in wide])
            self._seen = _state(sides)
        return kept

    def release(self) -> None:
        """Give the features back that :meth:`keep` holds."""
        self._features = self._seen = None

    def against(self, x: Any, c: Cotangent) -> "Gram":
        """Return the matrix of other samples against this one's second side, with the same layout and the features kept.

        Args:
            x: (L, ...), such as test samples.
            c: their cotangent.

        Returns:
            A :class:`Gram` of shape (L, M).

        Raises:
            TypeError, ValueError: as for the object itself.

        Example:
            >>> train = Gram(model, x, labelled(y))
            >>> train.against(x_test, labelled(y_test)).reduce(TopPartners(3)).index.shape  # who speaks for a test sample
            torch.Size([8, 3])
        """
        self.keep()
        return Gram._of(against(self._sides, x, c), self._plan, self._kept)

    def __getitem__(self, index) -> Tensor:
        """Return rows, or rows and columns, by number, slice, list or tensor; see the class."""
        if index is Ellipsis:
            return self.dense()
        rows, cols = self._two(index) if isinstance(index, tuple) else (index, slice(None))
        one, row = self._indices(rows, 0)
        single, column = self._indices(cols, 1)
        found = self._part(row, None if isinstance(cols, slice) and cols == slice(None) else column)
        if one and single:
            return found[0, 0]
        return found[0] if one else found[:, 0] if single else found

    def _two(self, index: tuple) -> tuple:
        """Part an index into one for rows and one for columns; those of :func:`numpy.ix_` are (n, 1) and (1, m)."""
        if len(index) != 2 or any(i is None or i is Ellipsis for i in index):
            raise IndexError(f"index: got {index!r}; wanted rows, or rows and columns")
        shapes = [tuple(getattr(i, "shape", ())) for i in index]
        if [len(s) for s in shapes] == [2, 2] and shapes[0][1] == shapes[1][0] == 1:
            return index[0].reshape(-1), index[1].reshape(-1)
        return index

    def __iter__(self) -> Iterator[Tensor]:
        """Go through the rows."""
        return (self[i] for i in range(len(self)))

    def _indices(self, index, axis: int) -> tuple[bool, Tensor]:
        n, name = self.shape[axis], ("row", "column")[axis]
        where = torch.arange(n, device=self.device)
        if isinstance(index, slice):
            return False, where[index] if (index.step or 1) > 0 else where[range(*index.indices(n))]
        try:
            if getattr(index, "shape", ()):  # a tensor of one number would pass for it
                raise TypeError
            i = builtin.index(index)
        except TypeError:
            chosen = validate.array(index, name, "a number, a slice, or numbers (n,)").to(self.device)
            chosen = chosen if chosen.numel() else chosen.long()  # [] has no dtype of its own
            if chosen.dim() != 1 or chosen.is_floating_point() or chosen.is_complex():
                raise TypeError(f"{name}: got {index!r}; wanted a number, a slice, or numbers (n,)") from None
            if chosen.dtype == torch.bool:
                if len(chosen) != n:
                    raise IndexError(f"{name}: got a mask of {len(chosen)}; wanted {n}") from None
                return False, where[chosen]
            if len(chosen) and not -n <= int(chosen.min()) <= int(chosen.max()) < n:
                raise IndexError(f"{name}: got {int(chosen.min())} to {int(chosen.max())}; wanted -{n} to {n - 1}") from None
            return False, where[chosen.long()]
        if not -n <= i < n:
            raise IndexError(f"{name}: got {i}; wanted -{n} to {n - 1}")
        return True, where[i : i + 1] if i >= 0 else where[n + i : n + i + 1]

    def _part(self, rows: Tensor, cols: Tensor | None) -> Tensor:
        """Compute some rows and columns, all columns for None, with features kept where they fit."""
        sides, chosen = self._sides, self._plan
        worker, count = Worker(sides, chosen.layout), len(sides.x2) if cols is None else len(cols)
        out = sides.known.z.new_empty(len(rows), count, *sides.cotangents)
        kept = self._held() if cols is None else self._kept
        for i in slices(len(rows), chosen.block_size):
            some = slice(int(rows[0]), int(rows[0]) + 1) if len(rows) == 1 else rows[i]  # a view, not a copy
            if kept is not None and sides.symmetric:
                f = kept.of(some)
            else:
                f = worker.features(sides.x1[some], part(sides.c1, some))
            for j in [slice(0, count)] if kept is not None and cols is None else slices(count, chosen.block_size):
                where = j if cols is None else cols[j]
                if kept is not None:
                    g = kept.of(where)
                else:
                    g = worker.features(sides.x2[where], part(sides.c2, where))
                out[i, j] = worker.product(f, g)
        return out if sides.stacked else out[..., 0, 0]

    def diagonal(self) -> Tensor:
        """Return the entries of each sample with itself, (N,), or (N, R, S) for stacked cotangents.

        Raises:
            ValueError: two sides of different lengths.

        Example:
            >>> (Gram(model, x, loss_gradient(y)).diagonal() >= 0).all()  # squared lengths of the loss gradients
            tensor(True)
        """
        sides, chosen = self._sides, self._plan
        if len(sides.x1) != len(sides.x2):
            raise ValueError(f"diagonal: got a matrix of {len(sides.x1)} x {len(sides.x2)}; wanted as many rows as columns")
        worker, parts, kept = Worker(sides, chosen.layout), [], self._kept
        for where in after_a_moment(slices(len(sides.x1), chosen.block_size), "diagonal"):
            g = kept.of(where) if kept is not None else None
            f = g if g is not None and sides.symmetric else worker.features(sides.x1[where], part(sides.c1, where))
            if g is None:
                g = f if sides.symmetric else worker.features(sides.x2[where], part(sides.c2, where))
            for a, b in zip(f.split(_DIAGONAL), g.split(_DIAGONAL), strict=True):
                parts.append(tangent_product(a, b, sides.precision).diagonal(dim1=0, dim2=2).permute(2, 0, 1))
        found = torch.cat(parts).to(sides.dtype)
        return found if sides.stacked else found[:, 0, 0]

    def outputs(self) -> Tensor:
        """Return what the model answers for the samples of the rows, (N, ..., K), block by block as the matrix is made.

        Example:
            >>> torch.allclose(Gram(model, x, ones).outputs(), model(x), atol=1e-6)
            True
        """
        sides = self._sides
        with torch.no_grad():
            return torch.cat(
                [run(sides.model, sides.x1[w], sides.known.traces) for w in slices(len(sides.x1), self._plan.block_size)]
            )

    # ----- products

    def __matmul__(self, v: Tensor) -> Tensor:
        r"""Multiply by a vector (M,) or vectors (M, r): :math:`\Phi_1(\Phi_2^\top v)`, in time linear in N + M, no entry made.

        One backward pass sums the gradients up, one forward-mode pass says how the outputs move along the sum. For stacked
        cotangents v is (M, S) or (M, S, r). Where the model has an operation without a forward-mode rule, or more than
        sixteen vectors come at once, blocks are made and multiplied instead.
        """
        return implicit.times(self, v)

    def quadratic(self, v: Tensor) -> Tensor:
        r"""Return the quadratic form :math:`v^\top \kappa\, v = \|\Phi^\top v\|^2` of a symmetric matrix by one backward pass.

        Args:
            v: (N,), or (N, r); for stacked cotangents (N, R) or (N, R, r).

        Returns:
            A number, or (r,), in the model's dtype and on its device.

        Raises:
            TypeError, ValueError: v of another shape, dtype or device; a matrix of two sides.

        Example:
            >>> Gram(model, x, ones).quadratic(torch.randn(len(x))) >= 0
            tensor(True)
        """
        return implicit.quadratic(self, v)

    # ----- whole data sets

    def reduce(self, reducer: Reducer, *, checkpoint: str | Path | None = None, progress: bool = True):
        """Fold every block into a reducer, on all processes there are, and return its result in each.

        Under torchrun, inside :func:`ntk_course.processes.joined`, the blocks are dealt out and the processes' states merged.
        With a checkpoint, what is done is kept every few seconds; the same call, by as many processes or another number,
        goes on from there after an interrupt, a kill or a failure, and clears the checkpoint away at its end.

        Args:
            reducer: such as :class:`ntk_course.TopPartners`, :class:`ntk_course.gram.Histogram`, or your own, see
                :mod:`ntk_course.gram.reducers`.
            checkpoint: folder to keep the state in, which all processes see.
            progress: show a bar.

        Returns:
            What the reducer makes of all blocks, on the CPU where there are several processes or a checkpoint, else where
            the model is.

        Raises:
            ValueError: processes that disagree on model, data or settings; a checkpoint of other ones.
            RuntimeError: another process failed.

        Example:
            >>> Gram(model, x, labelled(y)).reduce(TopPartners(10), progress=False).index.shape
            torch.Size([32, 10])
        """
        return reduce(self, reducer, checkpoint, progress)

    def save(self, path: str | Path, *, progress: bool = True):
        """Write the matrix to a Zarr array, one chunk for each block, or finish one that was begun.

        A chunk is written beside its place and renamed, so that a chunk that is there is whole: which chunks are there is
        all that a continued run needs to know. The array's attributes say what it was made from (fingerprints of model and
        data, dtype, precision) and how it was cut, so that a continued run computes the same bits; a call with another
        model, other data or settings is refused. Under torchrun, inside :func:`ntk_course.processes.joined`, the processes
        share the blocks and write to one folder that all of them see. Needs ``pip install "ntk_course[store]"``.

        Args:
            path: folder of the array, made where it is missing.
            progress: show a bar.

        Returns:
            The whole array (N, M), open for reading: ``array[i]`` is row i as NumPy. See :func:`ntk_course.open_gram`.

        Raises:
            ValueError: stacked cotangents, bfloat16; a store of another model, data set, setting or version.
            OSError: the disk is full. What was written stays good: free space and call again.
            ImportError: zarr is not installed.
            RuntimeError: another process failed.

        Example:
            >>> Gram(model, x, labelled(y)).save(folder / "digits.zarr", progress=False)[7, :3].shape
            (3,)
        """
        return write(self, path, progress)

    # ----- approximations, each named as one, and shares

    def projected(self, dim: int, *, seed: int = 0) -> Tensor:
        r"""Project the first side's features on random directions, :math:`F = \Phi P/\sqrt k`, so that :math:`FF^\top \approx \kappa`.

        P is (d, k) with entries 1 and -1 at random. By Johnson and Lindenstrauss an entry's error has mean zero and standard
        deviation at most :math:`\sqrt{(\kappa_{ii}\kappa_{jj} + \kappa_{ij}^2)/k}`, whatever d is. TRAK (Park et al., 2023)
        keeps such features of the gradients of a margin. Features of two data sets belong together where the seed is the same.

        Args:
            dim: k.
            seed: of P.

        Returns:
            (N, k), in the model's dtype and on its device.

        Raises:
            ValueError: stacked cotangents.

        Example:
            >>> Gram(model, x, ones).projected(256).shape
            torch.Size([32, 256])
        """
        return approximate.projected(self, dim, seed)

    def nystrom(self, landmarks: int | Tensor, *, seed: int = 0) -> Tensor:
        r"""Write every sample in terms of m landmarks, :math:`F = \kappa_{Nm}\, (\kappa_{mm})^{-1/2}`, so that :math:`FF^\top \approx \kappa`.

        The Nystrom approximation (Williams and Seeger, 2001): exact for the landmarks, and nowhere too large on the diagonal,
        since :math:`\kappa - FF^\top` is positive semi-definite. Directions whose eigenvalue is rounding are left out.

        Args:
            landmarks: m, drawn at random without replacement, or their indices (m,).
            seed: of the draw.

        Returns:
            (N, r), r at most m, in the model's dtype and on its device.

        Raises:
            ValueError: two sides, stacked cotangents, more landmarks than samples, indices out of range or twice.

        Example:
            >>> Gram(model, x, ones).nystrom(8).shape
            torch.Size([32, 8])
        """
        return approximate.nystrom(self, landmarks, seed)

    def only(self, parameters: Choice) -> "Gram":
        """Return the share of the matrix that comes from some of the parameters alone.

        Args:
            parameters: names, patterns, modules or parameters, as for the object itself.

        Raises:
            TypeError, ValueError: none, or something that is not a trainable parameter.

        Example:
            >>> G = Gram(model, x, ones)
            >>> torch.allclose(sum(G.only(name).dense() for name, _ in model.named_parameters()), G.dense())
            True
            >>> torch.allclose(G.only("*.weight").dense() + G.only("*.bias").dense(), G.dense())
            True
        """
        known = self._sides.known
        sides = replace(self._sides, known=known.only(chosen_from(origin(self._sides.model), parameters) & known.numels.keys()))
        return Gram._of(sides, plan(sides, self._plan.asked, self._plan.memory))

    def per_layer(self) -> dict[str, "Gram"]:
        r"""Part the matrix into the shares of the modules that own its parameters, which add up to it.

        The last linear layer's share is :math:`(c \cdot c')(h \cdot h' + 1)`, h that layer's input and the 1 its bias: the first
        term in the proof of Theorem 1 of Guo et al. (2024), App. B, the one that grows with the width.

        Returns:
            A :class:`Gram` for each module's name, in the order of their calls where that is known.

        Example:
            >>> shares = Gram(model, x, ones).per_layer()
            >>> list(shares)
            ['1', '3']
        """
        owned: dict[str, list[str]] = {name: [] for name in self._sides.known.called}
        for name in self._sides.known.numels:
            owned.setdefault(name.rpartition(".")[0], []).append(name)
        return {module: self.only(names) for module, names in owned.items() if names}

    # ----- as others know it

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """Return the whole matrix as NumPy, so that scikit-learn takes it for ``kernel="precomputed"``."""
        dense = self.dense().cpu()
        return np.asarray((dense.float() if dense.dtype == torch.bfloat16 else dense).numpy(), dtype)

    def scipy(self):
        """Return it as a :class:`scipy.sparse.linalg.LinearOperator`, for its eigenvalue and linear solvers.

        Of stacked cotangents it is the matrix (N R, M S), sample by sample.

        Example:
            >>> from scipy.sparse.linalg import eigsh
            >>> eigsh(Gram(model.double(), x.double(), ones).scipy(), k=2)[0].shape
            (2,)
        """
        return interoperate.scipy_operator(self)

    def linear_operator(self):
        """Return it as a ``LinearOperator`` of the package linear_operator, on which GPyTorch stands.

        Needs ``pip install "ntk_course[gpytorch]"``.

        Raises:
            ImportError: linear_operator is not installed.
            ValueError: stacked cotangents.

        Example:
            >>> operator = Gram(model, x, ones).linear_operator()
            >>> (operator + torch.eye(32)).solve(torch.ones(32)).shape
            torch.Size([32])
        """
        return interoperate.gpytorch_operator(self)


def made_of(gram: Gram) -> tuple:
    """Tell what a matrix is made of from anything else, so that what was worked out of it is not used when that has changed."""
    return _state(gram._sides)


def _state(sides: Sides) -> tuple:
    """Tell what the second side's features are made of from anything else: model, settings, samples, cotangents.

    Where weights and samples lie, how often they were written to, and, since ``.data`` and NumPy go round that count, their checksums.
    """
    c = sides.c2.of if isinstance(sides.c2, Summed) else sides.c2
    data = [] if isinstance(sides.x2, Stored) else leaves(sides.x2)
    data += [c] if isinstance(c, Tensor) else c.all_values if isinstance(c, PerSample) else []
    tensors = [*sides.model.parameters(), *sides.model.buffers(), *data]
    held = without(settings(sides.model), sides.known.traces.settings)
    return state(sides.model), tuple(map(where_it_lies, data)), tuple(map(checksum, tensors)), held
