"""Data sets: digits and gaussians work offline; MNIST and CIFAR-10 are read from a folder or fetched once."""

import gzip
import hashlib
import io
import os
import tarfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from ..basics import validate

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
_MD5 = {  # as published; IDX files unzipped and zipped, the CIFAR archive whole
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    _CIFAR_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530",
}
_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Dataset:
    """One split of a data set, ready for a network.

    Attributes:
        x: inputs (N, ...), float32, on the CPU, standardised as ``(raw - mean) / std`` with raw pixels in [0, 1].
        y: labels (N,), int64, in [0, num_classes).
        num_classes: K.
        name: "digits", "gaussians", "mnist" or "cifar10".
        split: "train" or "test".
        classes: one word for each class.
        mean: what was subtracted, one number a channel (empty where nothing was).
        std: what was divided by.
        checksum: SHA-256 of x and y as returned, for provenance.
        note: what a reader of a result must know of the data, or "".
    """

    x: Tensor
    y: Tensor
    num_classes: int
    name: str
    split: str
    classes: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    checksum: str = ""
    note: str = ""

    def __len__(self) -> int:
        return len(self.x)

    def images(self) -> Tensor:
        """Undo the standardisation: (N, C, H, W) in [0, 1]."""
        if self.x.dim() != 4:
            raise ValueError(f"{self.name}: got samples of shape {tuple(self.x.shape[1:])}; wanted images (C, H, W)")
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return self.x * std + mean


def load(name: str, split: str = "train", limit: int | None = None, root: str | Path | None = None) -> Dataset:
    """Load a data set.

    "digits": scikit-learn's 1,797 digits of 8 x 8 pixels, 1,437 train and 360 test (stratified, fixed).
    "gaussians": three classes of 1,000 points in 100 dimensions, means (1, 4, 0, ..), (4, 1, 0, ..), (5, 5, 0, ..), unit
    variance (Bell et al., 2023, sec. 4.1); the test split has 100 points a class from another seed.
    "mnist", "cifar10": IDX and CIFAR-10 binary files, standardised by the usual means and deviations.

    Args:
        name: as above.
        split: "train" or "test".
        limit: keep the first ``limit`` samples only (the order is shuffled, so classes stay about balanced).
        root: folder with ``mnist/`` or ``cifar-10-batches-bin/`` (or the files themselves); by default the environment
            variable NTK_COURSE_DATA. Without either, the files are fetched into pooch's cache and checked.

    Returns:
        A :class:`Dataset`, float32 and int64, on the CPU.

    Raises:
        ValueError: an unknown name or split, a limit below 1, or a file that is truncated or corrupt.
        FileNotFoundError: a file that is missing from root.
        RuntimeError: a download that failed.

    Example:
        >>> data = load("digits", limit=100)
        >>> data.x.shape, data.num_classes
        (torch.Size([100, 1, 8, 8]), 10)
    """
    readers = {"digits": _digits, "gaussians": _gaussians, "mnist": _mnist, "cifar10": _cifar10}
    if name not in readers:
        raise ValueError(f"name: got {name!r}; wanted one of {sorted(readers)}")
    if split not in ("train", "test"):
        raise ValueError(f"split: got {split!r}; wanted 'train' or 'test'")
    if limit is not None:
        validate.positive(limit, "limit")
    root = root or os.environ.get("NTK_COURSE_DATA") or None
    raw, y, classes, mean, std, note = readers[name](split, None if root is None else Path(root))
    x, y = torch.from_numpy(raw[:limit].astype(np.float32)), torch.from_numpy(y[:limit].astype(np.int64))
    if raw.dtype == np.uint8:
        x /= 255
    if mean:
        x = (x - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
    if note:
        warnings.warn(f"{name}: {note}", stacklevel=2)
    checksum = hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    return Dataset(x, y, len(classes), name, split, classes, mean, std, checksum, note)


def at_hand(name: str, root: str | Path | None = None) -> str:
    """Say in a few words whether a data set can be loaded without the network, and from where.

    Example:
        >>> at_hand("digits")
        'yes (offline)'
    """
    if name in ("digits", "gaussians"):
        return "yes (offline)"
    cache = pooch.os_cache("ntk_course")
    wanted = ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz") if name == "mnist" else ("data_batch_1.bin",)
    wanted += (_CIFAR_ARCHIVE,) if name == "cifar10" else ()
    bases = [cache] if root is None else [Path(root) / f for f in ("mnist", "cifar-10-batches-bin", "cifar10", "")]
    found = [base for base in bases for file in wanted if (base / file).is_file()]
    return f"yes ({found[0]})" if found else "no (set NTK_COURSE_DATA, or it is fetched on first use)"


def _digits(split: str, root: Path | None):
    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x.reshape(-1, 1, 8, 8) / 16, y, test_size=360, random_state=0, stratify=y)
    x, y = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
    return x, y, tuple(map(str, range(10))), (0.3053,), (0.3763,), ""


def _gaussians(split: str, root: Path | None):
    rng = np.random.default_rng(0 if split == "train" else 1)
    means = np.zeros((3, 100))
    means[:, :2] = (1, 4), (4, 1), (5, 5)
    y = rng.permutation(np.repeat(np.arange(3), 1000 if split == "train" else 100))
    return means[y] + rng.standard_normal((len(y), 100)), y, ("A", "B", "C"), (), (), ""


