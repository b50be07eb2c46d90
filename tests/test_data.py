"""Data sets: the offline ones, the file formats, and every way a file can be wrong."""

import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import warnings

import numpy as np
import pytest
import torch

import ntk_course as ntk
from ntk_course.data import datasets as module


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A tiny MNIST in the publisher's format, train zipped and test not."""
    rng = np.random.default_rng(0)
    (tmp_path / "mnist").mkdir()
    for part, n, zipped in (("train", 12, True), ("t10k", 5, False)):
        images, labels = rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx(array)
            path = tmp_path / "mnist" / (name + ".gz" * zipped)
            path.write_bytes(gzip.compress(content) if zipped else content)
    return tmp_path


@pytest.fixture
def cifar(tmp_path):
    rng = np.random.default_rng(1)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]:
        records = rng.integers(0, 256, (3, 3073)).astype(np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    return tmp_path


def quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ntk.load(*args, **kwargs)


def test_digits():
    from sklearn.datasets import load_digits

    train, test = ntk.load("digits"), ntk.load("digits", "test")
    assert train.x.shape == (1437, 1, 8, 8)
    assert test.x.shape == (360, 1, 8, 8)
    assert train.x.dtype == torch.float32
    assert abs(train.x.mean()) < 0.01
    assert abs(train.x.std() - 1) < 0.01
    both = torch.cat([train.images(), test.images()]).flatten(1).mul(16).round()
    wanted = torch.tensor(load_digits().data, dtype=torch.float32)
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, wanted.tolist()))
    assert torch.bincount(test.y).min() >= 34
    assert train.checksum != test.checksum


def test_gaussians():
    train, test = ntk.load("gaussians"), ntk.load("gaussians", "test")
    assert train.x.shape == (3000, 100)
    assert len(test) == 300
    assert torch.bincount(train.y).tolist() == [1000] * 3
    means = torch.stack([train.x[train.y == k].mean(0) for k in range(3)])
    assert torch.allclose(means[:, :2], torch.tensor([[1.0, 4], [4, 1], [5, 5]]), atol=0.15)
    assert means[:, 2:].abs().max() < 0.15
    assert torch.equal(train.x, ntk.load("gaussians").x)


def test_limit_keeps_the_beginning():
    assert torch.equal(ntk.load("digits", limit=50).x, ntk.load("digits").x[:50])


