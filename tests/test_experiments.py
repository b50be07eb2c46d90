"""Every experiment runs, is killed and goes on, and its own pieces agree with independent routes."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ntk_course as ntk
from ntk_course.replication import cli, results
from ntk_course.replication.experiment import Experiment
from ntk_course.replication.experiments import (
    PRESETS,
    _common,
    control_difficulty,
    find,
    forgetting_prediction,
    forgetting_relations,
    label_free,
    label_products,
    label_systems,
    names,
    pruned_training,
    seconds_a_seed,
)
from ntk_course.replication.experiments.theorem_1 import bound, largest_hidden_kernel_entry, lecun
from ntk_course.replication.protocols import CODE, CODE_NARROW, TEXT

ROOT = Path(__file__).resolve().parent.parent
_SMOKE = {}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smoke(name):
    """Run an experiment's smoke preset, once for all tests."""
    if name not in _SMOKE:
        _SMOKE[name] = find(name).of("smoke")
    return _SMOKE[name]


@pytest.mark.parametrize("name", names())
def test_smoke(name, tmp_path):
    result = smoke(name)
    assert result.rows
    assert all("seed" in row for row in result.rows)
    results.save(result, tmp_path)
    stored = json.loads((tmp_path / name / "smoke.json").read_text())
    assert stored["rows"] == json.loads(json.dumps(result.rows))
    assert {"config", "data", "commit", "torch", "device", "seconds", "ntk_course"} <= set(stored["provenance"])


@pytest.mark.parametrize("name", names())
def test_every_experiment_says_what_it_redoes(name):
    module = find(name)
    assert module.Config.__doc__.count("Attributes:") == 1
    assert all(f"        {field}: " in module.Config.__doc__ for field in module.Config.__dataclass_fields__)
    assert {"smoke", "class", "paper"} <= set(module.presets) <= set(PRESETS)
    for settings in module.presets.values():
        assert type(settings) is module.Config and settings.seeds
    assert seconds_a_seed(name, "smoke") is None


def test_rows_keep_to_their_schema():
    it = find("redundancy")
    row = {"seed": 0, "part": "accuracy", "set": "full", "samples": 3, "classes": 2, "accuracy": 0.5}
    assert it.checked(results.Result("redundancy", "smoke", [row], {})).rows == [row]
    for wrong in (row | {"acuracy": 0.5}, row | {"part": "acuracy"}, {"seed": 0, "accuracy": 0.5}):
        with pytest.raises(ValueError, match="rows of redundancy: got .*wanted"):
            it.checked(results.Result("redundancy", "smoke", [wrong], {}))


def test_rows_are_read_as_a_table():
    rows = [{"seed": s, "part": p, p: s + len(p), "kernel": "k"} for s in (0, 1) for p in ("one", "three")]
    run = results.Result("x", "smoke", rows, {})
    table = run.frame(part="three")
    assert list(table) == ["seed", "part", "three", "kernel"]
    assert table.three.tolist() == [5, 6]
    assert len(run.frame(part="one", seed=1)) == 1 and len(run.frame()) == 4
    assert run.frame().one.dtype == float and run.frame(part="one").one.dtype == int  # empty in no row of these
    with pytest.raises(ValueError, match="parts: got no such column in x; wanted one of .*'kernel'"):
        run.frame(parts="one")
    with pytest.raises(ValueError, match="part: got 'two' in x; wanted one of .'one', 'three'."):
        run.frame(kernel="k", part="two")


NEED_A_GPU = {
    "control_difficulty",
    "forgetting_prediction",
    "label_products_cntk",
    "learning_difficulty",
    "pruned_training",
    "redundancy",
    "training_rates",
}


def test_the_experiments_for_a_gpu():
    """Those with a ResNet-18 or a large CNTK have a preset for it, and a seed of each takes less than half an hour in all."""
    ready = {name for name in names() if "cifar10" in find(name).presets}
    assert ready == NEED_A_GPU
    assert all(find(name).settings("cifar10").data == "cifar10" and seconds_a_seed(name, "cifar10") > 0 for name in ready)
    assert sum(seconds_a_seed(name, "cifar10") for name in ready) < 27 * 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="would run for minutes on a GPU")
def test_the_script_for_a_gpu(tmp_path):
    """Without a GPU it says so and fails, keeps nothing half-written, and packs what results there are."""

    def script(*words):
        return subprocess.run(["bash", str(ROOT / "tools/on_gpu.sh"), *words], capture_output=True, text=True)

    assert "wanted experiments, tests or speed" in script(str(tmp_path), "all").stderr
    found = script(str(tmp_path))
    assert found.returncode == 2
    assert "--where: got 'device'" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["results.tgz"]


