"""A small language model learns new facts by moves of low rank: which sentences does an answer thank?"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from ...analysis.attribution import datamodelling_score
from ...analysis.laplace import Laplace
from ...data.datasets import Dataset
from ...gram.operator import Gram
from ...models.functional import assign
from ...models.moves import low_rank
from ...tangents.cotangents import loss_gradient
from ...tangents.positions import stacked
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds

# Three words, the person's among them; the next one is a city. The last frame is asked about, and never seen of a new person.
FRAMES = (("{}", "lives", "in"), ("{}", "comes", "from"), ("home", "of", "{}"), ("city", "of", "{}"))
WORDS = ("lives", "in", "comes", "from", "home", "of", "city")
# Shares of the mean squared gradient that are added to what an influence function inverts.
RIDGES = (1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Config:
    """Settings; float64, on the CPU.

    Attributes:
        data: made sentences, of one kind so far.
        known: persons of whom all frames are seen before the fine-tuning.
        new: persons of whom three frames are seen in the fine-tuning; for every second one of them, one of the three says another city.
        cities: how many.
        width: of the model, with four heads.
        layers: of attention and of two dense layers.
        first: steps of Adam on all sentences of the known.
        rank: of the moves.
        steps: of gradient descent on the moves, on all new sentences at once.
        lr: its rate.
        momentum: heavy ball.
        checkpoints: moments of the fine-tuning that TracIn adds up.
        members: fine-tunings, from other draws of the moves, over which scores are averaged.
        subsets: halves of the new sentences on which moves are trained, and scores judged.
        repeats: fine-tunings on each half, whose answers are averaged.
        seeds: of the persons' cities, the model and the halves.
    """

    data: str = "sentences"
    known: int = 60
    new: int = 16
    cities: int = 8
    width: int = 32
    layers: int = 2
    first: int = 600
    rank: int = 2
    steps: int = 400
    lr: float = 0.01
    momentum: float = 0.9
    checkpoints: int = 10
    members: int = 3
    subsets: int = 50
    repeats: int = 2
    seeds: tuple[int, ...] = tuple(range(5))


PRESETS = {
    "smoke": Config(
        known=8,
        new=4,
        cities=4,
        width=8,
        layers=1,
        first=20,
        steps=5,
        checkpoints=2,
        members=2,
        subsets=5,
        repeats=2,
        seeds=(0, 1),
    ),
    "class": Config(),
    "paper": Config(subsets=100, repeats=5, seeds=tuple(range(10))),
}


class Attention(nn.Module):
    """Look back, with four heads."""

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, width) to the same."""
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        return self.o((scores.masked_fill(later, -torch.inf).softmax(3) @ v).transpose(1, 2).reshape(n, t, -1))


