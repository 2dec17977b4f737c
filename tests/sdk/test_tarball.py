"""The npm package as others get it: what is in it, how it is typed for whom, and that it runs however it is loaded."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

import proxy
from tests.sdk.packages import MODULES, OLDEST_NODE, TSC, TYPESCRIPT_SDK, install_tarball, run
from tests.sdk.runner import ROOT, Place, list_outcomes, load_scenarios
from tests.sdk.typescript import NODE, run_scenarios

CONSUMER = Path(__file__).with_name("consumer.ts")
STRICT = (
    "--noEmit", "--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--target", "es2022",
)  # fmt: skip
MCP = "@modelcontextprotocol/client"
# Where a program runs says which types of the platform it knows.
IN_NODE = ("--lib", "es2022", "--types", "node")
IN_BROWSERS = ("--lib", "es2022,dom,dom.iterable,dom.asynciterable")
NODENEXT = ("--module", "nodenext")
NODE16 = ("--module", "node16")
BUNDLER = ("--module", "esnext", "--moduleResolution", "bundler")
PROJECTS = {
    "nodenext, module": ("module", *NODENEXT, *IN_NODE),
    "nodenext, commonjs": ("commonjs", *NODENEXT, *IN_NODE),
    "node16, module": ("module", *NODE16, *IN_NODE),
    "node16, commonjs": ("commonjs", *NODE16, *IN_NODE),
    "bundler": ("module", *BUNDLER, *IN_NODE),
    "bundler, for browsers": ("module", *BUNDLER, *IN_BROWSERS),
}
LOADED = {
    "module": 'import { AegisClient, ConfigurationError } from "@aegis/sdk";\n',
    "commonjs": 'const { AegisClient, ConfigurationError } = require("@aegis/sdk");\n',
}


@pytest.fixture(scope="module")
def project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the package, the types of Node.js, and nothing else."""
    folder = tmp_path_factory.mktemp("project")
    install_tarball(tarball, folder, "@types/node")
    return folder


def write_program(project: Path, kind: str, name: str, text: str) -> Path:
    """Its folder in the project, in which all programs are of this kind."""
    folder = project / kind
    folder.mkdir(exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"type": kind}))
    (folder / name).write_text(text)
    return folder


def check_types(folder: Path, name: str, *options: str) -> str:
    return run("node", TSC, *STRICT, *options, name, cwd=folder)


def test_the_tarball_holds_what_is_compiled_its_sources_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        files = {member.name.removeprefix("package/"): archive.extractfile(member) for member in archive}
        texts = {name: file.read().decode() for name, file in files.items() if file is not None}
    sources = {path.stem for path in (TYPESCRIPT_SDK / "src").glob("*.ts")}
    compiled = {
        f"dist/{kind}/{source}{end}"
        for kind in ("esm", "cjs")
        for source in sources
        for end in (".js", ".js.map", ".d.ts", ".d.ts.map")
    }
    beside = {"package.json", "dist/cjs/package.json", "README.md", "LICENSE"}
    assert texts.keys() == {*compiled, *beside, *(f"src/{source}.ts" for source in sources)}
    for name, text in texts.items():
        assert str(tarball.parent) not in text
        assert str(ROOT) not in text
        if name.endswith(".map"):
            (source,) = json.loads(text)["sources"]
            assert source == f"../../src/{Path(name).name.partition('.')[0]}.ts"


def test_it_depends_on_nothing(tarball: Path, project: Path) -> None:
    assert {path.name for path in (project / "node_modules").iterdir()} == {"@aegis", "@types", ".package-lock.json"}


def test_no_resolution_takes_its_types_for_what_they_are_not(tarball: Path) -> None:
    said = run("node", MODULES / "@arethetypeswrong" / "cli" / "dist" / "index.js", tarball, cwd=tarball.parent)
    assert "No problems found" in said


@pytest.mark.parametrize("name", PROJECTS)
def test_a_strictly_checked_project_can_rely_on_its_types(project: Path, name: str) -> None:
    """The peer is not installed: types of it must not be missed, either."""
    kind, *options = PROJECTS[name]
    folder = write_program(project, kind, CONSUMER.name, CONSUMER.read_text())
    assert check_types(folder, CONSUMER.name, *options, "--skipLibCheck", "false") == ""