def test_a_run_at_chance_is_counted_and_not_averaged():
    rows = [{"lr": 0.1, "accuracy": a, "best": a} for a in (0.98, 0.96, 0.11)]
    found = find("training_rates").quoted(results.Result("training_rates", "smoke", rows, {"config": {"data": "mnist"}}))
    assert [f.ours for f in found] == pytest.approx([1, 97, 97])
    assert [f.count for f in found] == [1, 2, 2]


def test_the_resnet_trains_by_its_recipe():
    """One epoch of the recipe on a few images: the same as train with its options, and other than the plain recipe."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 3, 32, 32, generator=g), torch.randint(0, 10, (16,), generator=g)
    model, history = _common.fit(x, y, _common.ResNetRecipe(epochs=1, batch_size=8), 0)
    assert type(model[3]).__name__ == "_ResidualBlock"
    assert history.loss.isfinite().all()
    options = _common.ResNetRecipe(epochs=4).recipe()
    assert [options.schedule(e) for e in (0, 2, 4)] == pytest.approx([1.0, 0.5, 0.0])
    assert options.augment is ntk.training.crop_and_flip
    assert options.epochs == 4


def test_a_killed_run_keeps_its_seeds_and_goes_on(tmp_path, monkeypatch, capsys):
    """Kill after two of three seeds: the third alone is computed by the next call, and the file is that of a whole run."""
    module = forgetting_prediction
    config = module.Config("digits", iterations=5, batch_size=32, settings=((0.5, 0.0, 0.0),), seeds=(0, 1, 2))
    whole = module.run(config, "smoke", progress=False)
    monkeypatch.setitem(module.PRESETS, "smoke", config)
    made, real = [], module.forgetting_run

    def counted(*args, **kwargs):
        made.append(kwargs["seed"])
        if made == [0, 1, 2]:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "forgetting_run", counted)
    command = ["run", "forgetting_prediction", "--preset", "smoke", "--results", str(tmp_path)]
    assert cli.main(command) == 130
    assert results.read("forgetting_prediction", "smoke", tmp_path) is None
    assert len(list(tmp_path.rglob("*.json"))) == 2
    assert cli.main(command) == 0
    assert made == [0, 1, 2, 2]
    assert results.read("forgetting_prediction", "smoke", tmp_path).rows == whole.rows
    assert [p.name for p in (tmp_path / "forgetting_prediction").iterdir()] == ["smoke.json"]  # nothing is left over


def test_long_seeds_are_kept_part_by_part(tmp_path):
    config = find("forgetting_prediction").Config("digits", seeds=(0, 1))
    made = []

    def one_seed(seed, word, number):
        made.append((seed, word, number))
        if len(made) == 3:
            raise KeyboardInterrupt
        return [{"word": word, "number": number}]

    def run():
        how = {"device": torch.device("cpu"), "folder": tmp_path, "progress": False, "parts": [("a", 1), ("b", 2)]}
        return results.over_seeds("x", "smoke", config, ntk.load("digits", limit=3), one_seed, **how)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert [(r["seed"], r["word"]) for r in run().rows] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert made == [(0, "a", 1), (0, "b", 2), (1, "a", 1), (1, "a", 1), (1, "b", 2)]


def test_more_seeds_go_on_from_the_stored_result(tmp_path):
    """Two seeds stored, four wanted: two are computed; fewer wanted than stored: none, and nothing is lost."""
    made = []

    def run(seeds, data="digits", lr=0.5):
        config = find("forgetting_prediction").Config(data, settings=((lr, 0.0, 0.0),), seeds=seeds)
        found = results.over_seeds(
            "x",
            "smoke",
            config,
            ntk.load("digits", limit=3),
            lambda seed: made.append(seed) or [{"square": seed**2}],
            device=torch.device("cpu"),
            folder=tmp_path,
            progress=False,
        )
        results.save(found, tmp_path)
        return found

    few = run((0, 2))
    more = run((0, 1, 2, 3))
    assert made == [0, 2, 1, 3]
    assert [(r["seed"], r["square"]) for r in more.rows] == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert more.provenance["seconds"] >= few.provenance["seconds"]
    assert more.provenance["config"]["seeds"] == (0, 1, 2, 3)
    assert run((2,)) == results.read("x", "smoke", tmp_path)
    assert made == [0, 2, 1, 3]
    assert run((0,), lr=0.1).rows == [{"seed": 0, "square": 0}]  # other settings: computed again
    assert made == [0, 2, 1, 3, 0]


def test_a_resumed_run_names_every_version_that_ran(tmp_path, monkeypatch):
    def run(seeds):
        config = find("forgetting_prediction").Config(seeds=seeds)
        how = {"device": torch.device("cpu"), "folder": tmp_path, "progress": False}
        found = results.over_seeds("x", "smoke", config, ntk.load("digits", limit=3), lambda seed: [{}], **how)
        results.save(found, tmp_path)
        return found.provenance["commit"]

    monkeypatch.setattr(results, "_commit", lambda: "b")
    assert run((0,)) == "b"
    monkeypatch.setattr(results, "_commit", lambda: "a")
    assert run((0, 1)) == "a, b"
    assert run((0, 1, 2)) == "a, b"


def test_changed_code_is_dirty_and_changed_results_are_not(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True, capture_output=True
        )

    code, stored = tmp_path / "ntk_course/results.py", tmp_path / "book/results/x/paper.json"
    for path in (code, stored):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    monkeypatch.setattr(results, "__file__", str(code))
    clean = results._commit()
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    stored.write_text("2")
    assert results._commit() == clean
    code.write_text("2")
    assert results._commit() == clean + "-dirty"


def test_all_experiments_run_shortest_first_and_tell_what_is_left(tmp_path, monkeypatch, capsys):
    made = []

    settings = find("forgetting_prediction").Config(seeds=(0, 1, 2, 3))

    def experiment(name, seconds, fails=False):
        def run(config, preset, folder):
            made.append((name, config.seeds))
            if fails:
                raise FileNotFoundError("no data")
            return results.Result(name, preset, [{"seed": s} for s in config.seeds], {"config": {"seeds": config.seeds}})

        return Experiment({"paper": settings}, run, lambda result: [], {"": ()}, seconds, name)

    several = (("slow", 600.0), ("quick", 30.0), ("new", None), ("bad", 45.0, True))
    found = {about[0]: experiment(*about) for about in several}
    monkeypatch.setattr(cli.experiments, "names", lambda: list(found))
    monkeypatch.setattr(cli.experiments, "find", found.get)
    monkeypatch.setattr(cli.experiments, "seconds_a_seed", lambda name, preset: found[name].seconds_on_a_gpu)
    command = ["run", "--all", "--preset", "paper", "--where", "cpu", "--seeds", "2", "--results", str(tmp_path)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert cli.main(command) == 2
    assert made == [("quick", (0, 1)), ("bad", (0, 1)), ("slow", (0, 1)), ("new", (0, 1))]
    told = capsys.readouterr()
    first = told.out.splitlines()[0]
    # 2 seeds each of 30, 45 and 600 s
    assert first == "1 of 4: quick, 2 seeds to run, about 60 s; about 22 min left in all, and 1 without an estimate"
    assert "bad: no data; the others go on" in told.err
    assert "1 of 4 failed" in told.err
    made.clear()
    assert cli.main(command) == 2
    assert "quick, 0 seeds to run, about 0 s" in capsys.readouterr().out


def test_the_estimate_follows_this_machine(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(cli.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cli.experiments, "seconds_a_seed", lambda name, preset: {"a": 100.0, "b": 200.0}[name])
    config = find("forgetting_prediction").Config(seeds=(0,))
    order = cli._in_order({"b": config, "a": config}, "paper", tmp_path)
    assert next(order) == ("a", "1 of 2: a, 1 seeds to run, about 2 min; about 5 min left in all")
    clock[0] = 300.0  # three times what the stored run took
    assert next(order) == ("b", "2 of 2: b, 1 seeds to run, about 10 min; about 10 min left in all")


def test_a_run_stops_after_its_minutes_and_goes_on(tmp_path, capsys):
    command = ["run", "forgetting_prediction", "--preset", "class", "--results", str(tmp_path)]
    assert cli.main([*command, "--minutes", "0.03"]) == 130
    assert "finished seeds are kept" in capsys.readouterr().err
    assert list(tmp_path.rglob("class.json")) == []


def test_where_and_which(capsys):
    for arguments, said in (
        (["run"], "name: got None; wanted an experiment, or --all without one"),
        (["run", "transport", "--all"], "name: got 'transport' with --all"),
        (["run", "transport", "--preset", "cifar10"], "preset: got 'cifar10' for transport"),
        (["run", "transport", "--seeds", "0"], "--seeds: got 0"),
    ):
        assert cli.main(arguments) == 2
        assert said in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert cli.main(["run", "transport", "--where", "device"]) == 2
        assert "--where: got 'device'; wanted 'cpu'" in capsys.readouterr().err


def test_kept_seeds_of_another_config_are_not_taken(tmp_path):
    module, run = find("forgetting_prediction"), {}
    for lr in (0.5, 0.1):
        config = module.Config("digits", iterations=5, batch_size=32, settings=((lr, 0.0, 0.0),), seeds=(0,))
        run[lr] = module.run(config, "smoke", progress=False, folder=tmp_path).rows
    assert {row["lr"] for row in run[0.1]} == {0.1}
    assert len(list((tmp_path / "forgetting_prediction").iterdir())) == 2


def test_a_result_from_before_a_setting_was_there_is_one_at_its_default(tmp_path):
    """A later setting makes no old run again, unless it is asked for at another value."""
    module, data = forgetting_prediction, ntk.load("digits")
    config = module.Config("digits", iterations=3, batch_size=32, settings=((0.5, 0.0, 0.0),), seeds=(0,))
    path = results.save(module.run(config, "smoke", progress=False), tmp_path)
    old = json.loads(path.read_text())
    for setting in ("protocol", "batches", "factors"):
        del old["provenance"]["config"][setting]
    path.write_text(json.dumps(old))
    assert results.earlier("forgetting_prediction", "smoke", config, data, tmp_path).rows == old["rows"]
    for other in ({"protocol": CODE}, {"batches": ("stored",)}, {"iterations": 4}):
        assert results.earlier("forgetting_prediction", "smoke", replace(config, **other), data, tmp_path) is None


def test_a_network_of_one_setting_is_trained_once(tmp_path, monkeypatch):
    data, recipe, trained, real = ntk.load("digits", limit=200), _common.PaperRecipe(epochs=2, lr=0.05), [], _common.train
    monkeypatch.setattr(_common, "train", lambda *args, **kwargs: trained.append(kwargs["seed"]) or real(*args, **kwargs))

    def network(seed=0, protocol=CODE, validation=50, recipe=recipe, folder=tmp_path):
        return _common.kernel_network(data.x, data.y, recipe, seed, protocol, validation, folder)

    first, history = network()
    again, same = network()
    assert trained == [0] and not again.training
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert torch.equal(history.validation, same.validation) and history.accuracy.equal(same.accuracy)
    assert torch.equal(network(folder=None)[0](data.x), again(data.x)) and trained == [0, 0]
    network(seed=1), network(protocol=TEXT), network(validation=60), network(recipe=replace(recipe, lr=0.04))
    assert trained == [0, 0, 1, 0, 0, 0]
    assert {path.suffix for path in (tmp_path / ".kept").iterdir()} == {".pt"}


def test_protocols_choose_the_network_the_partners_and_the_accuracy():
    grey, colour = torch.zeros(1, 1, 28, 28), torch.zeros(1, 3, 32, 32)
    sizes = [sum(p.numel() for p in p.network(x).parameters()) for p in (TEXT, CODE) for x in (grey, colour)]
    assert sizes == [61_706, 11_173_962, 1_199_882, 11_164_362]
    assert sum(p.numel() for p in CODE_NARROW.network(colour).parameters()) == 699_066
    assert (TEXT.reported([0.1, 0.9, 0.5]), CODE.reported([0.1, 0.9, 0.5])) == (0.5, 0.9)
    data = ntk.load("digits", limit=300)
    config, model = pruned_training.Config(data="digits", limit=300), _common.initial(data.x, 0)
    kept = [pruned_training.head_pruned(model, data.x, data.y, replace(config, protocol=p), 0) for p in (TEXT, CODE)]
    assert not torch.equal(*kept) and abs(int(kept[0].sum()) - int(kept[1].sum())) <= 10


def test_rows_hold_no_nan():
    rows = results._plain({"a": math.nan, "b": [math.inf, 1.23456789], "c": "x", "d": 3})
    assert rows == {"a": None, "b": [None, 1.2346], "c": "x", "d": 3}


def test_gains_are_taken_pair_by_pair_and_seed_by_seed():
    def row(name, seed, pair, accuracy, weight=0.1, train=10):
        about = {"seed": seed, "pair": pair, "train": train, "estimate": name, "weight": weight}
        return about | {"accuracy": accuracy, "elasticity_test": 0.5, "ridge": float(accuracy < 0.6)}

    plain = [row("none", s, p, a, weight=0.0) for s, p, a in ((0, [1, 2], 0.7), (0, [3, 4], 0.9), (1, [1, 2], 0.5))]
    with_z = [row("HR 1", s, p, a) for s, p, a in ((1, [1, 2], 0.55), (0, [1, 2], 0.72), (0, [3, 4], 0.88))]
    smaller = [row("none", 0, [1, 2], 0.1, 0.0, train=5), row("HR 1", 0, [1, 2], 0.9, train=5)]
    run = results.Result("label_products", "smoke", smaller + plain + with_z, {})
    none, hr = label_products.gains(run)
    assert (none["Z"], none["ahead"], hr["Z"], hr["lambda"], hr["ahead"], hr["indefinite"]) == (
        ("none", "0 of 3", "HR 1", 0.1, "2 of 3", "1 of 3")
    )
    gained = [5.0, 2.0, -2.0]
    assert (hr["gain, points"].mean, hr["gain, points"].sd) == pytest.approx((np.mean(gained), np.std(gained, ddof=1)))
    renamed = [{"added" if k == "estimate" else k: v for k, v in r.items()} for r in run.rows]
    (again,) = label_products.gains(results.Result("label_free", "smoke", renamed, {}), ["HR 1"])
    assert again == {"added": "HR 1", "lambda": 0.1, "gain, points": hr["gain, points"], "ahead": "2 of 3"}


def test_means():
    assert results.mean_and_sd([1.0, 3.0, None]) == (2.0, pytest.approx(2**0.5))
    assert math.isnan(results.mean_and_sd([1.0])[1])


def test_stored_results_are_those_beside_the_package():
    with pytest.raises(ValueError, match="name: got 'no_such'; wanted an experiment"):
        results.stored("no_such")
    assert results.stored("theorem_1", "no_such") is None
    files = sorted((ROOT / "book/results").glob("*/*.json"))
    assert len(files) >= 6
    for path in files:
        found = results.stored(path.parent.name, path.stem)
        assert (found.name, found.preset) == (path.parent.name, path.stem)
        assert found.name in [*names(), "cost", "attribution_peers"]  # the last two are written by programs of benchmarks/
        assert found.rows == json.loads(path.read_text())["rows"]


# ----- pieces of single experiments


def test_the_opposed_and_the_forgotten_by_hand():
    """One gradient a sample by plain autograd, the vectors of the three kernels written out, and the area pair by pair."""
    config = replace(forgetting_relations.PRESETS["smoke"], limit=200, batch_size=24, iterations=5)
    rows = {row["kernel"]: row for row in forgetting_relations.run(config, progress=False).rows}
    data = ntk.load("digits", limit=200)
    model, order = _common.initial(data.x, 0), torch.randperm(200, generator=torch.Generator().manual_seed(0))
    parts, params = order[:192].split(24), [*model.parameters()]
    own = torch.eye(10)
    vectors = {
        "lpNTK": lambda z, k: (2 * own[k] - 1) / 10**0.5,
        "kappa tilde": lambda z, k: own[k] - 0.1,
        "loss": lambda z, k: z.softmax(0).detach() - own[k],
    }

    def gradients(samples, vector):
        found = []
        for i in samples:
            z = model(data.x[i : i + 1])[0]
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(z @ vector(z, data.y[i]), params)]))
        return torch.stack(found).double()

    def right(samples):
        return torch.stack([model(data.x[i : i + 1])[0].argmax() == data.y[i] for i in samples])

    def step(samples):
        loss = sum(-model(data.x[i : i + 1])[0].log_softmax(0)[data.y[i]] for i in samples) / len(samples)
        for p, g in zip(params, torch.autograd.grad(loss, params), strict=True):
            p.data -= config.lr * g

    means, gone = {name: [] for name in vectors}, []
    step(parts[0])
    for previous, now in zip(parts[:5], parts[1:6], strict=True):
        known = previous[right(previous)]
        for name, vector in vectors.items():
            means[name].append(gradients(known, vector) @ gradients(now, vector).mean(0))
        step(now)
        gone.append(~right(known))
    gone = torch.cat(gone)
    assert gone.any() and not gone.all()
    for name, mean in ((name, torch.cat(parts)) for name, parts in means.items()):
        pairs = mean[gone][:, None] - mean[~gone]
        assert rows[name]["area"] == pytest.approx((pairs < 0).double().mean().item(), abs=5.1e-6)  # rows have five digits
        counts = {"forgotten": gone, "kept": ~gone, "opposed_forgotten": (mean < 0) & gone, "opposed_kept": (mean < 0) & ~gone}
        assert {key: rows[name][key] for key in counts} == {key: int(who.sum()) for key, who in counts.items()}
    assert rows["loss"]["opposed_forgotten"] > 0


def test_a_centroid_alone_can_have_the_weight_that_it_has_in_company():
    """The control against plain steps on the mean loss of the centroids, divided by as much as their company takes."""
    config = control_difficulty.Config(
        data="digits", limit=400, recipe=_common.PaperRecipe(epochs=2, lr=0.05), added=3, runs=1, seeds=(0,),
        training=_common.PaperRecipe(epochs=6, lr=0.1, weight_decay=0.02, decay=1.0),
    )  # fmt: skip
    rows = control_difficulty.run(config, "smoke", progress=False).frame(kind=control_difficulty.LIGHT)
    data = ntk.load("digits", limit=400)
    centroids = control_difficulty.chosen(data.x, data.y, config)[0]
    model, x, y = _common.initial(data.x, 0).train(), data.x[centroids], data.y[centroids]
    # decay is no part of the loss, and is not divided
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    total = torch.zeros(len(y))
    for _ in range(6):
        optimizer.zero_grad()
        losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
        total += losses.detach()
        decay = sum(p.square().sum() for p in model.parameters()) / 2
        (losses.mean() / 4 + 0.02 * decay).backward()
        optimizer.step()
    found = rows.sort_values("class").difficulty.explode().astype(float)
    torch.testing.assert_close(torch.tensor(found.to_numpy()), total.double(), rtol=1e-4, atol=1e-4)


def test_controls_of_a_label_part_know_no_true_label():
    """Shuffled labels are the same numbers given to other samples; powers are the kernel's own."""
    phi, y = random(9, 12), torch.tensor([0, 1, 1, 0, 1, 1, 0, 1, 1])
    own, other = phi @ phi.T, random(4, 12, seed=1) @ phi.T
    (name, z, z_other), *powers = label_free.controls(own, other, y, (2, 3), seed=5)
    assert name == "HR 1, shuffled"
    order = torch.randperm(9, generator=torch.Generator().manual_seed(5))
    for found, kernel, left_out in ((z, own, True), (z_other, other, False)):
        torch.testing.assert_close(found, ntk.kernels.label_products(own, y[order], kernel, own=left_out))
        assert (found - ntk.kernels.label_products(own, y, kernel, own=left_out)).abs().max() > 1e-3
    for (name, part, part_other), p in zip(powers, (2, 3), strict=True):
        assert name == f"K^{p}"
        torch.testing.assert_close(part, own.pow(p))
        torch.testing.assert_close(part_other, other.pow(p))