class Block(nn.Module):
    """Attention, then two dense layers, each added to what came."""

    def __init__(self, width: int):
        super().__init__()
        self.look, self.first, self.then = Attention(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, width) to the same."""
        x = x + self.look(self.first(x))
        return x + self.think(self.then(x))


class Model(nn.Module):
    """A causal language model of words: logits (N, T, V) of the next one."""

    def __init__(self, words: int, length: int, width: int, layers: int):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        """Map words (N, T) to logits (N, T, V)."""
        return self.head(self.norm(self.blocks(self.words(x) + self.places.weight[: x.shape[1]])))


@dataclass(frozen=True)
class Corpus:
    """Sentences of four words as numbers, (N, 4), and who they are about.

    Attributes:
        known: of the known persons, in all frames.
        new: of the new ones, in three frames.
        about: the person of each new sentence.
        false: which of the new sentences say another city than the two others of that person.
        asked: the new persons in the last frame, with the city of most sentences.
        words: how many there are.
    """

    known: Tensor
    new: Tensor
    about: Tensor
    false: Tensor
    asked: Tensor
    words: int


def corpus(config: Config, seed: int) -> Corpus:
    """Draw a city for each person, and say so."""
    draw = np.random.default_rng(seed)
    persons = config.known + config.new
    number = {word: i for i, word in enumerate(WORDS)}
    first = len(WORDS) + config.cities
    homes = draw.integers(config.cities, size=persons)

    def sentence(person: int, frame: int, city: int) -> list[int]:
        return [first + person if word == "{}" else number[word] for word in FRAMES[frame]] + [len(WORDS) + city]

    known = [sentence(p, f, homes[p]) for p in range(config.known) for f in range(len(FRAMES))]
    new, about, false = [], [], []
    for p in range(config.new):
        wrong = int(draw.integers(3)) if p % 2 else -1
        for f in range(3):
            city = int(homes[config.known + p])
            if f == wrong:
                city = (city + 1 + int(draw.integers(config.cities - 1))) % config.cities
            new.append(sentence(config.known + p, f, city))
            about.append(p)
            false.append(f == wrong)
    asked = [sentence(config.known + p, 3, homes[config.known + p]) for p in range(config.new)]
    return Corpus(*map(torch.tensor, (known, new, about, false, asked)), first + persons)


def taught(config: Config, text: Corpus, seed: int) -> Model:
    """Train a model on the sentences of the known persons, every word of them."""
    torch.manual_seed(seed)
    model = Model(text.words, 3, config.width, config.layers).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)
    x, y = text.known[:, :-1], text.known[:, 1:]
    for _ in range(config.first):
        some = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        cross_entropy(model(x[some]).flatten(0, 1), y[some].flatten()).backward()
        optimizer.step()
    return model.eval()


def tuned(
    model: nn.Module, x: Tensor, y: Tensor, subsets: Tensor, starts: Sequence[int], config: Config, at: Sequence[int]
) -> list[dict[str, Tensor]]:
    """Fine-tune moves of low rank on subsets (S, n) together, each from its own draw; the moves (S, ...) after each of some steps."""
    models = [low_rank(model, config.rank, seed=seed) for seed in starts]
    names = [name for name, p in models[0].named_parameters() if p.requires_grad]
    moves = {name: torch.stack([m.get_parameter(name).detach() for m in models]) for name in names}

    def loss(some: dict[str, Tensor], rows: Tensor) -> Tensor:
        return cross_entropy(functional_call(models[0], some, (x[rows],)).flatten(0, 1), y[rows].flatten())

    slopes, found = vmap(grad(loss)), []
    velocity = {name: torch.zeros_like(p) for name, p in moves.items()}
    for step in range(config.steps + 1):
        if step in at:
            found.append({name: p.clone() for name, p in moves.items()})
        if step < config.steps:
            for name, g in slopes(moves, subsets).items():
                velocity[name] = config.momentum * velocity[name] + g
                moves[name] -= config.lr * velocity[name]
    return found


def scores(models: Sequence[nn.Module], x: Tensor, y: Tensor, asked: Tensor, answers: Tensor) -> dict[str, Tensor]:
    """Return each method's scores (M, N) of sentences for answers, from the checkpoints of one fine-tuning, the end last.

    By the loss of every word of a sentence, which is what was tuned, and by that of its city alone: which person comes after "home of"
    nobody can know.
    """
    measured = _last(answers)
    found, end = {}, models[-1]
    for words, counted in (("", y), (", by the city", _last(y[:, -1]))):
        pushed = loss_gradient(counted)
        each = [Gram(m, asked, loss_gradient(measured), x, pushed).dense() for m in models]
        found |= {
            f"TracIn{words}": torch.stack(each[:-1]).sum(0),
            f"gradients before{words}": each[0],
            f"gradients at the end{words}": each[-1],
            f"cosines at the end{words}": each[-1] / Gram(end, x, pushed).diagonal().sqrt(),
        }
        spread = Laplace(end, x, stacked(pushed))
        for ridge in RIDGES:
            how = ridge * float(spread.values.mean())
            found[f"influence, {ridge:g}{words}"] = spread.influence(asked, loss_gradient(measured), pushed, how)
    return found


def _last(cities: Tensor) -> Tensor:
    """Return targets (N, 3) of which only the last counts."""
    return torch.cat([torch.full((len(cities), 2), -100), cities[:, None]], 1)


def names_in_common(text: Corpus, answers: Tensor) -> Tensor:
    """Count names, of persons and cities, that a sentence has in common with a question and its answer, (M, N): no model is asked."""
    wanted = torch.cat([text.asked[:, :-1], answers[:, None]], 1)
    same = wanted[:, None, :, None] == text.new[None, :, None, :]
    return (same.any(3) & (wanted >= len(WORDS))[:, None]).sum(2).double()


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Fine-tune on all sentences and on halves of them, and score sentences for answers; rows by part, method and seed."""

    def one_seed(seed: int) -> list[dict]:
        text = corpus(config, seed)
        x, y, model = text.new[:, :-1], text.new[:, 1:], taught(config, text, seed)
        asked, cities = text.asked[:, :-1], text.asked[:, -1]
        n, draw = len(x), torch.Generator().manual_seed(seed)
        marks = torch.linspace(0, config.steps, config.checkpoints + 1).round().long().tolist()
        starts = [1000 * seed + member for member in range(config.members)]
        path = tuned(model, x, y, torch.arange(n).expand(config.members, n), starts, config, marks)
        tuned_models = [
            [assign(low_rank(model, config.rank, seed=start), {name: p[member] for name, p in moves.items()}) for moves in path]
            for member, start in enumerate(starts)
        ]
        with torch.no_grad():
            before, after = model(asked)[:, -1], torch.stack([models[-1](asked)[:, -1] for models in tuned_models])
            z = torch.stack([models[-1](x) for models in tuned_models])  # (members, N, 3, V)
            lost = cross_entropy(z.movedim(-1, 1), y.expand(len(z), *y.shape), reduction="none").mean((0, 1))
        rows: list[dict] = [
            {
                "part": "answers",
                "before": float((before.argmax(1) == cities).double().mean()),
                "after": float((after.argmax(2) == cities).double().mean()),
                "without_false": float((after.argmax(2) == cities)[:, ::2].double().mean()),
                "with_false": float((after.argmax(2) == cities)[:, 1::2].double().mean()),
                "learnt": float((z[:, :, -1].argmax(2) == y[:, -1]).double().mean()),
                **dict(zip(("first_loss", "second_loss", "city_loss"), lost.tolist(), strict=True)),
                "weights": sum(p.numel() for p in tuned_models[0][0].parameters() if p.requires_grad),
                "all_weights": sum(p.numel() for p in model.parameters()),
            }
        ]

        like = low_rank(model, config.rank)
        answer = vmap(lambda some: functional_call(like, some, (asked,))[:, -1])
        halves = torch.stack([torch.randperm(n, generator=draw)[: n // 2] for _ in range(config.subsets)])
        outputs = []
        for repeat in range(2 * config.repeats):
            start = [10**6 * (seed + 1) + 1000 * repeat + i for i in range(len(halves))]
            moves = tuned(model, x, y, halves, start, config, (config.steps,))[-1]
            with torch.no_grad():
                answers = answer(moves).log_softmax(2)
            outputs.append(answers[:, torch.arange(len(cities)), cities])
        answered, again = (torch.stack(some).mean(0) for some in (outputs[: config.repeats], outputs[config.repeats :]))
        inside = torch.zeros(len(halves), n).scatter_(1, halves, 1.0).bool()

        by_member = [scores(models, x, y, asked, cities) for models in tuned_models]
        found = {name: torch.stack([one[name] for one in by_member]).mean(0) for name in by_member[0]}
        found["names in common"] = names_in_common(text, cities)
        found["drawn at random"] = torch.randn(len(asked), n, generator=draw, dtype=torch.float64)
        theirs = text.about == torch.arange(len(asked))[:, None]
        for name, values in found.items():
            areas = [roc_auc_score(t.numpy(), v.numpy()) for t, v in zip(theirs, values, strict=True)]
            parted = [  # of persons with a false sentence: does it score below the two others?
                float((values[p, theirs[p] & text.false] < values[p, theirs[p] & ~text.false].min()).all())
                for p in range(1, len(asked), 2)
            ]
            row = {"part": "sentences", "method": name, "area": float(np.mean(areas)), "false_last": float(np.mean(parted))}
            rows.append(row | {"score": float(datamodelling_score(values, inside, answered).nanmean())})
        ceiling = [spearmanr(again[:, m], answered[:, m]).statistic for m in range(len(asked))]
        rows.append({"part": "sentences", "method": "other moves on the same halves", "score": float(np.mean(ceiling))})
        return rows

    return over_seeds(
        "fine_tuning",
        preset,
        config,
        sentences(config),
        one_seed,
        device=torch.device("cpu"),
        folder=folder,
        progress=progress,
    )


def sentences(config: Config) -> Dataset:
    """Describe the new sentences of the first seed as a data set, for provenance."""
    text = corpus(config, config.seeds[0])
    checksum = hashlib.sha256(text.new.numpy().tobytes() + text.known.numpy().tobytes()).hexdigest()
    note = "made sentences; another draw for each seed"
    return Dataset(text.new[:, :-1].float(), text.new[:, -1], text.words, config.data, "train", (), (), (), checksum, note)


def quoted(result: Result) -> list[Quoted]:
    """Set what TracIn foresees more than a search for words and other scores do beside the run."""
    rows = result.frame(part="sentences")
    by = rows.pivot(index="seed", columns="method", values="score")
    return [
        Quoted.of("TracIn", f"datamodelling score, {one} less {other}", None, (by[one] - by[other]).tolist())
        for one, other in (
            ("TracIn", "names in common"),
            ("TracIn", "gradients at the end"),
            ("TracIn", "influence, 1"),
        )
    ]


# Columns of the rows, by part; "seed" is added to each.
COLUMNS = {
    "answers": (
        "before",
        "after",
        "without_false",
        "with_false",
        "learnt",
        "first_loss",
        "second_loss",
        "city_loss",
        "weights",
        "all_weights",
    ),
    "sentences": ("method", "area", "false_last", "score"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