def test_mnist_reads_what_was_written(mnist):
    with pytest.warns(UserWarning, match="train-images.*not the published checksum"):
        data = ntk.load("mnist", root=mnist)
    raw = np.frombuffer(gzip.decompress((mnist / "mnist/train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    assert np.array_equal(data.images().mul(255).round().numpy().ravel(), raw)
    assert torch.allclose(data.x, (data.images() - 0.1307) / 0.3081, atol=1e-5)
    assert "checksum" in data.note
    assert len(quietly("mnist", "test", root=mnist / "mnist")) == 5


def test_environment_variable(mnist, monkeypatch):
    monkeypatch.setenv("NTK_COURSE_DATA", str(mnist))
    assert len(quietly("mnist", limit=7)) == 7


def test_published_checksum_gives_no_note(mnist, monkeypatch):
    for part in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        content = gzip.decompress((mnist / f"mnist/{part}.gz").read_bytes())
        monkeypatch.setitem(module._MD5, part, hashlib.md5(content).hexdigest())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ntk.load("mnist", root=mnist).note == ""


def test_cifar_reads_what_was_written(cifar):
    with pytest.warns(UserWarning, match="cifar10: .*JPEG copy"):
        data = ntk.load("cifar10", root=cifar)
    assert data.x.shape == (15, 3, 32, 32)
    record = np.frombuffer((cifar / "cifar-10-batches-bin/data_batch_2.bin").read_bytes(), np.uint8)[:3073]
    assert data.y[3] == record[0]
    assert np.array_equal(data.images()[3].mul(255).round().numpy().ravel(), record[1:])
    assert len(quietly("cifar10", "test", root=cifar / "cifar-10-batches-bin")) == 3


def pack(cifar):
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w:gz") as tar:
        tar.add(cifar / "cifar-10-batches-bin", "cifar-10-batches-bin")
    return blob.getvalue()


def test_cifar_from_the_archive(cifar, tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    archive = tmp_path / "root/cifar-10-binary.tar.gz"
    archive.write_bytes(pack(cifar))
    wanted = quietly("cifar10", root=cifar).x
    with pytest.warns(UserWarning, match="not the published archive"):
        assert torch.equal(ntk.load("cifar10", root=archive.parent).x, wanted)
    monkeypatch.setitem(module._MD5, archive.name, hashlib.md5(archive.read_bytes()).hexdigest())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ntk.load("cifar10", root=archive.parent).note == ""


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("mnist/train-images-idx3-ubyte.gz", lambda b: b[:-20], ["does not unpack"]),
        ("mnist/train-images-idx3-ubyte.gz", lambda b: b"not zipped", ["does not unpack"]),
        (
            "mnist/train-images-idx3-ubyte.gz",
            lambda b: gzip.compress(gzip.decompress(b)[:-1]),
            ["9423 bytes", "9424", "truncated"],
        ),
        ("mnist/train-images-idx3-ubyte.gz", lambda b: gzip.compress(b"\0\0\x0b\3" + bytes(40)), ["00000b03", "00000803"]),
        ("mnist/train-images-idx3-ubyte.gz", lambda b: gzip.compress(b""), ["none", "00000803"]),
        ("mnist/train-labels-idx1-ubyte.gz", lambda b: gzip.compress(idx(np.zeros(3))), ["12 images and 3 labels"]),
        ("mnist/train-labels-idx1-ubyte.gz", lambda b: gzip.compress(idx(np.full(12, 11))), ["label 11", "0 to 9"]),
    ],
)
def test_damaged_mnist_is_named(mnist, name, damage, words):
    path = mnist / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="wanted") as caught:
        quietly("mnist", root=mnist)
    words = [*words, path.name.removesuffix(".gz")] if "images and" not in words[0] else words
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_damaged_cifar_is_named(cifar):
    path = cifar / "cifar-10-batches-bin/data_batch_3.bin"
    whole = path.read_bytes()
    for broken, words in (
        (whole[:-1], "3,073.*truncated"),
        (b"", "got 0 bytes"),
        (b"\xff" + whole[1:], "got label 255; wanted 0 to 9"),
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=f"data_batch_3.bin: .*{words}"):
            quietly("cifar10", root=cifar)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"root: .*data_batch_3.bin.*wanted one of these files\. Put it there"):
        quietly("cifar10", root=cifar)
    (cifar / "cifar-10-binary.tar.gz").write_bytes(pack(cifar)[:-50])
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz: got an archive that does not unpack"):
        quietly("cifar10", root=cifar)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mnits",), "name: got 'mnits'; wanted one of .*'mnist'"),
        (("digits", "valid"), "split: got 'valid'; wanted 'train' or 'test'"),
        (("digits", "train", 0), "limit: got 0; wanted"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        ntk.load(*arguments)


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def remote(mnist, tmp_path, monkeypatch):
    """The publisher, played by a server on this machine, with an empty cache beside it."""
    handler = functools.partial(Server, directory=str(mnist / "mnist"))
    cache = tmp_path / "cache"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(module, "_MNIST_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(module.pooch, "os_cache", lambda name: cache)
        for path in (mnist / "mnist").glob("train*"):
            monkeypatch.setitem(module._MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
        yield mnist, cache
        server.shutdown()


def test_fetched_once_and_checked(remote):
    mnist, cache = remote
    assert len(quietly("mnist")) == 12
    for path in (mnist / "mnist").iterdir():
        path.unlink()
    assert len(quietly("mnist")) == 12  # from the cache now
    assert sorted(p.name for p in cache.iterdir()) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def test_a_wrong_download_leaves_nothing(remote, monkeypatch):
    _, cache = remote
    monkeypatch.setitem(module._MD5, "train-images-idx3-ubyte.gz", "0" * 32)
    with pytest.raises(RuntimeError, match=r"train-images.*could not be fetched.*Nothing was kept.*NTK_COURSE_DATA"):
        ntk.load("mnist")
    assert not cache.exists() or list(cache.iterdir()) == []


def test_an_unreachable_publisher_is_named(remote, monkeypatch):
    monkeypatch.setattr(module, "_MNIST_URL", "http://127.0.0.1:9/")
    with pytest.raises(RuntimeError, match="could not be fetched from http://127.0.0.1:9/"):
        ntk.load("mnist")


def test_no_pickle_anywhere():
    from pathlib import Path

    for path in Path(module.__file__).parent.rglob("*.py"):
        assert "pickle" not in path.read_text(), path