def test_alignment_of_two_kernels_is_the_cosine_of_centred_features():
    """The held-out block, centred by the training points, from features whose training mean is taken away."""
    blocks = []
    pairs = [(random(7, 5, seed=seed), random(4, 5, seed=seed + 1)) for seed in (0, 2)]
    for train, test in pairs:
        blocks.append((test - train.mean(0)) @ (train - train.mean(0)).T)
    wanted = (blocks[0] * blocks[1]).sum() / (blocks[0].norm() * blocks[1].norm())
    found = label_systems.kernels_alike(*((train @ train.T, test @ train.T) for train, test in pairs))
    assert found == pytest.approx(wanted.item(), rel=1e-10) and abs(found) < 0.99


@pytest.mark.parametrize("hidden", [(7,), (7, 6), (5, 7, 6)])
def test_alpha_is_the_largest_entry_of_the_hidden_kernel(hidden):
    """The closed form against the eNTK of the network cut off before its last layer."""
    model = lecun((9, *hidden, 4), seed=1)
    x = torch.randn(1, 9, dtype=torch.float64) + 0.4 * torch.randn(2, 9, dtype=torch.float64)
    cut = model[:-1]
    wanted = ntk.entk(cut, x[:1], x[1:])[0, 0].abs().max().item()
    assert wanted > 0
    assert largest_hidden_kernel_entry(model, x[0], x[1]) == pytest.approx(wanted, rel=1e-12)


