"""Everything on a GPU: the same numbers as on the CPU, in the precision that was asked for, in the memory there is.

``NTK_COURSE_TEST_DEVICE=far`` runs these tests on the stand-in of far_device.py, which ``make unit`` does; those about a GPU's
own ways skip.
"""

import os

import numpy as np
import pytest
import torch
from any_models import FLOATS, WORDS
from conftest import relative
from test_composed import FINITE, samples, the_limit
from torchrun import torchrun

import ntk_course as ntk
from ntk_course.gram.reducers import TopPartners

if os.environ.get("NTK_COURSE_TEST_DEVICE") == "far":
    import far_device  # noqa: F401
WHERE = torch.device(os.environ.get("NTK_COURSE_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(WHERE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]
only_cuda = pytest.mark.skipif(WHERE.type != "cuda", reason="about a GPU's own ways")
MODELS = {
    "mlp": (lambda: ntk.mlp((64, 32, 10)), (64,)),
    "lenet5": (ntk.lenet5, (1, 28, 28)),
    "small_cnn": (ntk.small_cnn, (1, 8, 8)),
    "resnet18": (lambda: ntk.resnet18(width=8), (3, 32, 32)),
}


def setting(name, dtype=torch.float32, n=24):
    build, shape = MODELS[name]
    model = build().to(dtype).eval()
    return model, torch.randn(n, *shape, dtype=dtype), torch.randint(0, 10, (n,))


def there(model, *tensors):
    """Copy a model and tensors to the device."""
    import copy

    return copy.deepcopy(model).to(WHERE), *(t.to(WHERE) for t in tensors)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 2e-5)], ids=str)
