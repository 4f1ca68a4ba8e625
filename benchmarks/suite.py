"""All benchmarks one after another: which there are, what each has found, and the page of all of them."""

import importlib
import json
import pkgutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

import benchmarks.cases
from benchmarks.harness import Bench, Entry, Note, as_json, of_json
from benchmarks.report import draw, machine, markdown, show
from heatgen import check
from heatgen.check import ConfigError
from heatgen.runtime.files import read_small, write_text

LARGEST = 2**24  # bytes of a file of results
FIRST = ("original", "steps", "trainer", "heat")  # what matters most, where a time limit cuts the rest off


def names() -> list[str]:
    """The benchmarks, one a file of `cases`, in the order in which they run."""
    found = sorted(module.name for module in pkgutil.iter_modules(benchmarks.cases.__path__))
    return [*(name for name in FIRST if name in found), *(name for name in found if name not in FIRST)]


def module_of(name: str) -> ModuleType:
    """The file of a benchmark. ConfigError for a name that there is not."""
    check.choice("--only", name, tuple(names()))
    return importlib.import_module(f"benchmarks.cases.{name}")


@dataclass
class Suite:
    """Runs benchmarks and keeps what they find: one JSON each in a folder, as soon as it is done.

    Args:
        bench: how to measure.
        folder: where results go.
        title: of the page of all of them.
        command: that is written on it.
        again: whether what is there is measured again.
        until: when to begin no more of them, in seconds of time.monotonic; None: never.
    """

    bench: Bench
    folder: Path
    title: str
    command: str
    again: bool = False
    until: float | None = None
    found: dict[str, list[Entry]] = field(default_factory=dict)

    def run(self, chosen: Sequence[str]) -> None:
        """Measure these benchmarks, with a bar; what cannot run is a note, and the others go on."""
        modules = {name: module_of(name) for name in chosen}
        facts = machine(self.bench.device, self.bench.floors)
        with tqdm(total=sum(module.SECONDS for module in modules.values()), unit="s", desc="benchmarks") as bar:
            for name, module in modules.items():
                bar.set_postfix_str(name)
                done = bar.n + module.SECONDS
                if self.again or not self.read(name, facts):
                    self.measure(name, module, bar, facts)
                    self.write(name, facts)
                bar.update(done - bar.n)
                bar.clear()
                show(self.found[name])
        self.page(self.folder, figure=True)

    def measure(self, name: str, module: ModuleType, bar: "tqdm[None]", facts: dict[str, object]) -> None:
        """Run one, the bar going on with every comparison; what it has found by then is kept where this is ended."""
        start, first = time.monotonic(), bar.n
        if self.until is not None and start > self.until:
            self.found[name] = [Note(name, "all", "the time was over")]
            return

        def step() -> None:
            bar.update(min(first + time.monotonic() - start, first + module.SECONDS) - bar.n)

        entries = self.found[name] = [Note(name, "the rest", "the time was over")]  # until it is done
        try:
            for entry in module.measure(replace(self.bench, step=step)):
                entries.insert(-1, entry)
                self.write(name, facts)  # as the whole command may be ended
            entries.pop()
        except Exception as error:
            if self.bench.quick:
                raise
            entries[-1] = Note(name, "the rest", f"it failed: {type(error).__name__}: {str(error)[:500]}")

    def path(self, name: str) -> Path:
        """Where the entries of one are."""
        return self.folder / "parts" / f"{name}.json"

    def read(self, name: str, facts: dict[str, object]) -> bool:
        """Take what was measured before on the same device, in the same way; whether there is any."""
        if not self.path(name).is_file():
            return False
        try:
            content = json.loads(read_small(self.path(name), LARGEST))
            same = content["machine"]["device"] == facts["device"] and content["settings"] == self.settings()
            entries = [of_json(entry) for entry in content["entries"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path(name)} is no result of a benchmark; remove it, or give another --out.") from error
        failed = any(isinstance(entry, Note) and entry.text.startswith(("it failed", "the time")) for entry in entries)
        if same and not failed:
            self.found[name] = entries
        return same and not failed

    def settings(self) -> dict[str, object]:
        """What distinguishes ways of measuring."""
        return {"quick": self.bench.quick, "full": self.bench.full}

    def write(self, name: str, facts: dict[str, object]) -> None:
        """Keep what one has found, and the page of all that there is."""
        entries = [as_json(entry) for entry in self.found[name]]
        content = {"machine": facts, "settings": self.settings(), "entries": entries}
        write_text(self.path(name), json.dumps(content, indent=1) + "\n")
        self.page(self.folder)

    def page(self, folder: Path, figure: bool = False) -> None:
        """Write <title>.md and .json of all that is known to a folder, and the figure where it is asked for."""
        facts = machine(self.bench.device, self.bench.floors)
        rows = [{"kind": "machine", **facts, **self.settings()}]
        rows += [as_json(entry) for entries in self.found.values() for entry in entries]
        write_text(folder / f"{self.title}.json", json.dumps(rows, indent=1) + "\n")
        write_text(folder / f"{self.title}.md", markdown(self.title, self.command, facts, self.found))
        if figure and any(self.found.values()):
            draw(self.found, folder / f"{self.title}.png", f"{facts['device']}, {facts['threads']} threads")
