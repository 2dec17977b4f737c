"""The package as others get it: what is in it, how it is typed, and that the key page's snippet runs from it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import aegis_sdk
from aegis_sdk import AegisClient, AsyncAegisClient
from tests.sdk.runner import ROOT, Place

SDK = ROOT / "sdk" / "python"
CONSUMER = Path(__file__).with_name("consumer.py")
# What the package needs is read once: its own types are in another place each time.
CACHE = ROOT / ".mypy_cache" / "consumer"
RULES = ("--strict", "--warn-unreachable", "--no-error-summary", "--config-file=", f"--cache-dir={CACHE}")
# As the key page prints it, and one call to see that it is one.
SNIPPET = """
from aegis_sdk import AegisClient
client = AegisClient(api_key="{key}")

print(client.agents.lookup("invoice-reader").name)
"""


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AEGIS_", "PYTHON"))}
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env={**kept, **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=SDK)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and what it needs from this one."""
    environment = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=environment)
    return python


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
    source = {
        str(path.relative_to(SDK / "src")) for path in (SDK / "src").rglob("*") if path.suffix in (".py", ".typed")
    }
    assert {name for name in names if ".dist-info/" not in name} == source
    assert "aegis_sdk/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.name == f"aegis_sdk-{aegis_sdk.__version__}-py3-none-any.whl"
    assert "Provides-Extra: mcp" in metadata
    assert "# aegis-sdk" in metadata, "the README is its description"


def test_the_key_pages_snippet_runs_as_printed(installed: Path, place: Place, tmp_path: Path) -> None:
    key = place.ask("key", {"preset": "read-only"})["key"]
    program = tmp_path / "program.py"
    program.write_text(SNIPPET.format(key=key))
    assert run(installed, "-W", "error", program, cwd=tmp_path, AEGIS_BASE_URL=place.base_url) == "invoice-reader\n"
    said = run(installed, "-c", "import aegis_sdk; print(aegis_sdk.__file__)", cwd=tmp_path)
    assert str(installed.parents[1]) in said, "this repository's own was tried, not the installed one"


def test_a_strictly_checked_project_can_rely_on_its_types(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "consumer.py"
    program.write_text(CONSUMER.read_text())
    said = run(sys.executable, "-m", "mypy", *RULES, "--python-executable", installed, program, cwd=tmp_path)
    assert said == ""


def test_without_the_extra_mcp_says_what_to_install(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, sys\nsys.modules['mcp'] = None\nimport aegis_sdk\n"
        "async def main():\n"
        "    try:\n"
        "        async with aegis_sdk.AegisClient('k', 'http://127.0.0.1:1').mcp():\n"
        "            pass\n"
        "    except aegis_sdk.ConfigurationError as error:\n"
        "        print(error)\n"
        "asyncio.run(main())\n"
    )
    assert "aegis-sdk[mcp]" in run(installed, program, cwd=tmp_path)


def test_everything_public_says_what_it_is_for() -> None:
    silent = [name for name in aegis_sdk.__all__ if not inspect.getdoc(getattr(aegis_sdk, name))]
    for client in (AegisClient("k", "http://127.0.0.1"), AsyncAegisClient("k", "http://127.0.0.1")):
        for resource in (client, *(value for name, value in vars(client).items() if not name.startswith("_"))):
            silent += [
                f"{type(resource).__name__}.{name}"
                for name, method in inspect.getmembers(resource, callable)
                if not name.startswith("_") and not inspect.getdoc(method)
            ]
    assert not silent


def test_the_reference_can_be_made(tmp_path: Path) -> None:
    run(sys.executable, "-W", "error", "-m", "pdoc", "aegis_sdk", "-o", tmp_path, cwd=tmp_path,
        PYTHONPATH=str(SDK / "src"))  # fmt: skip
    assert "smallest_sufficient" in (tmp_path / "aegis_sdk.html").read_text()
