"""The fixture server of the conformance suite, met by the official client. The suite itself: `make conformance`."""

from __future__ import annotations

from collections.abc import Iterator

import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from proxy.identity import Owner, OwnerId
from tests.conformance.client import connect
from tests.conformance.server import PROMPTS, TOOLS
from tests.conformance.stage import find_policy, run_fixture_server

ERAS = pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "modern"])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with run_fixture_server() as url:
        yield url


def get_text(result: types.CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, types.TextContent)
    return content.text


@ERAS
async def test_everything_the_suite_asks_for_by_name_is_listed(url: str, legacy: bool) -> None:
    async with connect(url, None, legacy=legacy) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == set(TOOLS)
        assert {prompt.name for prompt in (await client.list_prompts()).prompts} == set(PROMPTS)
        for resource in (await client.list_resources()).resources:
            assert (await client.read_resource(resource.uri)).contents[0].uri == resource.uri


@ERAS
async def test_resources_come_from_a_template_or_not_at_all(url: str, legacy: bool) -> None:
    async with connect(url, None, legacy=legacy) as client:
        [filled] = (await client.read_resource("test://template/7/data")).contents
        assert isinstance(filled, types.TextResourceContents)
        assert "Data for ID: 7" in filled.text
        with pytest.raises(MCPError) as refused:
            await client.read_resource("test://template/7/other")
        assert refused.value.code == (-32002 if legacy else types.INVALID_PARAMS)


async def test_before_2026_07_28_the_server_asks_the_client_by_requests_of_its_own(url: str) -> None:
    async with connect(url, None, legacy=True) as client:
        assert get_text(await client.call_tool("test_sampling", {"prompt": "hello"})) == "LLM response: Sampled."
        answer = get_text(await client.call_tool("test_elicitation_sep1034_defaults"))
        assert "action=accept" in answer
        assert "John Doe" in answer


async def test_a_call_whose_stream_the_server_closes_is_answered_to_who_comes_back(url: str) -> None:
    async with connect(url, None, legacy=True) as client:
        assert get_text(await client.call_tool("test_reconnection")) == "Reconnection test completed"


@pytest.mark.parametrize("name", [name for name in TOOLS if name.startswith("test_input_required_result_")])
async def test_since_2026_07_28_the_server_asks_in_rounds_until_all_is_answered(url: str, name: str) -> None:
    async with connect(url, None, legacy=False) as client:
        assert get_text(await client.call_tool(name)) == "All questions are answered: state-ok."


async def test_a_tool_that_needs_tasks_is_refused_to_a_client_that_knows_none(url: str) -> None:
    async with connect(url, None, legacy=False) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("failing_job")
        assert refused.value.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY


def test_the_policy_of_the_run_has_a_rule_for_every_fixture() -> None:
    policy = find_policy()
    match = policy.find_route("/mcp")
    assert match is not None
    grants = frozenset({"*"})
    owner = Owner(OwnerId("ada"), "acme", "local", "ada", "everything")
    assert all(policy.may_list(match, "tool", name, grants, owner) for name in TOOLS)
    assert all(policy.may_list(match, "prompt", name, grants, owner) for name in PROMPTS)
