"""What MCP clients see of the sample platform, met by the official one over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from mcp.shared.exceptions import MCPError

from proxy.demo.sample_server import SampleServer, run_sample_server
from tests.demo.callers import ERAS, call, call_in_vain, connect

# Every tool of the platform with its arguments; * required.
TABLE = """
aegis.agent.list
aegis.agent.search query* tenant_id limit
aegis.agent.export name*
aegis.agent.logs agent_id* limit offset
aegis.agent.create manifest_yaml* force
aegis.agent.update manifest_yaml* force
aegis.agent.generate input attachments
aegis.agent.delete agent_id*
aegis.agent.wait execution_id* timeout_seconds
aegis.task.execute agent_id intent input version attachments
aegis.task.list agent_id limit
aegis.task.status execution_id*
aegis.task.wait execution_id* timeout_seconds
aegis.task.logs execution_id* limit offset
aegis.task.cancel execution_id*
aegis.task.remove execution_id*
aegis.workflow.list tenant_id scope user_id
aegis.workflow.search query* tenant_id limit
aegis.workflow.export name*
aegis.workflow.validate manifest_yaml*
aegis.workflow.create manifest_yaml* force
aegis.workflow.update manifest_yaml* force
aegis.workflow.generate input*
aegis.workflow.delete name*
aegis.workflow.run name* intent input blackboard version tenant_id
aegis.workflow.status execution_id*
aegis.workflow.wait execution_id* timeout_seconds
aegis.workflow.logs execution_id* limit offset
aegis.workflow.executions.get execution_id*
aegis.workflow.executions.list workflow_id limit
aegis.workflow.cancel execution_id*
aegis.workflow.signal execution_id* response*
aegis.workflow.remove execution_id*
aegis.workflow.promote name* target_scope tenant_id user_id
aegis.workflow.demote name* target_scope tenant_id user_id
aegis.execute.intent volume_id* intent inputs language timeout_seconds
aegis.execute.status pipeline_execution_id*
aegis.execute.wait pipeline_execution_id* timeout_seconds
aegis.execution.file execution_id* path*
aegis.volume.list
aegis.volume.create label* size_limit_bytes*
aegis.volume.delete volume_id*
aegis.volume.quota
aegis.file.list volume_id* path
aegis.file.read volume_id* path*
aegis.file.write volume_id* path* content*
aegis.file.mkdir volume_id* path*
aegis.file.delete volume_id* path*
aegis.attachment.read volume_id* path*
aegis.git.clone repo_url* label* credential_binding_id git_ref sparse_paths auto_refresh shallow
aegis.git.list page limit
aegis.git.status binding_id*
aegis.git.refresh binding_id*
aegis.git.diff binding_id* staged
aegis.git.commit binding_id* message*
aegis.git.push binding_id* remote ref
aegis.git.delete binding_id*
aegis.script.list tag q
aegis.script.get id*
aegis.script.save name* code* description tags
aegis.script.update id* name* code* description tags
aegis.script.delete id*
aegis.schema.get key*
aegis.schema.validate kind* manifest_yaml*
aegis.runtime.list
aegis.tools.list limit offset
aegis.tools.search query limit
aegis.system.info
aegis.system.config
aegis.edge.fleet.list target*
aegis.edge.fleet.invoke target* tool_name* args
aegis.edge.fleet.cancel fleet_command_id*
"""


@pytest.fixture
async def server() -> AsyncIterator[SampleServer]:
    async with run_sample_server(run_seconds=0) as running:
        yield running


@pytest.mark.parametrize("mode", ERAS)
async def test_every_tool_of_the_platform_is_listed_with_its_arguments(server: SampleServer, mode: str) -> None:
    async with connect(server, mode) as client:
        assert (client.protocol_version == "2026-07-28") is (mode != "legacy")
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert [*listed] == [line.split()[0] for line in TABLE.split("\n") if line]
    for line in filter(None, TABLE.split("\n")):
        name, *arguments = line.split()
        schema = listed[name].input_schema
        assert set(schema["properties"]) == {argument.rstrip("*") for argument in arguments}
        assert set(schema.get("required", [])) == {argument[:-1] for argument in arguments if argument.endswith("*")}
        assert listed[name].description


async def test_arguments_have_the_types_of_the_platform(server: SampleServer) -> None:
    async with connect(server) as client:
        listed = {tool.name: tool.input_schema["properties"] for tool in (await client.list_tools()).tools}
    assert listed["aegis.workflow.run"]["name"]["type"] == "string"
    assert {"type": "object", "additionalProperties": True} in listed["aegis.workflow.run"]["input"]["anyOf"]
    assert listed["aegis.agent.create"]["force"]["type"] == "boolean"
    assert listed["aegis.agent.logs"]["limit"]["type"] == "integer"


async def test_volumes_and_files_are_really_kept_and_seen_as_resources(server: SampleServer) -> None:
    async with connect(server) as client:
        volume = (await call(client, "aegis.volume.create", label="notes", size_limit_bytes=10))["id"]
        await call(client, "aegis.file.write", volume_id=volume, path="/a/b c.txt", content="hello")
        assert "quota" in await call_in_vain(
            client, "aegis.file.write", volume_id=volume, path="/x", content="far too long"
        )
        uris = [resource.uri for resource in (await client.list_resources()).resources]
        assert uris[-1] == f"aegis://volumes/{volume}/a/b%20c.txt"
        assert "hello" in str((await client.read_resource(uris[-1])).contents)
        await call(client, "aegis.file.delete", volume_id=volume, path="/a")
        assert "there is no file" in await call_in_vain(client, "aegis.file.read", volume_id=volume, path="/a/b c.txt")
        await call(client, "aegis.volume.delete", volume_id=volume)
        with pytest.raises(MCPError, match="there is no volume"):
            await client.read_resource(uris[-1], cache_mode="bypass")
        templates = (await client.list_resource_templates()).resource_templates
    assert [template.uri_template for template in templates] == ["aegis://volumes/{volume}/{+path}"]


@pytest.mark.parametrize("mode", ERAS)
async def test_unknown_tools_names_and_arguments_get_errors_a_model_can_read(server: SampleServer, mode: str) -> None:
    async with connect(server, mode) as client:
        assert "Unknown tool: aegis.nothing" in await call_in_vain(client, "aegis.nothing")
        answer = await call_in_vain(client, "aegis.workflow.run", name="nightly")
        assert "there are: nightly-etl, onboard-customer, report-weekly" in answer
        assert "Field required" in await call_in_vain(client, "aegis.workflow.run")


async def test_the_prompt_tells_what_an_execution_did(server: SampleServer) -> None:
    async with connect(server) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["explain-execution"]
        run = await call(client, "aegis.workflow.run", name="nightly-etl")
        prompt = await client.get_prompt("explain-execution", {"execution_id": run["execution_id"]})
        assert "step 30 of 30 done" in str(prompt.messages[0].content)
        with pytest.raises(MCPError, match="there is no execution"):
            await client.get_prompt("explain-execution", {"execution_id": "x"})
        with pytest.raises(MCPError, match="there is no prompt"):
            await client.get_prompt("other")
