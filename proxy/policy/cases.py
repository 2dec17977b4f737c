"""A policy's own tests: `policy.tests.yaml` beside `policy.yaml`.  [pure, but for reading the files]

A file of cases comes in: who asks, what is asked, what the answer must be. Failures go out, with their line, and the
rules that no case was allowed by. The questions are put by `questions.ask`, as the proxy decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import ConfigError, Fault
from proxy.identity import Owner, OwnerId
from proxy.policy.compiled import URI_METHODS, Lookup, Policy, Route
from proxy.policy.load import describe_shape, find_place, load_policy, read_text
from proxy.policy.model import HttpMethod, Text, TextOrTexts
from proxy.policy.questions import Question, ask
from proxy.policy.regions import list_probes
from proxy.policy.rules import Allowed, Decision
from proxy.policy.scopes import show
from proxy.policy.source import Path as ValuePath
from proxy.policy.source import Source, read_source

EVERY_OTHER: Final = "*"
_SAMPLE = "x"  # stands for a variable of a path where every path is meant
_READ_BY: Final = {"arguments": ("tool", "prompt"), "params": ("rpc", "uri")}


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RequestEntry(_Entry):
    """One of tool, prompt, uri, rpc, http; and, if it matters, what the answer must name."""

    tool: TextOrTexts | None = Field(
        default=None, description='Names, or "*": every tool no other line here names, and one of each pattern.'
    )
    prompt: TextOrTexts | None = None
    uri: TextOrTexts | None = None
    rpc: TextOrTexts | None = Field(default=None, description="JSON-RPC methods; with uri: how it is used.")
    http: TextOrTexts | None = Field(default=None, examples=["GET /v1/agents"], description='"*": every other one.')
    arguments: dict[str, Any] = Field(default={}, description="Of tools and prompts.")
    params: dict[str, Any] = Field(default={}, description="Of the other JSON-RPC methods.")
    rule: Text | None = Field(default=None, description="The id of the rule that must decide.")
    smallest: Text | None = Field(default=None, description="The smallest sufficient scope a denial must name.")
    why: Text | None = Field(default=None, description="Words that must stand in a denial.")


class GivenEntry(_Entry):
    """Whose key it is. What a test leaves out, the file's own `given` says."""

    preset: Text | None = None
    scopes: list[Text] | None = None
    tier: Text | None = None
    tenant: Text | None = None
    subject: Text | None = None
    route: Text | None = Field(default=None, description="The MCP route by which messages come.")


class TestEntry(_Entry):
    name: Text
    extends: Text | None = Field(default=None, description="The name of a test: what it allows must be allowed here.")
    given: GivenEntry = GivenEntry()
    allow: list[RequestEntry] = []
    deny: list[RequestEntry] = []