def test_the_bound_of_eq_20():
    log = math.log(8 * 100 / 0.05)
    assert bound(3.0, 64, 10, 0.05) == pytest.approx(8 * 10 * 3 / 8 * max(2 * math.sqrt(2 * log), math.sqrt(2) * log))


def test_the_gap_does_not_close_between_two_labels():
    rows = smoke("theorem_1").rows
    for hidden in (1, 2):
        gaps = {(r["width"], r["labels"]): r["relative_gap"] for r in rows if r["hidden"] == hidden}
        assert gaps[1024, "same"] < 0.7 * gaps[256, "same"]
        assert gaps[1024, "different"] == pytest.approx(0.4, abs=0.05)  # 1 - 6/10: two label signs agree at 8 of 10 outputs
    assert all(r["within_bound"] == 1.0 for r in rows if r["labels"] == "same")


def test_correlations_are_whole_tables():
    rows = [r for r in smoke("learning_difficulty").rows if r["measure"] == "loss"]
    assert {(r["from"], r["to"]) for r in rows} == {(16, 16), (16, 4), (16, 1), (4, 4), (4, 1), (1, 1)}
    assert all(r["rho"] == pytest.approx(1) for r in rows if r["from"] == r["to"])


def test_pooling_counts_events_once():
    module = forgetting_prediction
    row = {"lr": 0.1, "momentum": 0.0, "batches": "trained", "predictor": "a"}
    rows = [
        row | {"events": 4, "predicted": 2, "hits": 1} | dict.fromkeys(module.MEANS, 0.5),
        row | {"events": 0, "predicted": 2, "hits": 0} | dict.fromkeys(module.MEANS, 1.0),
    ]
    pooled = module.pooled(results.Result("x", "smoke", rows, {}))
    assert pooled == [row | {"events": 4, "precision": 0.25, "recall": 0.25, "F1": 0.25} | dict.fromkeys(module.MEANS, 0.75)]
    empty = module.pooled(results.Result("x", "smoke", rows[1:], {}))[0]
    assert (empty["precision"], empty["recall"], empty["F1"]) == (None, None, None)