def test_what_its_readme_shows_has_no_faults(project: Path) -> None:
    blocks = re.findall(r"^```ts\n(.*?)^```", (TYPESCRIPT_SDK / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 1
    folder = write_program(project, "module", "readme.ts", "".join(blocks))
    assert check_types(folder, "readme.ts", *NODENEXT, *IN_NODE) == ""


@pytest.mark.parametrize("kind", LOADED)
def test_a_session_has_the_types_of_the_official_client(tarball: Path, tmp_path: Path, kind: str) -> None:
    install_tarball(tarball, tmp_path, "@types/node", MCP)
    text = (
        f'import {{ AegisClient }} from "@aegis/sdk";\nimport {{ Client }} from "{MCP}";\n'
        "export const session: Promise<Client> = new AegisClient().mcp();\n"
        "// @ts-expect-error\nsession.then((client) => client.moods);\n"
    )
    folder = write_program(tmp_path, kind, "program.ts", text)
    assert check_types(folder, "program.ts", *NODENEXT, *IN_NODE, "--skipLibCheck") == ""


@pytest.mark.parametrize("node", [NODE, OLDEST_NODE], ids=["newest", "oldest"])
@pytest.mark.parametrize("kind", LOADED)
def test_it_runs_however_it_is_loaded(project: Path, place: Place, kind: str, node: Path) -> None:
    place.ask("begin")
    key = place.ask("key", {"preset": "read-only"})["key"]
    text = (
        LOADED[kind]
        + "(async () => {\n"
        + '  const agent = await new AegisClient().agents.lookup("invoice-reader");\n'
        + "  console.log(agent.name);\n"
        + "  await new AegisClient().mcp().catch((error) => {\n"
        + "    if (error instanceof ConfigurationError) console.log(error.message);\n"
        + "  });\n"
        + "})();\n"
    )
    folder = write_program(project, kind, "program.js", text)
    said = run(node, "program.js", cwd=folder, AEGIS_API_KEY=key, AEGIS_BASE_URL=place.base_url)
    agent, missing = said.splitlines()
    assert agent == "invoice-reader"
    assert f"npm install {MCP}" in missing


def test_however_it_is_loaded_it_has_the_same_names(project: Path) -> None:
    """ESM and CommonJS are two compilations of one source: what one of them exports, the other does."""
    text = (
        'import { createRequire } from "node:module";\nimport * as esm from "@aegis/sdk";\n'
        'const cjs = createRequire(import.meta.url)("@aegis/sdk");\n'
        "console.log(JSON.stringify([Object.keys(esm).sort(), Object.keys(cjs).sort(), esm.VERSION]));\n"
    )
    folder = write_program(project, "module", "names.js", text)
    esm, cjs, version = json.loads(run("node", "names.js", cwd=folder))
    assert esm == cjs
    assert "AegisClient" in esm
    assert version == proxy.__version__


def test_the_reference_can_be_made_and_says_what_everything_is_for(tmp_path: Path) -> None:
    """Its own settings make a fault of what is public and has no description."""
    run("npm", "run", "--silent", "reference", "--", "--out", tmp_path, cwd=TYPESCRIPT_SDK)
    assert "smallestSufficient" in (tmp_path / "classes" / "PermissionDeniedError.html").read_text()


def test_the_oldest_node_is_the_one_that_is_promised() -> None:
    promised = json.loads((TYPESCRIPT_SDK / "package.json").read_text())["engines"]["node"]
    (major,) = re.findall(r"^v(\d+)", run(OLDEST_NODE, "--version", cwd=ROOT))
    assert promised == f">={major}"


def test_the_suite_goes_as_it_says_on_the_oldest_node_too(tarball: Path, place: Place, tmp_path: Path) -> None:
    """It knows no types, so that the runner is compiled for it; the SDK is the one that was installed."""
    install_tarball(tarball, tmp_path, MCP)
    emitting = ("--noEmit", "false", "--noCheck", "--rewriteRelativeImportExtensions", "--outDir", tmp_path)
    run("node", TSC, "-p", TYPESCRIPT_SDK, *emitting, cwd=tmp_path)
    (tmp_path / "tests" / "package.json").write_text(json.dumps({"type": "module"}))
    scenarios = load_scenarios()
    table = run_scenarios(place, scenarios, OLDEST_NODE, tmp_path / "tests" / "runner.js")
    assert table == {name: list_outcomes(steps) for name, steps in scenarios.items()}
