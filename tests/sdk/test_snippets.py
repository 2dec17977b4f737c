"""What the key page shows of the SDKs runs as it is printed there, installation and all, in empty folders."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import sys
import sysconfig
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path

import aiohttp
from aiohttp import web

from proxy.client_setups import PLACEHOLDER
from proxy.server import Proxy
from tests.console.browser import Browser
from tests.sdk.packages import run
from tests.staging import Stage

CONNECT = "/settings/api-keys/connect"


def read_off(page: str, title: str) -> tuple[str, str, str, str]:
    """Of one client's part of the page: what the shell is given, the program, its file, and what starts it."""
    (part,) = [each for each in page.split("<details") if f"<summary>{title}</summary>" in each]
    shell, program = (unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", part, re.DOTALL))
    (file,) = re.findall(r"In <code>(.*?)</code>", part)
    (command,) = re.findall(r'<p class="note">Says the key&#39;s name: (.*?)</p>', part)
    return shell, program, file, command


async def run_as_printed(
    title: str, folder: Path, stage: Stage, proxy: Proxy, http: aiohttp.ClientSession, **environ: str
) -> str:
    """What the program says, with a new key put where the page's script puts it."""
    browser = Browser(http, proxy)
    await browser.sign_in((await stage.mint("full-access", name="admin")).token)
    key = await stage.mint("read-only", name="my first key")
    shell, program, file, command = read_off((await browser.get(CONNECT)).text, title)
    assert program.count(PLACEHOLDER) == 1
    assert str(proxy.data_address) in shell
    (folder / file).write_text(program.replace(PLACEHOLDER, key.token))
    return await asyncio.to_thread(run, "sh", "-ec", f"{{\n{shell}}} >&2\n{command}", cwd=folder, **environ)


@asynccontextmanager
async def run_npm_registry(tarball: Path) -> AsyncIterator[str]:
    """A registry of npm's that has one package, which others would get from theirs. Its address."""
    content = tarball.read_bytes()
    with tarfile.open(tarball) as archive:
        member = archive.extractfile("package/package.json")
        assert member is not None
        described = json.load(member)

    async def answer(request: web.Request) -> web.Response:
        if request.path == f"/{tarball.name}":
            return web.Response(body=content)
        if request.path != f"/{described['name']}":
            return web.Response(status=404)
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        dist = {"tarball": f"{request.url.origin()}/{tarball.name}", "integrity": integrity}
        version = described["version"]
        versions = {version: {**described, "dist": dist}}
        return web.json_response({"name": described["name"], "dist-tags": {"latest": version}, "versions": versions})

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_snippet_in_python_runs_as_printed(
    wheel: Path, stage: Stage, proxy: Proxy, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    folder, environment = tmp_path / "empty", tmp_path / "environment"
    folder.mkdir()
    await asyncio.to_thread(run, sys.executable, "-m", "venv", environment, cwd=tmp_path)
    # What the package needs is taken from our own environment, and it itself from where it was built.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    path = os.pathsep.join((str(environment / "bin"), os.environ["PATH"]))
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), "PIP_CONFIG_FILE": os.devnull}
    said = await run_as_printed("Python SDK", folder, stage, proxy, http, PATH=path, **index)
    assert said == "my first key\n"
    assert (site / "aegis_sdk").is_dir()


async def test_the_snippet_in_typescript_runs_as_printed(
    tarball: Path, stage: Stage, proxy: Proxy, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with run_npm_registry(tarball) as registry:
        index = {"npm_config_registry": registry, "npm_config_cache": str(tmp_path / "cache")}
        folder = tmp_path / "empty"
        folder.mkdir()
        said = await run_as_printed("TypeScript SDK", folder, stage, proxy, http, **index)
    assert said == "my first key\n"
    assert (folder / "node_modules" / "@aegis" / "sdk").is_dir()