def test_kernels_are_those_of_the_cpu(name, dtype, most):
    model, x, y = setting(name, dtype, 9)
    far, x_far, y_far = there(model, x, y)
    reference = setting(name, dtype, 9)[0].double()
    reference.load_state_dict({k: v.double() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    for kernel in (ntk.entk, ntk.pntk, lambda m, x: ntk.lpntk(m, x, y.to(x.device), block_size=4)):
        found = kernel(far, x_far)
        assert found.device.type == WHERE.type and found.dtype == dtype
        assert relative(found.cpu().double(), kernel(reference, x.double())) < most


@pytest.mark.parametrize("name", FLOATS | WORDS)
def test_any_model_there(name):
    build, shape, _ = (FLOATS | WORDS)[name]
    x = torch.randint(0, shape, (5, 7)) if name in WORDS else torch.randn(5, *shape).double()
    model, far, x_far = build().double(), build().double().to(WHERE), x.to(WHERE)
    far.load_state_dict(model.state_dict())
    found = ntk.Gram(far, x_far, ntk.basis, block_size=3).dense()
    assert found.device.type == WHERE.type and relative(found.cpu(), ntk.entk(model, x)) < 1e-9
    assert ntk.Gram(far, x_far, ntk.basis).routes == ntk.Gram(model, x, ntk.basis).routes
    labels = torch.arange(5) % found.shape[2]
    gram, one = (ntk.Gram(m, a, ntk.labelled(labels.to(a.device))) for m, a in ((far, x_far), (model, x)))
    assert relative(gram.dense().cpu(), one.dense()) < 1e-9
    v = torch.randn(5).double()
    assert relative((gram @ v.to(WHERE)).cpu(), one @ v) < 1e-9


@only_cuda
@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet18"])
@pytest.mark.parametrize(("precision", "least", "most"), [("tf32", 1e-6, 3e-3), ("bf16", 1e-5, 2e-2)])
def test_lower_precision_has_its_error_and_not_more(name, precision, least, most):
    model, x, y = setting(name, n=64)
    far, x_far, y_far = there(model, x, y)
    exact = ntk.lpntk(model.double(), x.double(), y)
    torch.backends.cudnn.allow_tf32 = True  # what the process allows does not matter
    assert relative(ntk.lpntk(far, x_far, y_far).cpu(), exact.float()) < 2e-5
    assert least < relative(ntk.lpntk(far, x_far, y_far, precision=precision).cpu(), exact.float()) < most


@only_cuda
def test_real_lack_of_memory_halves_the_work():
    model, x, y = setting("resnet18", n=512)
    far, x_far, y_far = there(model, x, y)
    wanted = ntk.lpntk(far, x_far, y_far, block_size=32)
    torch.cuda.empty_cache()
    used, total = torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((used + 2**29) / total)
    try:
        found = ntk.lpntk(far, x_far, y_far, block_size=512, memory=2**40)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert relative(found, wanted) < 1e-5


@only_cuda
def test_memory_stays_within_its_bound_there():
    from ntk_course.replication.experiments._common import peak_memory

    far, x, y = there(*setting("lenet5", n=20000))
    c = ntk.signs(y, 10)
    for mebibytes in (256, 1024):
        with peak_memory(WHERE) as peak:
            for _ in ntk.Gram(far, x, c, memory=mebibytes * 2**20).blocks():
                pass
        assert peak() < mebibytes


def test_streams_stores_and_operators(tmp_path):
    model, x, y = setting("lenet5", n=70)
    c = ntk.labelled(y)
    far, x_far, y_far = there(model, x, y)
    c_far = ntk.labelled(y_far)
    matrix = ntk.tangent_kernel(model, x, c)
    top = ntk.Gram(far, x_far, c_far, block_size=16).reduce(TopPartners(3), progress=False, checkpoint=tmp_path / "kept")
    assert relative(top.value.cpu(), matrix.clone().fill_diagonal_(-torch.inf).topk(3).values) < 1e-4
    counts = ntk.Gram(far, x_far, c_far).reduce(ntk.gram.Histogram((0.0, 1.0)), progress=False)
    assert counts.sum() == 70 * 70
    pytest.importorskip("zarr")
    array = ntk.Gram(far, x_far, c_far, block_size=32).save(tmp_path / "g.zarr", progress=False)
    assert np.abs(array[:] - matrix.numpy()).max() < 1e-4 * matrix.abs().max()
    v = torch.randn(70, device=WHERE)
    assert relative((ntk.Gram(far, x_far, c_far) @ v).cpu(), matrix @ v.cpu()) < 1e-4
    for features in (ntk.Gram(far, x_far, c_far).nystrom(70), ntk.Gram(far, x_far, c_far).projected(4096)):
        assert features.device.type == WHERE.type
        assert relative((features @ features.T).cpu(), matrix) < 0.3
    assert list(ntk.Gram(far, x_far, c_far).per_layer().values())[-1].dense().device.type == WHERE.type
    rows = ntk.Gram(far, x_far, c_far)
    assert ntk.farthest_point_clustering(rows, 7).sizes.sum() == 70


def test_training_and_ensembles():
    model, x, y = setting("lenet5", torch.float64, n=64)
    far, x_far, y_far = there(model, x, y)
    subsets = torch.stack([torch.randperm(64)[:40] for _ in range(3)])
    near = ntk.training.train_ensemble(model, x, y, subsets, epochs=2, lr=0.05, momentum=0.9, progress=False)
    away = ntk.training.train_ensemble(far, x_far, y_far, subsets, epochs=2, lr=0.05, momentum=0.9, progress=False)
    for name, value in near.state.items():
        assert relative(away.state[name].cpu(), value) < 1e-8
    settings = {"epochs": 2, "lr": 0.05, "progress": False}
    assert relative(ntk.train(far, x_far, y_far, **settings).loss, ntk.train(model, x, y, **settings).loss) < 1e-8
    assert ntk.analysis.el2n(far, x_far, y_far).device.type == WHERE.type
    assert ntk.analysis.grand(far, x_far, y_far).shape == (64,)
    run = ntk.analysis.forgetting_run(far, x_far, y_far, iterations=3, lr=0.05, batch_size=16, progress=False)
    assert run.forgotten.shape[0] == 3


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_path_kernels_are_exact_there_too(activation):
    x, y = torch.randn(12, 6, dtype=torch.float64), torch.randint(0, 3, (12,))
    model = ntk.mlp((6, 8, 3), activation).double()
    far, x_far, y_far = there(model, x, y)
    path = ntk.train_path(far, x_far, y_far, steps=4, lr=0.5, batch_size=6, momentum=0.9, progress=False)
    rule = "gauss" if activation == "tanh" else "piecewise"
    kernel = ntk.epk(path, x_far[:5] + 0.1, rule, 8)
    assert (kernel.predict() - path.log_probs(x_far[:5] + 0.1)).abs().max() < 1e-9
    assert ntk.dpk(path, x_far).gram.device.type == WHERE.type
    whole = ntk.train_path(far, x_far, y_far, steps=3, lr=0.5, progress=False)
    features = ntk.epk(whole, x_far[:5] + 0.1, rule, 8)
    assert (features.predict() - whole.log_probs(x_far[:5] + 0.1)).abs().max() < 1e-9
    mask = torch.arange(12, device=WHERE) < 9
    assert ntk.kernels.paths.symmetric_gram(whole, x_far, mask).isfinite().all()


def test_infinite_width_and_label_aware():
    x, y = torch.randn(14, 3, 8, 8, dtype=torch.float64), torch.tensor([1.0, -1.0] * 7, dtype=torch.float64)
    flat = x.flatten(1)
    for near, away in (
        (ntk.infinite.mlp(flat, depth=3)[1], ntk.infinite.mlp(flat.to(WHERE), depth=3)[1]),
        (ntk.infinite.mlp(flat, depth=2, activation="gelu")[1], ntk.infinite.mlp(flat.to(WHERE), depth=2, activation="gelu")[1]),
        (ntk.cntk(x, depth=2)[1], ntk.cntk(x.to(WHERE), depth=2)[1]),
        (ntk.cntk(x[:4], depth=2, pooling="average")[1], ntk.cntk(x[:4].to(WHERE), depth=2, pooling="average")[1]),
    ):
        assert away.device.type == WHERE.type
        assert relative(away.cpu(), near) < 1e-10
    gram = ntk.infinite.mlp(flat.to(WHERE), depth=1)[1]
    fit = ntk.analysis.kernel_ridge(gram, y.to(WHERE), 1e-3)
    assert fit.coefficients.device.type == WHERE.type
    assert ntk.analysis.leave_one_out(gram, y.to(WHERE), 1e-3).device.type == WHERE.type


@pytest.mark.parametrize("kind", FINITE)
def test_limits_of_any_architecture(kind):
    given, model = samples(kind), kind(32).double().eval()
    near = the_limit(model, given).ntk
    away = the_limit(model.to(WHERE), tuple(t.to(WHERE) for t in given)).ntk
    assert away.device.type == WHERE.type
    assert relative(away.cpu(), near) < 1e-10
    assert ntk.infinite.random_features(given[0].double().to(WHERE), depth=2, count=20).device.type == WHERE.type


@only_cuda
def test_processes_take_a_gpu_each(tmp_path):
    torchrun(
        """
import torch, ntk_course as ntk
from ntk_course import processes
with processes.joined() as here:
    assert torch.cuda.current_device() == here.rank
    model, x = ntk.lenet5().cuda(), torch.randn(40, 1, 28, 28).cuda()
    ntk.Gram(model, x, ntk.ones).reduce(ntk.TopPartners(3), progress=False)
""",
        min(2, torch.cuda.device_count()),
        tmp_path,
    )