def test_two_copies_of_one_input():
    """App. D.1: with two classes, opposite labels give opposite lpNTK features; with ten they do not."""
    rows = {(r["classes"], r["labels"]): r for r in smoke("label_flips").rows if r["part"] == "copies"}
    assert rows[2, "same"]["lpNTK"] == pytest.approx(1)
    assert rows[2, "different"]["lpNTK"] == pytest.approx(-1, abs=1e-5)
    assert rows[2, "different"]["y-th logit"] > -0.9  # App. C's own vector misses the extreme example of App. D.1
    assert rows[10, "different"]["lpNTK"] > 0.3
    assert min(rows[2, "different"]["difficulty"]) > max(rows[2, "same"]["difficulty"])


def test_redundancy_rows_and_sets():
    rows = smoke("redundancy").rows
    fractions = {(r["state"], r["kernel"], r["compared"]): r for r in rows if r["part"] == "fraction"}
    sizes = {r["set"]: r["samples"] for r in rows if r["part"] == "accuracy"}
    share = fractions["best of 3 epochs", "lpNTK", "all"]["redundant"]
    assert sizes["de-redundant by lpNTK"] == round((1 - share) * 500)
    assert sizes["random, as many as de-redundant by lpNTK"] == sizes["de-redundant by lpNTK"]
    assert sizes["most redundant tenth by lpNTK"] == 450


