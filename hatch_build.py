"""How fastrnn is built: as hatchling does, and with compiled kernels in the wheel.

`pip wheel .` and `pip install .` compile the kernels that every user of this kind of machine would
compile at the first call (`fastrnn/tools/precompile.py`), which takes a minute on two CPUs. The
variable FASTRNN_PRECOMPILE of the environment tells what:

    (not set)       float32 and bfloat16, for all levels of this kind of machine
    release         float64 too
    none            nothing: a wheel for every machine, which compiles at the first call
    LEVEL,LEVEL     all types, for these levels; aarch64 can be told on Linux, whatever runs there

Nothing fails where compiling does: the wheel is then as with `none`, and the build says so. Source
archives and editable installs are hatchling's own.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.build import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
)
from hatchling.build import get_requires_for_build_wheel as _requires
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

ROOT = Path(__file__).resolve().parent
#: What is compiled is what is in the wheel. PYTHONPATH would not do: pip takes from it what an
#: editable install has put on the path, too.
_PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:3]
from fastrnn.tools.precompile import main
main(*sys.argv[3:])
"""


def _asked() -> str:
    return os.environ.get("FASTRNN_PRECOMPILE", "").strip()


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """What hatchling takes to build a wheel, and fastrnn to run, as it compiles its kernels."""
    found: list[str] = _requires(config_settings)
    if _asked() == "none":
        return found
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*found, *project["dependencies"]]


class Kernels(BuildHookInterface):  # type: ignore[type-arg]
    """Puts compiled kernels into a wheel, and tells by its name where it runs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless told not to."""
        if version != "standard" or _asked() == "none":
            return
        self.app.display_info(
            "fastrnn: compiling kernels, so that no first call has to: a minute on two CPUs "
            "(FASTRNN_PRECOMPILE=none leaves them out)"
        )
        self._made = tempfile.TemporaryDirectory()
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, ROOT, ROOT / "kernels", self._made.name, _asked()],
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            self.app.display_warning(
                "fastrnn: kernels could not be compiled here: this wheel compiles at the first call"
            )
            return
        build_data["force_include"][self._made.name] = "fastrnn_kernels/precompiled"
        build_data["pure_python"] = False
        build_data["tag"] = done.stdout.split()[-1]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is in the wheel now."""
        made = getattr(self, "_made", None)
        if made is not None:
            made.cleanup()
