"""An experiment as a value: its presets, how it runs, and what it sets beside the source's numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .results import Quoted, Result


@dataclass
class Experiment:
    """One table or figure of a source, done again.

    A module in :mod:`ntk_course.replication.experiments` is an experiment when it holds one as ``EXPERIMENT``; the module's
    name is the experiment's, and the first line of its docstring says what it is.

    Attributes:
        presets: settings by name: "smoke" for tests (seconds), "class" for a laptop (minutes), "paper" for the source's own
            as far as a CPU reaches, and "cifar10" where there is one, for a GPU. All are of one frozen dataclass with seeds.
        run: from settings, the preset's name, whether to show progress, and the folder of results to a :class:`Result`.
        quoted: what it measured beside the source's numbers.
        columns: the schema of its rows, by their part ("" where there are no parts): a row has some of them, beside "seed" and
            "part", and no others.
        seconds_on_a_gpu: what a seed of "cifar10" takes as far as we reckon, where no run says it.
        name: of the module.
        summary: in a line.
        of_ours: the setting is ours: a source whose theory is tried has none.
    """

    presets: Mapping[str, Any]
    run: Callable[..., Result]
    quoted: Callable[[Result], list[Quoted]]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds_on_a_gpu: float | None = None
    name: str = ""
    summary: str = ""
    of_ours: bool = False

    @property
    def Config(self) -> type:  # noqa: N802
        """The dataclass of the settings."""
        return type(self.presets["smoke"])

    def settings(self, preset: str) -> Any:
        """Return a preset's settings.

        Raises:
            ValueError: there is no such preset.
        """
        if preset not in self.presets:
            raise ValueError(f"preset: got {preset!r} for {self.name}; wanted one of {list(self.presets)}")
        return self.presets[preset]

    def checked(self, result: Result) -> Result:
        """Return a result whose rows keep to the schema.

        Raises:
            ValueError: a row of an unknown part, or with an unknown column.
        """
        for row in result.rows:
            part = row.get("part", "")
            unknown = set(row) - {"seed", "part", *self.columns.get(part, ())}
            if part not in self.columns or unknown:
                raise ValueError(f"rows of {self.name}: got {sorted(unknown)} in part {part!r}; wanted {dict(self.columns)}")
        return result

    def of(self, preset: str, folder: str | Path | None = None, progress: bool = False) -> Result:
        """Run a preset."""
        return self.checked(self.run(self.settings(preset), preset, progress, folder))
