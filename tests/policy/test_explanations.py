"""Explanations: the words of a denial, what would have sufficed, and what the owner's tier never gives."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity import Owner, OwnerId
from proxy.policy import Denied, Policy
from proxy.policy.explanations import explain, form_denial
from proxy.policy.questions import Question, ask
from tests.policy.asking import EXTRA_POLICY, OWNER, enforce

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["within", "one", "ref/prompt"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "arguments", "uri", "ref", "type", "tool", "args", "Name", "notifications"])
            | st.just("resourceSubscriptions"),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
methods = st.sampled_from(["tools/call", "prompts/get", "resources/read", "completion/complete", "x", "\ud800"])


@given(st.sampled_from(["GET", "POST", "PUT"]), methods | st.just("subscriptions/listen") | st.none(), json_values)
def test_whatever_is_asked_is_explained(http: str, rpc: str | None, params: Any) -> None:
    for target in ("/mcp/v1", "/v1/a?tenant_id=x", "/v1/a/../b", "no target"):
        question = Question(http, target, rpc, params)
        explanation = explain(EXTRA_POLICY, question, frozenset({"a:list"}), OWNER)
        assert explanation.decision == ask(EXTRA_POLICY, question, frozenset({"a:list"}), OWNER).decision
        assert explanation.steps
        assert orjson.dumps(explanation.form() | {"trace": [ascii(step) for step in explanation.steps], "why": ""})


def test_a_denial_tells_the_client_just_what_the_explanation_tells(policy: Policy) -> None:
    question = Question("POST", "/mcp/v1", "tools/call", {"name": "aegis.workflow.run", "arguments": {"name": "x"}})
    grants = frozenset({"agent:list"})
    told = explain(policy, question, grants, OWNER).form()
    *_, data = enforce(policy, question, grants)
    assert data == {name: told[name] for name in data}
    assert set(told) - set(data) == {"allowed", "policy", "route", "why", "enough", "beyond_tier", "trace"}


def test_what_is_allowed_says_what_it_rests_on(policy: Policy) -> None:
    question = Question("POST", "/v1/workflows/x/run")
    assert explain(policy, question, frozenset({"workflow:run"}), OWNER).form() == {
        "allowed": True,
        "policy": policy.revision,
        "route": "workflow-run",
        "rule": "workflow-run",
        "rests_on": ["workflow:run:x"],
        "held": ["workflow:run"],
        "trace": [
            "route workflow-run: /v1/workflows/{name}/run with name=x",
            "request POST /v1/workflows/{name}/run is decided by rule workflow-run",
            "it asks for workflow:run:x: held, by workflow:run",
        ],
    }


def test_what_no_single_scope_would_open_names_none() -> None:
    denied = Denied("rule", "why", ("a:b", "c:d"), ("a:b", "c:d"))
    assert form_denial(denied, frozenset({"z:z", "a:a"})) == {
        "rule": "rule",
        "required": ["a:b", "c:d"],
        "missing": ["a:b", "c:d"],
        "held": ["a:a", "z:z"],
        "smallest_sufficient": None,
    }


def call(called: str, /, **arguments: Any) -> Question:
    return Question("POST", "/mcp/v1", "tools/call", {"name": called, "arguments": arguments})


def listen(*uris: str) -> Question:
    params = {"notifications": {"resourceSubscriptions": list(uris)}}
    return Question("POST", "/mcp/v1", "subscriptions/listen", params)


@pytest.mark.parametrize(
    ("question", "smallest", "enough"),
    [
        (call("one", name="x"), "a:run:x", ("a:run:x",)),
        (call("one", name="x" * 300), "a:run", ("a:run",)),  # longer than a key can hold
        (call("one"), None, ()),
        (call("same", name="x"), "a:run", ("a:run",)),
        (call("both", name="x"), None, ("a:run:x", "b:run:x")),
        (call("either", name="x"), "a:run:x", ("a:run:x",)),
        (call("within", name="x", tool="whole"), "a:run", ("a:run",)),
        (call("within", name="x", tool="either", args={"name": "x"}), "a:run:x", ("a:run:x",)),
        (call("within", name="x", tool="either", args={"name": "y"}), "a:run", ("a:run",)),
        (call("within", name="x", tool="both", args={"name": "x"}), None, ("a:run:x", "b:run:x")),
        (call("within", name="x", tool="open.y", args={"tenant_id": "other"}), None, ()),
        (call("hub", name="x", tool="whole"), "a:run", ("a:run",)),
        (call("hub", name="x", tool="other"), "b:run", ("b:run",)),
        (call("open.x", tenant_id="other"), None, ()),
        (listen("note://x"), "a:run:x", ("a:run:x",)),
        (listen("note://x", "note://x"), "a:run:x", ("a:run:x",)),
        (listen("note://x", "note://y"), None, ("a:run:x", "a:run:y")),
        (listen("note://x", "note://y/z"), None, ("a:run:x", "b:run:y")),
        (listen("note://x", "other://y"), None, ()),
        (listen(*(["note://x"] * 1001)), None, ()),
        (Question("GET", "/v1/a?tenant_id=other"), None, ()),
        (Question("POST", "/v1/a/x/run"), "a:run:x", ("a:run:x",)),
    ],
)  # fmt: skip
def test_the_smallest_scope_that_would_have_sufficed_or_the_fewest(
    question: Question, smallest: str | None, enough: tuple[str, ...]
) -> None:
    explanation = explain(EXTRA_POLICY, question, frozenset(), OWNER)
    assert isinstance(explanation.decision, Denied)
    assert (explanation.decision.smallest, explanation.enough) == (smallest, enough)


@pytest.mark.parametrize(
    ("tier", "beyond"), [("free", ("workflow:deploy",)), ("gone", ("workflow:deploy",)), ("pro", ()), ("", ())]
)
def test_what_the_tier_never_gives_is_named_and_said_to_be_beyond_it(
    tier: str, beyond: tuple[str, ...], policy: Policy
) -> None:
    owner = Owner(OwnerId("1"), "acme", "local", "user-1", tier)
    explanation = explain(policy, call("aegis.workflow.create"), frozenset(), owner)
    assert explanation.enough == ("workflow:deploy",)
    assert explanation.beyond_tier == beyond
    said = f"workflow:deploy is more than its owner's tier {tier} allows"
    assert (said in explanation.steps) is bool(beyond)


def test_of_several_scopes_one_that_the_tier_gives_is_enough() -> None:
    owner = Owner(OwnerId("1"), "acme", "local", "user-1", "low")
    explanation = explain(EXTRA_POLICY, call("other-or-list"), frozenset(), owner)
    assert isinstance(explanation.decision, Denied)
    assert (explanation.decision.smallest, explanation.enough) == ("b:run", ("a:list",))
