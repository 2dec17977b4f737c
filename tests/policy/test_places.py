"""Each rule is found where it was written."""

from __future__ import annotations

from proxy.policy import Policy
from proxy.policy.model import PolicyFile
from proxy.policy.places import Place, list_places
from proxy.policy.source import Source, read_source
from proxy.settings import find_shipped


def read_places(policy: Policy) -> tuple[Source, list[Place]]:
    source = read_source(find_shipped("policy.yaml").read_text(), "policy.yaml")
    return source, list(list_places(PolicyFile.model_validate(source.values), policy))


def test_every_rule_of_the_shipped_policy_has_a_place(policy: Policy) -> None:
    _, places = read_places(policy)
    own = [route for route in policy.routes if route.id != "mcp-sse"]  # whose rules are another route's
    assert {id(place.rule) for place in places} == {id(rule) for route in own for rule in route.rules.list_rules()}


def test_its_line_is_that_of_the_rule_that_names_it(policy: Policy) -> None:
    source, places = read_places(policy)
    lines = find_shipped("policy.yaml").read_text().splitlines()
    tools = [place for place in places if place.kind == "tool"]
    assert len(tools) > 60
    for place in tools:
        line = source.get_line(place.path)
        assert line is not None
        assert place.name in " ".join(lines[line - 1 : line + 5])


def test_a_place_says_in_words_what_it_is_about(policy: Policy) -> None:
    _, places = read_places(policy)
    subjects = {place.subject for place in places}
    assert {"tool aegis.workflow.run", "request DELETE /v1/agents/{id}", "method notifications/*"} <= subjects
    assert "resource aegis://volumes/{volume}/**" in subjects
