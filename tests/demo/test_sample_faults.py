"""What the platform says no to, in the words of either face."""

from __future__ import annotations

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.rest_answers import find_status
from proxy.demo.sample_faults import InTheWay, Missing
from proxy.demo.sample_platform import Platform


@pytest.mark.parametrize(("fault", "status"), [(Missing, 404), (InTheWay, 409), (ToolError, 400)])
def test_each_has_a_status_and_is_an_answer_of_a_tool(fault: type[ToolError], status: int) -> None:
    assert find_status(fault("no")) == status
    assert issubclass(fault, ToolError)


@pytest.mark.parametrize("what", ["definition", "execution", "volume", "repository", "script"])
def test_whatever_is_not_there_is_missing(platform: Platform, what: str) -> None:
    get = getattr(platform, f"get_{what}")
    with pytest.raises(Missing, match=r"there is no .*'x'"):
        get("agent", "x") if what == "definition" else get("x")