class CasesFile(_Entry):
    version: Literal[1]
    given: GivenEntry = GivenEntry()
    tests: Annotated[list[TestEntry], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Case:
    """One question, and the answer it must get."""

    test: str
    line: int | None
    question: Question
    scopes: tuple[str, ...]
    owner: Owner
    allowed: bool
    entry: RequestEntry

    def judge(self, policy: Policy) -> Decision:
        grants = policy.effective_scopes(self.scopes, (), self.owner.tier)
        return ask(policy, self.question, grants, self.owner).decision

    def find_failure(self, decision: Decision) -> str | None:
        """What is wrong with this answer, in words; None when it is the one expected."""
        if isinstance(decision, Allowed) != self.allowed:
            return f"allowed by rule {decision.rule}" if isinstance(decision, Allowed) else f"denied: {decision.why}"
        if self.entry.rule is not None and decision.rule != self.entry.rule:
            return f"decided by rule {decision.rule}, not {self.entry.rule}"
        if isinstance(decision, Allowed):
            return None
        if self.entry.smallest is not None and decision.smallest != self.entry.smallest:
            return f"denied, but {decision.smallest or 'no single scope'} would suffice, not {self.entry.smallest}"
        if self.entry.why is not None and self.entry.why not in decision.why:
            return f"denied with other words: {decision.why}"
        return None


@dataclass(frozen=True, slots=True)
class Failure:
    case: Case
    got: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`uncovered`: the ids of rules by which no case was allowed."""

    cases: int
    failures: tuple[Failure, ...]
    rules: int
    uncovered: tuple[str, ...]


def find_cases_path(path: Path) -> Path:
    """Where the tests of a policy are: `policy.tests.yaml` for `policy.yaml`."""
    return path.with_name(f"{path.stem}.tests{path.suffix}")


def load_tested_policy(path: Path) -> Policy:
    """The policy, if the tests beside it pass, or there are none. Raises ConfigError."""
    policy, cases_path = load_policy(path), find_cases_path(path)
    if cases_path.exists():
        failures = run_cases(policy, load_cases(cases_path, policy)).failures
        faults = [
            Fault(str(cases_path), failure.case.line, f"{describe_case(failure.case)} is {failure.got}",
                  f"expected in {show(failure.case.test)}: mend the policy, or the test")
            for failure in failures
        ]  # fmt: skip
        if faults:
            raise ConfigError(faults)
    return policy


def load_cases(path: Path, policy: Policy) -> tuple[Case, ...]:
    """Raises ConfigError."""
    return parse_cases(read_text(path), str(path), policy)


def parse_cases(text: str, name: str, policy: Policy) -> tuple[Case, ...]:
    """`name` is that of the text in faults. Raises ConfigError."""
    source = read_source(text, name)
    try:
        file = CasesFile.model_validate(source.values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False):
            place = find_place(source.values, detail)
            words = describe_shape(place, detail, CASES_ENTRIES, "config/policy.tests.schema.json")
            source.add_fault(place, *words)
        source.raise_faults()
        raise
    reader = _Reader(policy, source, file)
    cases = tuple(case for number in range(len(file.tests)) for case in reader.read(number))
    source.raise_faults()
    return cases


def run_cases(policy: Policy, cases: tuple[Case, ...]) -> Outcome:
    failures, covered = [], set()
    for case in cases:
        decision = case.judge(policy)
        failure = case.find_failure(decision)
        if failure is not None:
            failures.append(Failure(case, failure))
        elif isinstance(decision, Allowed):
            covered.add(decision.rule)
    ids = dict.fromkeys(rule.id for route in policy.routes for rule in route.rules.list_rules())
    return Outcome(len(cases), tuple(failures), len(ids), tuple(name for name in ids if name not in covered))


def describe_case(case: Case) -> str:
    """What is asked, in few words."""
    question = case.question
    named = question.params.get("name") or question.params.get("uri")
    if question.rpc is None:
        return f"{question.http} {question.target}"
    return f"{question.rpc} {named}" if named else question.rpc


def cases_schema() -> dict[str, Any]:
    """The JSON Schema published as `config/policy.tests.schema.json`."""
    schema = {name: value for name, value in CasesFile.model_json_schema().items() if name != "title"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tests of a policy", **schema}


CASES_ENTRIES: Final = (CasesFile, TestEntry, GivenEntry, RequestEntry)


@dataclass(slots=True)
class _Reader:
    """From entries to cases. What names nothing is a fault: a test of nothing would always pass."""

    policy: Policy
    source: Source
    file: CasesFile

    def read(self, number: int) -> Iterator[Case]:
        test, path = self.file.tests[number], ("tests", number)
        given = self._join_given(test.given)
        scopes, owner = self._find_scopes(given, path), self._form_owner(given, path)
        route = self._find_route(given, path)
        if self._find_number(test.name) != number:
            self.source.add_fault((*path, "name"), f"two tests are called {show(test.name)}", "rename one")
        listed = [entry for one in self._list_lineage(number) for entry in self._list_entries(one, "allow")]
        listed += self._list_entries(number, "deny")
        if not listed:
            self.source.add_fault(path, f"{show(test.name)} asks nothing", "write allow: or deny: with requests")
        named = {name for _, _, entry in listed for name in self._list_names(entry)}
        for where, word, entry in listed:
            self._check_expectation(entry, word, where)
            for question in self._form_questions(entry, route, named, where):
                yield Case(test.name, self.source.get_line(where), question, scopes, owner, word == "allow", entry)

    def _find_number(self, name: str) -> int | None:
        return next((number for number, test in enumerate(self.file.tests) if test.name == name), None)

    def _list_lineage(self, number: int) -> list[int]:
        """The test and those it extends, the farthest first."""
        lineage = [number]
        while (name := self.file.tests[lineage[-1]].extends) is not None:
            parent, where = self._find_number(name), ("tests", lineage[-1], "extends")
            if parent is None:
                self.source.add_fault(where, f"no test is called {show(name)}", "write the name of a test as it stands")
                break
            if parent in lineage:
                self.source.add_fault(where, "the tests extend one another in a circle", "take one of the extends: out")
                break
            lineage.append(parent)
        return lineage[::-1]

    def _list_entries(
        self, number: int, word: Literal["allow", "deny"]
    ) -> list[tuple[ValuePath, Literal["allow", "deny"], RequestEntry]]:
        entries: list[RequestEntry] = getattr(self.file.tests[number], word)
        return [(("tests", number, word, index), word, entry) for index, entry in enumerate(entries)]

    def _join_given(self, given: GivenEntry) -> GivenEntry:
        own = given.model_dump(exclude_none=True)
        default = self.file.given.model_dump(exclude_none=True)
        if "preset" in own or "scopes" in own:
            default = {name: value for name, value in default.items() if name not in ("preset", "scopes")}
        return GivenEntry.model_validate({**default, **own})

    def _find_scopes(self, given: GivenEntry, path: ValuePath) -> tuple[str, ...]:
        where = (*path, "given")
        if (given.preset is None) == (given.scopes is None):
            self.source.add_fault(where, "a key with neither or both of preset and scopes", "write one of them")
        for scope in given.scopes or ():
            try:
                self.policy.check_scope(scope)
            except ValueError as error:
                self.source.add_fault((*where, "scopes"), str(error), "write a scope of the catalogue")
        if given.preset is None:
            return tuple(given.scopes or ())
        preset = self.policy.presets.get(given.preset)
        if preset is None:
            mend = f"the presets are {', '.join(self.policy.presets)}"
            self.source.add_fault((*where, "preset"), f"unknown preset {show(given.preset)}", mend)
        return preset.scopes if preset is not None else ()

    def _form_owner(self, given: GivenEntry, path: ValuePath) -> Owner:
        tier = given.tier or self.policy.default_tier
        if tier not in self.policy.tiers:
            mend = f"the tiers are {', '.join(self.policy.tiers)}"
            self.source.add_fault((*path, "given", "tier"), f"unknown tier {show(tier)}", mend)
        return Owner(OwnerId("tested"), given.tenant or "own-tenant", "tested", given.subject or "own-user", tier)

    def _find_route(self, given: GivenEntry, path: ValuePath) -> Route | None:
        routes = [route for route in self.policy.routes if route.protocol != "http"]
        if given.route is None:
            return routes[0] if routes else None
        found = next((route for route in routes if route.id == given.route), None)
        if found is None:
            mend = f"those that carry messages are {', '.join(route.id for route in routes) or 'none'}"
            self.source.add_fault((*path, "given", "route"), f"unknown route {show(given.route)}", mend)
        return found

    def _check_expectation(self, entry: RequestEntry, word: str, path: ValuePath) -> None:
        if word == "allow" and (entry.smallest is not None or entry.why is not None):
            self.source.add_fault(path, "smallest and why are said of denials", "take them out, or move it to deny")
        if entry.rule is not None and all(
            rule.id != entry.rule for route in self.policy.routes for rule in route.rules.list_rules()
        ):
            mend = "it is the rule's id, or ROUTE/KIND:NAME without one; policy explain names it"
            self.source.add_fault((*path, "rule"), f"unknown rule {show(entry.rule)}", mend)

    def _list_names(self, entry: RequestEntry) -> Iterator[tuple[str, str]]:
        for word in ("tool", "http"):
            for name in _list(getattr(entry, word)):
                if name != EVERY_OTHER:
                    yield word, self._name_request(name) if word == "http" else name

    def _name_request(self, text: str) -> str:
        method, _, target = text.partition(" ")
        match = self.policy.find_route(target.partition("?")[0])
        return f"{method} {match.route.id}" if match is not None else text

    def _form_questions(
        self, entry: RequestEntry, route: Route | None, named: set[tuple[str, str]], path: ValuePath
    ) -> Iterator[Question]:
        given = [word for word in ("tool", "prompt", "uri", "http", "rpc") if getattr(entry, word) is not None]
        if given == ["uri", "rpc"]:
            given = ["uri"]
        if len(given) != 1:
            mend = "name one of tool, prompt, uri, rpc, http; only rpc and uri go together"
            self.source.add_fault(path, f"a request about {' and '.join(given) or 'nothing'}", mend)
            return
        (word,) = given
        self._check_words(entry, word, path)
        if word == "http":
            yield from self._form_http(entry, named, path)
        elif route is None:
            if all(other.protocol == "http" for other in self.policy.routes):
                self.source.add_fault(path, "the policy has no route for messages", "ask by http: METHOD /path")
        else:
            target = route.messages or route.path
            for rpc, params in self._form_messages(entry, word, route, named):
                yield Question("POST", target, rpc, params)

    def _check_words(self, entry: RequestEntry, subject: str, path: ValuePath) -> None:
        for word, subjects in _READ_BY.items():
            if word in entry.model_fields_set and subject not in subjects:
                mend = f"take it out: only {' and '.join(subjects)} have {word}"
                self.source.add_fault((*path, word), f"nothing reads the {word} of {subject}", mend)
        for name in _list(getattr(entry, subject)) if subject != "http" else ():
            if "*" in name and (subject, name) != ("tool", EVERY_OTHER):
                mend = "write a name that it matches; only tool and http know *, and it stands alone"
                self.source.add_fault((*path, subject), f"{show(name)} would be asked as it stands, no pattern", mend)
        for method in _list(entry.rpc) if subject == "uri" else ():
            if method not in URI_METHODS[:3]:
                mend = f"those are {', '.join(URI_METHODS[:3])}"
                self.source.add_fault((*path, "rpc"), f"{show(method)} does not use a URI like that", mend)

    def _form_http(self, entry: RequestEntry, named: set[tuple[str, str]], path: ValuePath) -> Iterator[Question]:
        for text in _list(entry.http):
            method, _, target = text.partition(" ")
            if text == EVERY_OTHER:
                yield from self._form_every_request(named)
            elif method not in get_args(HttpMethod) or not target.startswith("/"):
                mend = "write METHOD /path, the method in capitals"
                self.source.add_fault((*path, "http"), f"{show(text)} is no request", mend)
            else:
                yield Question(method, target)

    def _form_every_request(self, named: set[tuple[str, str]]) -> Iterator[Question]:
        for route in self.policy.routes:
            for method in sorted(route.methods) if route.protocol == "http" and not route.public else ():
                target = "/".join(_SAMPLE if "{" in part or "*" in part else part for part in route.path.split("/"))
                question = f"{method} {route.id}"
                if ("http", question) not in named and self._name_request(f"{method} {target}") == question:
                    yield Question(method, target)

    def _form_messages(
        self, entry: RequestEntry, word: str, route: Route, named: set[tuple[str, str]]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        match word:
            case "tool":
                names = [name for name in _list(entry.tool) if name != EVERY_OTHER]
                if EVERY_OTHER in _list(entry.tool):
                    names += _list_other_tools(route.rules.tools, {name for kind, name in named if kind == "tool"})
                yield from (("tools/call", {"name": name, "arguments": entry.arguments}) for name in names)
            case "prompt":
                names = _list(entry.prompt)
                yield from (("prompts/get", {"name": name, "arguments": entry.arguments}) for name in names)
            case "uri":
                for rpc in _list(entry.rpc) or ["resources/read"]:
                    yield from ((rpc, {**entry.params, "uri": uri}) for uri in _list(entry.uri))
            case _:
                yield from ((rpc, entry.params) for rpc in _list(entry.rpc))


def _list_other_tools(tools: Lookup, named: set[str]) -> Iterator[str]:
    """Those that are not named; of each pattern that decides about none that is, one that it does decide about."""
    yield from (name for name in tools.exact if name not in named)
    asked = [tools.find(name) for name in named]
    patterns = [pattern for pattern, _ in tools.patterns]
    for pattern, rule in tools.patterns:
        probes = (probe for probe in list_probes(pattern, patterns) if tools.find(probe) is rule)
        if not any(one is rule for one in asked):
            yield next(probes)


def _list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
