"""The links of the documentation lead somewhere, and what its page of maps shows exists."""

import re
from pathlib import Path
from pydoc import locate

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_links_and_pictures_exist() -> None:
    broken = []
    for page in PAGES:
        links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link]
        broken += [f"{page.relative_to(ROOT)}: {link}" for link in links if not (page.parent / link).exists()]
    assert broken == []


def test_every_map_of_the_page_of_maps_exists_and_has_a_picture() -> None:
    shown = re.findall(r"\*\*(\w+)\*\*: ", (ROOT / "docs" / "forward_maps.md").read_text())
    assert len(shown) > 10
    for name in shown:
        assert (ROOT / "conf" / "forward" / f"{name}.yaml").exists(), name
        with Image.open(ROOT / "docs" / "forward" / f"{name}.png") as picture:
            assert picture.width > 2 * picture.height, name  # eleven states of four images


def test_what_the_reference_shows_exists() -> None:
    names = [name for page in PAGES for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    assert len(names) > 20 and [name for name in names if locate(name) is None] == []
