"""Run the check on a GPU from a copy of the tree, where nothing is installed but torch and Triton.

``python benchmarks/gpu/run_from_tree.py --out reports/gpu`` links the folders of the tree as the
package has them into a temporary folder and runs `check` from there, with the same arguments;
``--module NAME`` before them runs another module, ``inpaint_ops.NAME``. Nothing is built: without
the C++ extension the CPU has the reference path, and the GPU its kernels. This file imports
nothing of the package, which has no place to be imported from before.
"""

import os
import runpy
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Folders of the top level that are installed inside the package, as setup.py has them.
INNER = ("kernels", "models", "benchmarks")
_CHECK = "benchmarks.gpu.check"


def link_package(folder: Path) -> None:
    """Make ``folder/inpaint_ops`` of links to what the tree holds."""
    package = folder / "inpaint_ops"
    package.mkdir()
    for source in (ROOT / "inpaint_ops").iterdir():
        if source.name != "__pycache__":
            (package / source.name).symlink_to(source)
    for name in INNER:
        (package / name).symlink_to(ROOT / name)


def main(arguments: list[str]) -> int:
    """Run `check`, or the module asked for; return its exit status."""
    module = _CHECK
    if arguments[:1] == ["--module"]:
        module, arguments = arguments[1], arguments[2:]
    with tempfile.TemporaryDirectory() as folder:
        link_package(Path(folder))
        # In front of an installed copy and of the tree, for the processes of the steps too.
        sys.path[0] = folder
        others = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{others}" if others else folder
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(f"inpaint_ops.{module}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
