"""The wheel carries conf/ as heatgen/conf; an editable install reads it where it stands. The rest is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """The packages, and conf/ beside them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("conf", Path(self.build_lib, "heatgen", "conf"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConf})