def _mnist(split: str, root: Path | None):
    part = "train" if split == "train" else "t10k"
    images, note1 = _idx(f"{part}-images-idx3-ubyte", root, 3)
    y, note2 = _idx(f"{part}-labels-idx1-ubyte", root, 1)
    if len(images) != len(y):
        raise ValueError(f"mnist: got {len(images)} images and {len(y)} labels in the {split} files; wanted as many of both")
    _labels_in_range(y, f"{part}-labels-idx1-ubyte")
    return images[:, None], y, tuple(map(str, range(10))), (0.1307,), (0.3081,), note1 or note2


def _idx(name: str, root: Path | None, axes: int) -> tuple[np.ndarray, str]:
    """Read an IDX file of bytes: two zero bytes, type 8, number of axes, big-endian sizes, then the data."""
    path = _fetch(_MNIST_URL, f"{name}.gz") if root is None else _find(root, "mnist", (name, f"{name}.gz"))
    content = _unzipped(path)
    head = 4 + 4 * axes
    if len(content) < head or content[:4] != bytes((0, 0, 8, axes)):
        raise ValueError(
            f"{path}: got first bytes {content[:4].hex() or 'none'}; wanted {bytes((0, 0, 8, axes)).hex()}, an IDX file of "
            f"bytes with {axes} axes. {_AGAIN}"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">i4", axes, 4))
    want = head + int(np.prod(shape, dtype=np.int64))
    if len(content) != want:
        raise ValueError(f"{path}: got {len(content)} bytes; wanted {want} for shape {shape}: truncated or corrupt. {_AGAIN}")
    known = hashlib.md5(content, usedforsecurity=False).hexdigest() == _MD5[name]
    note = "" if known else f"{path.name} has the right format but not the published checksum; results are not on the original"
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape), note


def _cifar10(split: str, root: Path | None):
    """Read the binary version: for each image one label byte and 3,072 bytes, channel by channel."""
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] if split == "train" else ["test_batch.bin"]
    if root is None:
        whole = [_fetch(_CIFAR_URL, _CIFAR_ARCHIVE)]
    else:
        whole = [p for p in (root / _CIFAR_ARCHIVE, root / "cifar10" / _CIFAR_ARCHIVE) if p.is_file()]
    if root is None or whole:
        archive = whole[0]
        chunks, published = _from_archive(archive, names), _md5(archive) == _MD5[_CIFAR_ARCHIVE]
    else:  # the publisher gives a checksum of the archive only, so loose files can't be told from a copy
        paths = [_find(root, "cifar-10-batches-bin", (name,)) for name in names]
        chunks, published = [(path, path.read_bytes()) for path in paths], False
    for path, content in chunks:
        if len(content) == 0 or len(content) % 3073:
            raise ValueError(
                f"{path}: got {len(content)} bytes; wanted a multiple of 3,073 (label and 3 x 32 x 32 pixels): "
                f"truncated or corrupt. {_AGAIN}"
            )
        _labels_in_range(np.frombuffer(content, np.uint8)[::3073], path)
    records = np.frombuffer(b"".join(content for _, content in chunks), np.uint8).reshape(-1, 3073)
    note = (
        ""
        if published
        else (
            "read from files of the right format that are not the published archive (a JPEG copy, for instance); "
            "say which copy wherever a result made from it is shown"
        )
    )
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0], _CIFAR_CLASSES, mean, std, note


_AGAIN = "Remove the file and fetch it again, or point root= (or NTK_COURSE_DATA) at a whole copy."


def _labels_in_range(y: np.ndarray, path) -> None:
    if len(y) and y.max() > 9:
        raise ValueError(f"{path}: got label {int(y.max())}; wanted 0 to 9: corrupt. {_AGAIN}")


def _find(root: Path, folder: str, names: tuple[str, ...]) -> Path:
    """Find the first of several file names in root/folder or root."""
    places = [base / name for base in (root / folder, root) for name in names]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"root: got {root}, which has none of {', '.join(str(p) for p in places)}; wanted one of these files. "
        "Put it there, or unset root and NTK_COURSE_DATA to fetch it."
    )


def _fetch(url: str, name: str) -> Path:
    """Fetch a file once; pooch writes beside, checks the checksum, then renames."""
    try:
        return Path(pooch.retrieve(url + name, known_hash=f"md5:{_MD5[name]}", fname=name, path=pooch.os_cache("ntk_course")))
    except Exception as error:
        raise RuntimeError(
            f"{name}: could not be fetched from {url} ({error}). Nothing was kept. Try again, or put the file in a "
            "folder and name it with root= or NTK_COURSE_DATA."
        ) from error


def _unzipped(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: got a gzip stream that does not unpack ({error}); wanted a whole one. {_AGAIN}") from error


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    found = tar.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found.read()


def _from_archive(path: Path, names: list[str]) -> list[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes()), mode="r:gz") as tar:
            return [(f"{path}:{n}", _member(tar, f"cifar-10-batches-bin/{n}")) for n in names]
    except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
        raise ValueError(f"{path}: got an archive that does not unpack ({error}); wanted {', '.join(names)}. {_AGAIN}") from error


def _md5(path: Path) -> str:
    return pooch.file_hash(str(path), alg="md5")
