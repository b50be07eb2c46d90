"""Networks have the sizes they claim; training is repeatable and does what torch.optim would."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import ntk_course as ntk
from ntk_course.models.functional import call_with


@pytest.mark.parametrize(
    ("build", "shape", "count"),
    [
        (ntk.lenet5, (1, 28, 28), 61_706),
        (ntk.resnet18, (3, 32, 32), 11_173_962),
        (ntk.models.authors_cnn, (1, 28, 28), 1_199_882),
        (lambda: ntk.resnet18(batch_norm=False), (3, 32, 32), 11_164_362),
        (lambda: ntk.mlp((64, 32, 10)), (1, 8, 8), 64 * 32 + 32 + 330),
        (ntk.small_cnn, (1, 8, 8), 80 + 1168 + 650),
        (lambda: ntk.small_cnn(3, 32, (4, 8, 16), 5, "gelu"), (3, 32, 32), 112 + 296 + 1168 + 1285),
    ],
)
def test_sizes(build, shape, count):
    model = build()
    assert sum(p.numel() for p in model.parameters()) == count
    assert model(torch.randn(2, *shape)).dim() == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ntk.mlp((5,)), "sizes: got .5,.; wanted at least"),
        (lambda: ntk.mlp((5, 0)), "sizes: got 0; wanted"),
        (lambda: ntk.mlp((5, 3), "rleu"), "activation: got 'rleu'; wanted one of .*relu"),
        (lambda: ntk.small_cnn(1, 9), "image_size: got 9 .* multiple of 4"),
        (lambda: ntk.resnet18(width=0), "width: got 0; wanted"),
        (lambda: ntk.models.authors_cnn(image_size=7), "image_size: got 7; wanted an even number of at least 6"),
        (lambda: ntk.models.zero_output_layer(nn.Conv2d(1, 1, 1)), "model: got Conv2d .* wanted a linear"),
    ],
)
def test_bad_models_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_calling_with_other_weights():
    """Tied weights, a module under two names, and buffers; a second call, for the first could have spoilt the model."""
    shared, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared, tied, nn.Linear(4, 4), nn.BatchNorm1d(4)).double().eval()
    model[4].weight = tied.weight
    own, before = dict(model.named_parameters()), {n: v.clone() for n, v in model.state_dict().items()}
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in [*other.parameters(), *other.buffers()]:
            if value.is_floating_point():
                value.add_(0.3)
    weights = {n: v for n, v in [*other.named_parameters(), *other.named_buffers()]}
    x = torch.randn(5, 4, dtype=torch.float64)
    for _ in range(2):
        torch.testing.assert_close(call_with(model, weights, x), other(x))
        assert all(p is own[n] for n, p in model.named_parameters())
        assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    # by another of its names, and only that one
    torch.testing.assert_close(
        call_with(model, {"4.weight": own["3.weight"] + 1}, x), call_with(model, {"3.weight": own["3.weight"] + 1}, x)
    )
    assert not torch.allclose(call_with(model, {"4.weight": own["3.weight"] + 1}, x), model(x))


def test_zero_output_layer():
    model = ntk.models.zero_output_layer(ntk.lenet5())
    assert model(torch.randn(3, 1, 28, 28)).abs().max() == 0
    assert model[0].weight.abs().max() > 0


@pytest.fixture
def points():
    data = ntk.load("digits", limit=200)
    return data.x, data.y


def fit(points, **changes):
    torch.manual_seed(1)
    model = nn.Sequential(ntk.mlp((64, 16, 10)), nn.Dropout(0.1))
    history = ntk.train(model, *points, **({"epochs": 3, "lr": 0.1, "progress": False} | changes))
    return model, history


def test_deterministic_per_seed(points):
    state = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    (a, one), (b, two), (c, _) = fit(points), fit(points), fit(points, seed=1)
    same = [torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    assert all(same) and torch.equal(one.loss, two.loss)
    assert not torch.equal(next(a.parameters()), next(c.parameters()))


def test_the_seed_orders_the_batches(points):
    weights = []
    for seed in (0, 1):
        torch.manual_seed(1)
        model = ntk.mlp((64, 10))
        ntk.train(model, *points, epochs=1, lr=0.1, batch_size=32, seed=seed, progress=False)
        weights.append(model[1].weight.detach().clone())
    assert not torch.equal(*weights)


def test_global_random_state_is_left_alone(points):
    model = ntk.mlp((64, 10))
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    ntk.train(model, *points, epochs=1, lr=0.1, progress=False)
    assert torch.equal(torch.rand(3), wanted)
    assert not model.training


def test_equals_a_hand_written_loop(points):
    """Heavy ball with weight decay and a schedule, full batch: the update rule written out."""
    x, y = points[0].double(), points[1]
    torch.manual_seed(3)
    model = ntk.mlp((64, 10)).double()
    w = [p.detach().clone().requires_grad_() for p in model.parameters()]
    v = [torch.zeros_like(p) for p in w]
    ntk.train(
        model,
        x,
        y,
        epochs=4,
        lr=0.2,
        batch_size=None,
        momentum=0.9,
        weight_decay=1e-2,
        schedule=ntk.training.step_decay(0.5, 2),
        progress=False,
    )
    for epoch in range(4):
        z = x.flatten(1) @ w[0].T + w[1]
        loss = (torch.logsumexp(z, 1) - z[torch.arange(len(y)), y]).mean()
        for i, g in enumerate(torch.autograd.grad(loss, w)):
            v[i] = 0.9 * v[i] + g + 1e-2 * w[i].detach()
            w[i] = (w[i].detach() - 0.2 * (0.5 if epoch >= 2 else 1.0) * v[i]).requires_grad_()
    for p, q in zip(model.parameters(), w, strict=True):
        assert torch.allclose(p, q, rtol=1e-10, atol=1e-12)


def test_history(points):
    _, history = fit(points, per_sample=True)
    assert history.losses.shape == history.predictions.shape == (3, 200)
    assert torch.allclose(history.losses.mean(1), history.loss)
    assert history.accuracy[-1] > history.accuracy[0] and history.loss[-1] < history.loss[0]
    assert fit(points)[1].losses is None


def test_last_row_of_history_is_the_final_model(points):
    model, history = fit(points, per_sample=True)
    z = model(points[0])
    assert torch.allclose(history.losses[-1], nn.functional.cross_entropy(z, points[1], reduction="none"), atol=1e-6)
    assert torch.equal(history.predictions[-1], z.argmax(1))


def test_scoring_the_last_epoch_only_changes_nothing_else(points):
    (model, whole), (same, last) = fit(points, per_sample=True), fit(points, per_sample=True, each_epoch=False)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), same.parameters(), strict=True))
    for field in ("loss", "accuracy", "losses", "predictions"):
        assert torch.equal(getattr(last, field), getattr(whole, field)[-1:])


def test_schedules():
    assert [ntk.training.cosine(4)(e) for e in (0, 2, 4)] == pytest.approx([1, 0.5, 0])
    assert [ntk.training.step_decay(0.7, 2)(e) for e in (0, 1, 2, 5)] == pytest.approx([1, 1, 0.7, 0.49])


def test_bad_training_input_is_named(points):
    x, y = points
    with pytest.raises(ValueError, match="y: got labels from .* wanted 0 to 4"):
        ntk.train(ntk.mlp((64, 5)), x, y, epochs=1, lr=0.1)
    with pytest.raises(ArithmeticError, match="lr: the loss became .* with lr=1e"):
        ntk.train(ntk.mlp((64, 16, 10)), x, y, epochs=5, lr=1e20, progress=False)
    with pytest.raises(ValueError, match="epochs: got 0; wanted"):
        ntk.train(ntk.mlp((64, 10)), x, y, epochs=0, lr=0.1)


def test_validation_and_the_best_epoch():
    data, other = ntk.load("digits", limit=300), ntk.load("digits", "test")
    torch.manual_seed(0)
    model = ntk.small_cnn(channels=(4, 4))
    settings = {"lr": 0.5, "batch_size": 32, "progress": False}
    history = ntk.train(model, data.x, data.y, epochs=6, validation=(other.x, other.y), keep_best=True, **settings)
    assert history.validation.shape == (6,)
    best = int(history.validation.argmax())
    assert best < 5, "the setting must have its best epoch before the last, or the test shows nothing"
    for epochs, wanted in ((best + 1, True), (6, False)):
        torch.manual_seed(0)
        again = ntk.small_cnn(channels=(4, 4))
        ntk.train(again, data.x, data.y, epochs=epochs, **settings)
        same = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        assert same == wanted
    accuracy = (ntk.training.evaluate(model, other.x, other.y)[1] == other.y).float().mean()
    assert accuracy == history.validation[best]
    assert ntk.train(model, data.x, data.y, epochs=1, **settings).validation is None
    with pytest.raises(ValueError, match="validation: got None with keep_best"):
        ntk.train(model, data.x, data.y, epochs=1, keep_best=True, **settings)


def test_the_network_for_images():
    for shape, kind in (((1, 28, 28), ntk.lenet5()), ((3, 32, 32), ntk.resnet18()), ((1, 8, 8), ntk.small_cnn())):
        sizes = [p.shape for p in ntk.models.network_for(torch.zeros(1, *shape)).parameters()]
        assert sizes == [p.shape for p in kind.parameters()]
    with pytest.raises(ValueError, match="x: got shape"):
        ntk.models.network_for(torch.zeros(2, 64))


def test_crops_and_mirror_images_against_a_loop():
    """Every output image is one of the shifts of the padded image, plain or mirrored, and all kinds occur."""
    x = torch.randn(200, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    out = ntk.training.crop_and_flip(x, 2)
    assert out.shape == x.shape
    padded = torch.zeros(200, 2, 9, 9)
    padded[:, :, 2:7, 2:7] = x
    seen = set()
    for n in range(200):
        kinds = [
            (down, right, mirrored)
            for down in range(5)
            for right in range(5)
            for mirrored in (False, True)
            if torch.equal(
                out[n],
                padded[n, :, down : down + 5, right : right + 5].flip(2)
                if mirrored
                else padded[n, :, down : down + 5, right : right + 5],
            )
        ]
        assert len(kinds) == 1
        seen.add(kinds[0])
    assert len(seen) == pytest.approx(50 * (1 - 0.98**200), abs=5)
    assert 60 < sum(mirrored for *_, mirrored in seen) * 4 < 140
    for wrong, said in (((x[0],), "x: got shape"), ((x, 0), "padding: got 0")):
        with pytest.raises(ValueError, match=said):
            ntk.training.crop_and_flip(*wrong)


def test_augmentation_follows_the_seed_and_is_not_measured():
    data = ntk.load("digits", limit=100)
    seen, histories, weights = [], [], []

    def augment(batch):
        seen.append(batch)
        return ntk.training.crop_and_flip(batch, 1)

    for other in (1, 2):
        torch.manual_seed(0)
        model = ntk.small_cnn()
        torch.manual_seed(other)
        how = {"epochs": 2, "lr": 0.1, "batch_size": 50, "seed": 3, "progress": False}
        histories.append(ntk.train(model, data.x, data.y, augment=augment, **how))
        weights.append(model[0].weight.detach().clone())
    assert torch.equal(*weights)
    assert all(any(torch.equal(image, x) for x in data.x) for image in seen[0])  # it is given the images as they are
    losses = ntk.training.evaluate(model, data.x, data.y)[0]
    assert histories[1].loss[-1].item() == pytest.approx(losses.mean().item(), rel=1e-6)
    torch.manual_seed(0)
    plain = ntk.small_cnn()
    ntk.train(plain, data.x, data.y, **how)
    assert not torch.equal(plain[0].weight, weights[0])


@pytest.mark.parametrize("around", [False, True], ids=["", "within another autocast"])
def test_half_precision_passes_are_those_of_the_weights_of_the_step(around):
    """The history is that of the weights trained, and these end near those trained in float32."""
    data = ntk.load("digits", limit=200)
    models = []
    for dtype in (None, torch.bfloat16):
        torch.manual_seed(0)
        models.append(ntk.small_cnn())
        start = models[-1].state_dict()["0.weight"].clone()
        how = {"epochs": 20, "lr": 0.1, "momentum": 0.9, "batch_size": 50, "progress": False, "autocast": dtype}
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            history = ntk.train(models[-1], data.x, data.y, validation=(data.x, data.y), **how)
        assert history.loss.dtype == torch.float32
    full, half = (model[0].weight for model in models)
    assert half.dtype == torch.float32
    moved = (full - start).norm()
    assert 0 < (full - half).norm() < 0.3 * moved
    assert history.loss[-1] == pytest.approx(ntk.training.evaluate(models[1], data.x, data.y)[0].mean().item(), rel=0.1)


# ----- one recipe for all that trains


def test_a_recipe_and_its_fields_by_keyword_are_the_same():
    data = ntk.load("digits", limit=60)
    recipe = ntk.training.Recipe(
        lr=0.1, epochs=3, momentum=0.9, weight_decay=1e-3, batch_size=16, schedule=ntk.training.cosine(3)
    )
    settings = {
        "lr": 0.1,
        "epochs": 3,
        "momentum": 0.9,
        "weight_decay": 1e-3,
        "batch_size": 16,
        "schedule": ntk.training.cosine(3),
    }
    ends = []
    for how, more in (((recipe,), {}), ((), settings), ((recipe,), {"epochs": 3}), ((replace(recipe, lr=9.0),), {"lr": 0.1})):
        torch.manual_seed(0)
        model = ntk.mlp((64, 8, 10))
        ntk.train(model, data.x, data.y, *how, progress=False, **more)
        ends.append(model[1].weight.detach())
    assert all(torch.equal(end, ends[0]) for end in ends)
    torch.manual_seed(0)
    subsets = torch.arange(60)[None]
    member = ntk.training.train_ensemble(ntk.mlp((64, 8, 10)), data.x, data.y, subsets, recipe, progress=False)
    torch.testing.assert_close(member.state["1.weight"][0], ends[0], rtol=1e-4, atol=1e-6)


def test_what_a_function_has_no_use_for_is_refused():
    data, model = ntk.load("digits", limit=40), ntk.mlp((64, 8, 10))
    x, y, recipe = data.x, data.y, ntk.training.Recipe(lr=0.1, epochs=2)
    with pytest.raises(TypeError, match=r"train: got rate=0.1; wanted fields of a Recipe out of \['augment'"):
        ntk.train(model, x, y, epochs=1, lr=0.1, rate=0.1)
    with pytest.raises(TypeError, match="train: got no lr; wanted a Recipe, or lr="):
        ntk.train(model, x, y, epochs=1)
    with pytest.raises(TypeError, match="train: got no epochs"):
        ntk.train(model, x, y, lr=0.1)
    with pytest.raises(TypeError, match="recipe: got dict; wanted a Recipe"):
        ntk.train(model, x, y, {"lr": 0.1})
    with pytest.raises(TypeError, match="train_path: got weight_decay=0.1"):
        ntk.train_path(model, x, y, recipe, steps=2, weight_decay=0.1)
    with pytest.raises(ValueError, match="recipe: got weight_decay=0.1, for which train_path has no use"):
        ntk.train_path(model, x, y, replace(recipe, weight_decay=0.1), steps=2)
    with pytest.raises(ValueError, match="recipe: got optimizer='adam', for which forgetting_run has no use"):
        ntk.analysis.forgetting_run(model, x, y, replace(recipe, optimizer="adam"), iterations=1)
    for wrong, words in (
        ({"optimizer": "lbfgs"}, "optimizer: got 'lbfgs'"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            ntk.training.Recipe(lr=0.1, **wrong)


def test_adam_trains_one_network_too():
    data = ntk.load("digits", limit=200)
    torch.manual_seed(0)
    model = ntk.mlp((64, 32, 10))
    history = ntk.train(model, data.x, data.y, lr=1e-2, epochs=8, batch_size=32, optimizer="adam", progress=False)
    assert history.accuracy[-1] > 0.9
