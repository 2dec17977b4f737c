"""The package as others get it: what is in it, and how it is typed."""

from __future__ import annotations

import inspect
import sys
import zipfile
from pathlib import Path

import aegis_sdk
from aegis_sdk import AegisClient, AsyncAegisClient
from tests.sdk.packages import PYTHON_SDK, run
from tests.sdk.runner import ROOT

CONSUMER = Path(__file__).with_name("consumer.py")
# What the package needs is read once: its own types are in another place each time.
CACHE = ROOT / ".mypy_cache" / "consumer"
RULES = ("--strict", "--warn-unreachable", "--no-error-summary", "--config-file=", f"--cache-dir={CACHE}")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
    source = {
        str(path.relative_to(PYTHON_SDK / "src"))
        for path in (PYTHON_SDK / "src").rglob("*")
        if path.suffix in (".py", ".typed")
    }
    assert {name for name in names if ".dist-info/" not in name} == source
    assert "aegis_sdk/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.name == f"aegis_sdk-{aegis_sdk.__version__}-py3-none-any.whl"
    assert "Provides-Extra: mcp" in metadata
    assert "# aegis-sdk" in metadata, "the README is its description"


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
        PYTHONPATH=str(PYTHON_SDK / "src"))  # fmt: skip
    assert "smallest_sufficient" in (tmp_path / "aegis_sdk.html").read_text()
