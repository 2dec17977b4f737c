"""Fixtures that ask the client back: by requests of their own up to 2025-11-25, in rounds since 2026-07-28."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mcp_types as types

from tests.conformance.fixtures import Caller, PromptAnswer, PromptFixture, ToolAnswer, ToolFixture, prompt, say

Properties = Mapping[str, Mapping[str, Any]]
Round = Mapping[str, types.InputRequest]

# By requests of the server's own.


async def sample(caller: Caller, params: types.CallToolRequestParams) -> ToolAnswer:
    text = (params.arguments or {}).get("prompt", "")
    message = types.SamplingMessage(role="user", content=types.TextContent(text=text))
    result = await caller.session.create_message([message], max_tokens=100, related_request_id=caller.request_id)
    return say(f"LLM response: {result.content.text if isinstance(result.content, types.TextContent) else ''}")


def elicit(properties: Properties, message: str | None = None) -> Callable[..., Any]:
    """A tool that shows the form, with the message given or the one it is called with, and says what was filled in."""

    async def run(caller: Caller, params: types.CallToolRequestParams) -> ToolAnswer:
        shown = message or (params.arguments or {}).get("message", "")
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        result = await caller.session.elicit_form(shown, schema, related_request_id=caller.request_id)
        return say(f"Elicitation completed: action={result.action}, content={result.content}")

    return run


USER: Properties = {
    "username": {"type": "string", "description": "User's response"},
    "email": {"type": "string", "description": "User's email address"},
}
# Scenario elicitation-sep1034-defaults.
WITH_DEFAULTS: Properties = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
# Scenario elicitation-sep1330-enums: the five ways to offer a choice.
CHOICES = [{"const": f"value{number}", "title": f"Choice {number}"} for number in (1, 2, 3)]
WITH_CHOICES: Properties = {
    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
    "titledSingle": {"type": "string", "oneOf": CHOICES},
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
    "titledMulti": {"type": "array", "items": {"anyOf": CHOICES}},
}


def one_text(name: str) -> Mapping[str, Any]:
    """The schema of a tool with one text argument."""
    return {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}


# In rounds.


def form(message: str, field: str, kind: str = "string") -> types.InputRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(text: str, max_tokens: int) -> types.InputRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=text))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    )


def roots() -> types.InputRequest:
    return types.ListRootsRequest(params=types.RequestParams())


@dataclass(frozen=True, slots=True)
class Rounds:
    """Rounds of questions. `stateful`: how far it has got travels in `requestState`, which the server seals."""

    rounds: Sequence[Round]
    stateful: bool = False

    def ask(self, params: types.InputResponseRequestParams) -> types.InputRequiredResult | None:
        """The next questions; None when all are answered. A round that is not answered whole is asked again."""
        reached = int(params.request_state or 0)
        if self.rounds[reached].keys() <= (params.input_responses or {}).keys():
            reached += 1
        if reached == len(self.rounds):
            return None
        state = str(reached) if self.stateful else None
        return types.InputRequiredResult(input_requests=dict(self.rounds[reached]), request_state=state)

    async def run(self, _caller: Caller, params: types.CallToolRequestParams) -> ToolAnswer:
        return self.ask(params) or say("All questions are answered: state-ok.")

    def run_prompt(self, params: types.GetPromptRequestParams) -> PromptAnswer:
        return self.ask(params) or prompt(types.TextContent(text="All questions are answered."))


async def ask_what_is_declared(caller: Caller, params: types.CallToolRequestParams) -> ToolAnswer:
    """Only what the client says it can do."""
    declared = caller.session.client_capabilities or types.ClientCapabilities()
    questions: dict[str, types.InputRequest] = {}
    if declared.sampling is not None:
        questions["greeting"] = sampling("Generate a greeting", 50)
    if declared.elicitation is not None:
        questions["user_name"] = NAME
    return await Rounds([questions]).run(caller, params)


NAME = form("What is your name?", "name")
CONFIRMATION = form("Please confirm", "ok", "boolean")

TOOLS = (
    ToolFixture("test_sampling", sample, one_text("prompt")),
    ToolFixture("test_elicitation", elicit(USER), one_text("message")),
    ToolFixture("test_elicitation_sep1034_defaults", elicit(WITH_DEFAULTS, "Please check these values.")),
    ToolFixture("test_elicitation_sep1330_enums", elicit(WITH_CHOICES, "Please choose.")),
    ToolFixture("test_streaming_elicitation", Rounds([{"user_name": NAME}]).run),
    ToolFixture("test_input_required_result_elicitation", Rounds([{"user_name": NAME}]).run),
    ToolFixture(
        "test_input_required_result_sampling",
        Rounds([{"capital_question": sampling("What is the capital of France?", 100)}]).run,
    ),
    ToolFixture("test_input_required_result_list_roots", Rounds([{"client_roots": roots()}]).run),
    ToolFixture("test_input_required_result_request_state", Rounds([{"confirm": CONFIRMATION}], stateful=True).run),
    ToolFixture(
        "test_input_required_result_multiple_inputs",
        Rounds(
            [{"user_name": NAME, "greeting": sampling("Generate a greeting", 50), "client_roots": roots()}],
            stateful=True,
        ).run,
    ),
    ToolFixture(
        "test_input_required_result_multi_round",
        Rounds(
            [
                {"step1": form("Step 1: What is your name?", "name")},
                {"step2": form("Step 2: What is your favorite color?", "color")},
            ],
            stateful=True,
        ).run,
    ),
    ToolFixture("test_input_required_result_tampered_state", Rounds([{"confirm": CONFIRMATION}], stateful=True).run),
    ToolFixture("test_input_required_result_capabilities", ask_what_is_declared),
)

PROMPTS = (
    PromptFixture(
        "test_input_required_result_prompt",
        Rounds([{"user_context": form("What context should the prompt use?", "context")}]).run_prompt,
    ),
)
