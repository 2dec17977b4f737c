"""The packages as others get them: built, installed into empty folders, and programs run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.sdk import typescript
from tests.sdk.runner import ROOT

PYTHON_SDK = ROOT / "sdk" / "python"
TYPESCRIPT_SDK = typescript.SDK
MODULES = TYPESCRIPT_SDK / "node_modules"
# Node.js and npm are beside our Python; the oldest Node.js that has to do is in a place of its own.
BINARIES = Path(sys.executable).parent
OLDEST_NODE = Path(__file__).with_name("oldest_node") / "node_modules" / ".bin" / "node"
TSC = MODULES / "typescript" / "bin" / "tsc"


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """What a program says that ends well, in an environment that knows nothing of this repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AEGIS_", "PYTHON"))}
    path = os.pathsep.join((str(BINARIES), os.environ["PATH"]))
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd, env={**kept, "PATH": path, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(directory: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=PYTHON_SDK)
    (built,) = directory.glob("*.whl")
    return built


def install_wheel(wheel: Path, environment: Path) -> Path:
    """The Python of an environment that has the wheel, and what it needs from this one."""
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=environment)
    return python


def build_tarball(directory: Path) -> Path:
    """What npm would publish of the sources as they are now, compiled beside them and not among them."""
    assert MODULES.is_dir(), "make .venv/.stamps/node_modules"
    source = directory / "source"
    shutil.copytree(TYPESCRIPT_SDK, source, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (source / "node_modules").symlink_to(MODULES)
    run("npm", "run", "--silent", "build", cwd=source)
    run("npm", "pack", "--silent", "--pack-destination", directory, cwd=source)
    (built,) = directory.glob("*.tgz")
    return built


def install_tarball(tarball: Path, project: Path, *needed: str) -> None:
    """Into an empty folder: it, nothing it would have to ask a registry for, and what is `needed` from our own."""
    run("npm", "install", "--silent", "--offline", tarball, cwd=project)
    for name in needed:
        place = project / "node_modules" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(MODULES / name)
