"""Names of the code as a reader says them: in the heads and cells of tables, and on the axes and titles of figures."""

import re
from collections.abc import Callable, Mapping
from functools import wraps

_WORDS = {
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "relu": "ReLU",
    "lambda": "λ",
    "f1": "F1",
    "log_softmax": "log-softmax",
    "cross_entropy": "cross entropy",
    "K^2": "K²",
    "K^3": "K³",
    "K4": "K₄",
    "float32": "single precision",
    "float64": "double precision",
}
_NAMES = re.compile(r"(?<![\w.$^_\\-])(" + "|".join(map(re.escape, _WORDS)) + r")(?![\w.^_-])")
_PAIRS = re.compile(r"[\[(]((?:[\[(]\d+, \d+[\])](?:, )?)+)[\])]")
_LIST = re.compile(r"(?:\[|(?<=seeds )\()(\d+(?:, \d+)*),?[\])]")  # round brackets may be an interval, or a count


def spoken(text: str, tilde: str = "κ̃") -> str:
    """Write a text with words for names of the code, and lists of numbers without their brackets.

    Args:
        text: of a table or a figure.
        tilde: for "kappa tilde", which a figure has to write as a formula.

    Example:
        >>> spoken("mnist, pairs [[3, 5], [4, 9]], seeds [0, 1, 2]")
        'MNIST, pairs 3/5 and 4/9, seeds 0 to 2'
    """
    text = _NAMES.sub(lambda name: _WORDS[name[1]], text).replace("kappa tilde", tilde)
    text = _PAIRS.sub(lambda pairs: " and ".join("/".join(p) for p in re.findall(r"(\d+), (\d+)", pairs[1])), text)
    return _LIST.sub(lambda numbers: _run([int(n) for n in numbers[1].split(", ")]), text)


def _run(numbers: list[int]) -> str:
    """Write numbers that follow one another by the first and the last."""
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def in_words(draw: Callable) -> Callable:
    """Give a drawing function its titles, labels and legends as :func:`spoken`."""

    def said(value):
        if isinstance(value, str):
            return spoken(value, r"$\tilde\kappa$")
        if isinstance(value, Mapping):
            return {said(key): said(each) if isinstance(each, Mapping) else each for key, each in value.items()}
        if isinstance(value, (list, tuple)) and value and all(isinstance(each, str) for each in value):
            return type(value)(map(said, value))
        return value

    @wraps(draw)
    def drawn(*args, **settings):
        return draw(*map(said, args), **{name: said(value) for name, value in settings.items()})

    return drawn
