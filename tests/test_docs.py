"""The documentation shows every map, and its links lead somewhere."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAPS = sorted(path.stem for path in (ROOT / "conf" / "forward").glob("*.yaml"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", MAPS)
def test_a_map_has_its_words_and_its_picture(name: str) -> None:
    text = (ROOT / "docs" / "forward_maps.md").read_text()
    assert f"**{name}**: " in text and f"(forward/{name}.png)" in text
    with Image.open(ROOT / "docs" / "forward" / f"{name}.png") as picture:
        assert picture.width > 2 * picture.height  # eleven states of four images
    assert f"`{name}`" in (ROOT / "README.md").read_text()


def test_every_published_setting_is_named() -> None:
    text = (ROOT / "README.md").read_text()
    assert [p.stem for p in (ROOT / "conf" / "experiment").glob("*.yaml") if f"`{p.stem}`" not in text] == []
