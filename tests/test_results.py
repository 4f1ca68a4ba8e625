"""Every number of docs/results.md and of the README's prose is in a JSON of docs/results, or a config, or follows from them.

A number counts as found where one of its section's rounds to it as it is printed. Of a section these are: the rows of the
tables that it links; the facts of their pages; published.json, and the formulas of derived.json, under its heading; and as
settings the numbers of configs and of the commands that are shown. A row of a table must be one row of a JSON.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
NUMBER = re.compile(r"(?<![\w.^/-])-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w^]|\.\d)")
FUNCTIONS = {"log2": math.log2, "sqrt": math.sqrt, "min": min, "max": max}


@dataclass(frozen=True)
class Printed:
    """A number as it is printed, and how far what it stands for may be from it."""

    text: str
    value: float
    half: float  # of the unit of its last figure

    @classmethod
    def of(cls, text: str, unit: str = "") -> "Printed":
        mantissa, _, exponent = text.replace(",", "").partition("e")
        scale = 10.0 ** int(exponent or 0) / (100 if unit == "%" else 1)
        decimals = len(mantissa.partition(".")[2])
        return cls(text + unit, float(mantissa) * scale, 0.5 * 10.0**-decimals * scale)

    def is_one_of(self, numbers: set[float]) -> bool:
        return any(abs(number - self.value) <= self.half * (1 + 1e-6) for number in numbers)


def numbers_in(text: str) -> list[Printed]:
    """The numbers of prose, without code, and without where its links lead."""
    plain = re.sub(r"`[^`]*`|!?\[([^]]*)\]\([^)]*\)", lambda found: found[1] or " ", text)
    units = [plain[found.end() :].lstrip()[:1] for found in NUMBER.finditer(plain)]
    return [Printed.of(text, "%" if unit == "%" else "") for text, unit in zip(NUMBER.findall(plain), units, strict=True)]


def leaves(node: object) -> Iterator[float]:
    """All numbers in a JSON or yaml, those in its texts and names of columns too."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from (float(found) for found in re.findall(r"\d+", str(key)))
            yield from leaves(value)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value)
    elif isinstance(node, str):
        yield from (float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", node))
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield float(node)


def rows_of(name: str) -> list[dict]:
    rows = json.loads((RESULTS / f"{name}.json").read_text())
    sizes = json.loads((RESULTS / "model_sizes.json").read_text())
    own = {size["row"]: {"parameters": size["parameters"]} for size in sizes if size["experiment"] == name}
    return [own.get(row.get("row"), {}) | row for row in rows]


def formula(entry: dict) -> float:
    """What an entry of derived.json says, of the rows that it names: name -> [table, words of the row, column]."""
    values = {}
    for letter, (table, words, column) in entry["of"].items():
        (row,) = [row for row in rows_of(table) if all(row.get(key) == word for key, word in words.items())]
        values[letter] = row[column]
    return eval(entry["formula"], {"__builtins__": {}, **FUNCTIONS}, values)


class Section:
    """The text under a heading, and the numbers that it may print."""

    def __init__(self, heading: str, text: str):
        lines = text.splitlines()
        self.heading = heading
        names = dict.fromkeys(re.findall(r"\(results/(\w+)\.(?:md|json)\)", text))
        self.names = [name for name in names if (RESULTS / f"{name}.json").exists() and name not in ("derived", "published")]
        self.table = [line for line in lines if self.names and re.match(r"\| .*\d", line)]
        code = [line for line in lines if line.startswith("    ")]
        self.prose = "\n".join(line for line in lines if line not in self.table and line not in code)
        entries = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ("published", "derived")}
        mine = {name: [e for e in found if heading.startswith(e["section"])] for name, found in entries.items()}
        self.rows = [set(leaves(row)) for name in self.names for row in rows_of(name)]
        self.rows += [set(entry["values"]) for entry in mine["published"]]
        self.measured = set().union(*self.rows, {formula(entry) for entry in mine["derived"]})
        self.settings = set(leaves(code)) | set(leaves(re.findall(r"`[^`]*`", text)))
        for name in self.names:
            page = RESULTS / f"{name}.md"
            self.settings |= set(leaves(page.read_text().splitlines())) if page.exists() else set()
            for config in [
                ROOT / "conf" / "experiment" / f"{name}.yaml",
                *(ROOT / "conf" / "experiment" / name).glob("*.yaml"),
            ]:
                self.settings |= set(leaves(yaml.safe_load(config.read_text()))) if config.exists() else set()
        for config in sorted((ROOT / "conf" / "data").glob("*.yaml")):
            self.settings |= set(leaves(yaml.safe_load(config.read_text())))

    def unknown(self) -> list[str]:
        """What is printed here and found nowhere."""
        lost = [
            number.text
            for number in numbers_in(self.prose)
            if not (number.is_one_of(self.measured) if number.half < 0.5 or abs(number.value) >= 20 else False)
            and number.value not in self.settings | self.measured
        ]
        for line in self.table:
            cells = "|".join(line.split("|")[2:])
            if not any(all(number.is_one_of(row) for number in numbers_in(cells)) for row in self.rows):
                lost.append(line)
        return lost


def sections_of(page: Path) -> list[Section]:
    heading, *rest = re.split(r"^## (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return [Section("", heading), *(Section(*pair) for pair in zip(rest[::2], rest[1::2], strict=True))]


@pytest.mark.parametrize("section", sections_of(ROOT / "docs" / "results.md"), ids=lambda section: section.heading[:20])
def test_every_number_of_the_page_of_results_is_in_a_json_beside_it(section: Section) -> None:
    assert section.unknown() == []


def test_every_number_of_the_readme_is_known() -> None:
    python = set(leaves((ROOT / "pyproject.toml").read_text()))
    for section in sections_of(ROOT / "README.md"):
        section.settings |= python
        entries = json.loads((RESULTS / "published.json").read_text())
        section.measured.update(value for entry in entries if entry["section"] == "README" for value in entry["values"])
        assert section.unknown() == []


def test_a_number_that_is_not_measured_is_found_out() -> None:
    body = next(section for section in sections_of(ROOT / "docs" / "results.md") if "heat kernel" in section.heading)
    assert body.unknown() == []
    spoilt = Section(body.heading, body.prose.replace("3.0e-5", "3.2e-5"))
    assert spoilt.unknown() == ["3.2e-5"]
    assert Printed.of("90.1", "%").is_one_of({0.9014}) and not Printed.of("90.1", "%").is_one_of({0.9004, 90.1})
