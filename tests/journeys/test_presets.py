"""What each kind of key can do, told by the official client over real sockets."""

from __future__ import annotations

import pytest
from mcp import MCPError

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from tests.staging import Stage, connect, get_mcp_url

ERAS = ["auto", "legacy", "2026-07-28"]
MANIFEST = "kind: Workflow\nmetadata:\n  name: brand-new\n"
# tool and arguments, by what it takes to call it
CALLS = {
    "read": ("aegis.workflow.export", {"name": "nightly-etl"}),
    "run": ("aegis.workflow.run", {"name": "nightly-etl"}),
    "create": ("aegis.workflow.create", {"manifest_yaml": MANIFEST}),
    "manage": ("aegis.workflow.delete", {"name": "report-weekly"}),
}
ALLOWED = {
    "read-only": {"read"},
    "execution": {"read", "run"},
    "developer": {"read", "run", "create"},
    "full-access": {"read", "run", "create", "manage"},
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("preset", ALLOWED)
async def test_a_preset_opens_what_it_promises_and_nothing_else(
    preset: str, era: str, stage: Stage, proxy: Proxy
) -> None:
    key = await stage.mint(preset, tier="enterprise")
    async with connect(get_mcp_url(proxy), key.token, era) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        for kind, (tool, arguments) in CALLS.items():
            if kind in ALLOWED[preset]:
                assert tool in listed
                assert not (await client.call_tool(tool, arguments)).is_error
            else:
                assert tool not in listed
                with pytest.raises(MCPError, match=rf"(?s){tool}.*scope"):
                    await client.call_tool(tool, arguments)


@pytest.mark.parametrize("era", ERAS)
async def test_a_key_for_one_workflow_sees_one_tool_of_its_kind_and_runs_that_workflow_only(
    era: str, stage: Stage, proxy: Proxy, sample: SampleServer
) -> None:
    key = await stage.mint(scopes=("workflow:run:nightly-etl",))
    async with connect(get_mcp_url(proxy), key.token, era) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        assert "aegis.workflow.run" in listed
        assert not {name for name in listed if name.startswith(("aegis.agent.", "aegis.volume.", "aegis.workflow.d"))}
        assert not (await client.call_tool("aegis.workflow.run", {"name": "nightly-etl"})).is_error
        with pytest.raises(MCPError, match="workflow:run:report-weekly"):
            await client.call_tool("aegis.workflow.run", {"name": "report-weekly"})
    assert sample.platform.runs.started == 1


async def test_resources_and_prompts_are_listed_by_the_same_decision(stage: Stage, proxy: Proxy) -> None:
    reader = await stage.mint("read-only")
    runner = await stage.mint(scopes=("workflow:run",))
    async with connect(get_mcp_url(proxy), reader.token) as client:
        assert (await client.list_resources()).resources
    async with connect(get_mcp_url(proxy), runner.token) as client:
        assert not (await client.list_resources()).resources
