"""What mkdocs does not do by itself: the options of a group from conf/, and links to the notebooks."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = re.compile(r"^<!-- options of (\S+) -->$", re.M)  # becomes a section for each conf/<group>/<name>.yaml


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the notebooks into the site, as files to download."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with its links as they are in the site, which has no folders to look into, and the options that it asks for."""
    for here, there in (("](../notebooks/", "](notebooks/"), ("](results)", "](results.md)")):
        markdown = markdown.replace(here, there)
    return OPTIONS.sub(lambda found: options_of(found[1]), markdown)


def options_of(group: str) -> str:
    """A section for each option of a group: its yaml, whose comments explain the keys, and the docstring of its code."""
    sections, shown = [], set()
    before = f"{group.split('/')[-1]}=" if "/" in group else ""  # of the parts of a map or network
    for path in sorted((ROOT / "conf" / group).glob("[!_]*.yaml")):
        text = path.read_text().strip()
        target = re.search(r"^ *_target_: (heatgen\.\S+)", text, re.M)
        sections.append(f'## {before}{path.stem}\n\n```yaml title="conf/{group}/{path.name}"\n{text}\n```\n')
        if target and target[1] not in shown:
            shown.add(target[1])
            sections.append(f"::: {target[1]}\n")
    assert sections, f"conf/{group} has no options"
    return "\n".join(sections)