def test_every_method_keeps_as_many():
    sizes = {r["method"]: r["samples"] for r in smoke("pruned_training").rows}
    assert sizes.pop("full") == 400
    assert abs(sizes.pop("lpNTK") - 320) <= 10  # each class's count is rounded down
    assert set(sizes.values()) == {320}


USE = """
import torch
from ntk_course.replication.experiments._common import peak_memory
count, at_once, kept = {count}, {at_once}, []
with peak_memory(torch.device("cpu")) as peak:
    for _ in range(count):
        del kept[: len(kept) + 1 - at_once]
        kept.append(torch.ones(2500, 2500, dtype=torch.float64))  # 48 MiB
        kept[-1].add_(1).sum()
later = torch.ones(5000, 5000)
print(peak())
"""


@pytest.mark.parametrize(("count", "at_once"), [(1, 1), (3, 1), (3, 3)])
def test_peak_memory_sees_what_is_held_at_once(count, at_once):
    # A process of its own: another allocator than glibc's may hand out again what was freed in an earlier test, or keep
    # what is freed here, so that of three tensors one after the other only bounds are certain.
    told = subprocess.run([sys.executable, "-c", USE.format(count=count, at_once=at_once)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    if told.stdout.strip() == "None":
        pytest.skip("this system keeps no high-water mark that can start again")
    tensor = 8 * 2500**2 / 2**20
    assert 0.95 * at_once * tensor < float(told.stdout) < (count + 0.5) * tensor


def test_descent_follows_the_linear_flow_of_a_linear_model():
    from ntk_course.replication.experiments._common import descent

    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
    models = [torch.nn.Linear(3, 1).double() for _ in range(2)]
    before = [m(x)[:, 0].detach() for m in models]
    (after,) = descent(models, x, y, 0.001, (2000,), centred=True)
    gram = ntk.entk(models[0], x)[..., 0, 0]
    for model, start in zip(after, before, strict=True):
        wanted = start + ntk.analysis.gradient_flow(gram, gram, y, 2.0)
        torch.testing.assert_close(model(x)[:, 0].detach(), wanted, rtol=1e-2, atol=1e-2)


def test_a_class_pair_has_one_norm_and_two_signs():
    from ntk_course.replication.experiments._common import class_pair

    data = ntk.load("digits")
    x, y = class_pair(data, (3, 5), 40, seed=1)
    assert x.shape == (40, 64)
    assert x.dtype == torch.float64
    torch.testing.assert_close(x.square().mean(1), torch.ones(40, dtype=torch.float64))
    original = {tuple(row.tolist()): int(k) for row, k in zip((data.x.flatten(1).double()), data.y, strict=True)}
    unit = lambda row: row / row.square().mean().sqrt()  # noqa: E731
    known = {tuple(unit(torch.tensor(row, dtype=torch.float64)).tolist()): k for row, k in original.items() if k in (3, 5)}
    assert all(known[tuple(row.tolist())] == (3 if sign < 0 else 5) for row, sign in zip(x, y, strict=True))
    assert not torch.equal(class_pair(data, (3, 5), 40, seed=2)[0], x)


def test_labels_of_several_classes():
    """Corners of a simplex, whose products are those of the labels; for two classes, signs."""
    from ntk_course.kernels.label_aware import agreement
    from ntk_course.replication.experiments._common import some_classes
    from ntk_course.replication.experiments.label_products import corners, products

    data = ntk.load("digits")
    x, y = some_classes(data, (7, 2, 5), 50, seed=3)
    assert y.unique().tolist() == [0, 1, 2]
    mean = lambda k: data.x[data.y == k].flatten(1).double().mean(0)  # noqa: E731
    nearest = torch.stack([mean(k) for k in (7, 2, 5)])
    assert (torch.cdist(x, nearest / nearest.square().mean(1, keepdim=True).sqrt()).argmin(1) == y).double().mean() > 0.9
    torch.testing.assert_close(products(corners(y, 3), corners(y, 3)), agreement(y, x))
    assert corners(torch.tensor([0, 1]), 2).tolist() == [[1, -1], [-1, 1]]


def test_the_table_of_kernels_knows_the_network_and_all_its_data():
    result = smoke("kernel_table")
    assert all(r["agreement"] == 1.0 for r in result.rows if r["kernel"] == "EPK")
    about, parts = result.provenance["config"], {(r["seed"], r["points"], r["kernel"]): r.get("label_part") for r in result.rows}
    assert all((part is None) == (not kernel.startswith("LANTK")) for (*_, kernel), part in parts.items())
    for points in (about["points"], about["few"]):
        x, y = _common.class_pair(ntk.load("digits"), about["pairs"][0][1], points, seed=0)
        plain = ntk.infinite.mlp(x, depth=1, w_std=2**0.5).ntk
        added = ntk.lantk_hr(plain, y).train - plain
        assert parts[0, points, "LANTK-HR"] == pytest.approx((added.norm() / plain.norm()).item(), rel=1e-4)
    assert all(r["as_ntk"] == 1.0 for r in result.rows if r["kernel"] == "NTK")
    twins = [r["agreement"] for r in result.rows if r["kernel"] == "another network"]
    assert len(twins) == len(about["seeds"]) and min(twins) < 1  # not the network once more
    from ntk_course.replication.experiments._common import together

    sets = [ntk.load("digits"), ntk.load("gaussians")]
    joined = together(sets)
    assert joined.name == "digits + gaussians"
    assert len(joined) == sum(map(len, sets))
    assert joined.checksum != together(sets[::-1]).checksum


def test_the_kernel_of_log_probabilities_is_that_of_the_difference_of_logits_times_probabilities():
    """d log q_1 = q_0 d(z_1 - z_0) and d log q_0 = -q_1 d(z_1 - z_0): the factor that an elasticity of path kernels comes from."""
    from ntk_course.replication.experiments import kernel_table

    x, y = _common.class_pair(ntk.load("digits"), (1, 8), 12, seed=0)
    torch.manual_seed(0)
    path = ntk.train_path(ntk.mlp((64, 8, 2)).double(), x, (y + 1) // 2, steps=3, lr=0.1, progress=False)
    task = kernel_table.Task(x, (y + 1) // 2, x, y, (1, 8, 8), path, path.model_at(0), path.model_at(-1))
    found = kernel_table.kernels(kernel_table.PRESETS["smoke"], task)["eNTK, end, log-probabilities"].kernel(x)
    blocks, q = ntk.entk(task.end, x), task.end(x).softmax(1).detach()
    difference = blocks[..., 0, 0] + blocks[..., 1, 1] - blocks[..., 0, 1] - blocks[..., 1, 0]
    torch.testing.assert_close(found, (q @ q.T) / 2 * difference)


@pytest.mark.parametrize("name", ["label_products", "label_products_classes"])
def test_perfect_label_products_classify_perfectly(name):
    rows = smoke(name).rows
    assert all(r["accuracy"] == 1.0 for r in rows if r["estimate"] == "signs 100% right")
    plain = {r["seed"]: r["accuracy"] for r in rows if r["estimate"] == "none"}
    told = [r for r in rows if r["estimate"] == "predictions, told"]
    assert all(r["accuracy"] == plain[r["seed"]] for r in told)  # seeing its own label changes no answer


def test_the_cnn_is_the_finite_network_of_its_cntk():
    """Outputs of many networks have the covariance that the infinitely wide one has, and no bias hides in them."""
    from ntk_course.replication.experiments.label_products_cntk import cnn

    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 4)
    x[1] = 0.7 * x[0] + 0.3 * x[1]
    nets = [cnn(x.shape[1:], 48, 3) for _ in range(600)]
    with torch.no_grad():
        z = torch.cat([net(x) for net in nets], 1).double()
        assert all(not net(0 * x).any() for net in nets[:2])
    wanted = ntk.cntk(x.double(), depth=3).nngp
    found = z @ z.T / z.shape[1]
    scale = wanted.diagonal().sqrt()
    torch.testing.assert_close(found / scale / scale[:, None], wanted / scale / scale[:, None], atol=0.1, rtol=0)
