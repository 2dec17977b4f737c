"""`aegis-proxy policy test`: hold a policy to its own tests, and the tests to the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.context import ConfigOption, JsonOption, read_settings
from proxy.cli.output import open_progress, print_json, quote, say
from proxy.errors import ConfigError, Fault
from proxy.policy import Policy, load_policy
from proxy.policy.cases import Case, Outcome, describe_case, find_cases_path, load_cases, run_cases
from proxy.policy.mutants import Mutant, find_mutants, run_mutants


def run_policy_tests(
    file: Annotated[Path | None, typer.Argument(help="The policy file. Default: the configured one.")] = None,
    cases: Annotated[Path | None, typer.Option(help="Its tests. Default: NAME.tests.yaml beside it.")] = None,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="Also take away and loosen each rule: a test must fail each time.")
    ] = False,
    min_coverage: Annotated[
        int, typer.Option(min=0, max=100, help="Percent of rules that a test was allowed by.")
    ] = 100,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Run a policy's own tests: who may do what, and who may not.

    Exit code 1 when a test fails, when a rule is not covered, or when a mutant survives.

    Example: aegis-proxy policy test config/policy.yaml --mutants
    """
    path = file or read_settings(config).policy
    cases_path = cases or find_cases_path(path)
    if not cases_path.exists():
        mend = "write it, as docs/policy.md shows, or name it with --cases"
        raise ConfigError([Fault(str(cases_path), None, f"there are no tests of {path.name}", mend)])
    policy = load_policy(path)
    loaded = load_cases(cases_path, policy)
    outcome = run_cases(policy, loaded)
    survivors = _find_survivors(policy, loaded) if mutants and not outcome.failures else []
    covered = 100 if not outcome.rules else 100 * (outcome.rules - len(outcome.uncovered)) // outcome.rules
    if json:
        print_json(_form_outcome(policy, cases_path, outcome, survivors, covered))
    else:
        _say_outcome(cases_path, outcome, survivors, covered, mutants=mutants)
    if outcome.failures or survivors or covered < min_coverage:
        raise typer.Exit(1)


def _find_survivors(policy: Policy, cases: tuple[Case, ...]) -> list[Mutant]:
    mutants = find_mutants(policy)
    survivors = []
    with open_progress("mutants", len(mutants)) as step:
        for mutant, noticed in run_mutants(policy, cases, mutants):
            survivors += [] if noticed else [mutant]
            step(1)
    return survivors


def _form_outcome(
    policy: Policy, cases_path: Path, outcome: Outcome, survivors: list[Mutant], covered: int
) -> dict[str, object]:
    return {
        "file": str(cases_path),
        "revision": policy.revision,
        "cases": outcome.cases,
        "failures": [
            {
                "line": failure.case.line,
                "test": failure.case.test,
                "request": describe_case(failure.case),
                "expected": "allow" if failure.case.allowed else "deny",
                "got": failure.got,
            }
            for failure in outcome.failures
        ],
        "coverage_percent": covered,
        "uncovered": list(outcome.uncovered),
        "survivors": [{"rule": mutant.subject, "line": mutant.line, "what": mutant.what} for mutant in survivors],
    }


def _say_outcome(cases_path: Path, outcome: Outcome, survivors: list[Mutant], covered: int, *, mutants: bool) -> None:
    for failure in outcome.failures:
        case = failure.case
        say(f"[red]failed[/] {quote(cases_path)}:{case.line} {quote(describe_case(case))}")
        say(f"       expected: {'allowed' if case.allowed else 'denied'}, in {quote(case.test)}")
        say(f"       got:      {quote(failure.got)}")
    for rule in outcome.uncovered:
        say(f"[yellow]not covered[/] {quote(rule)}: no test is allowed by it")
    for mutant in survivors:
        place = f" (line {mutant.line} of the policy)" if mutant.line else ""
        say(f"[yellow]not noticed[/] {quote(mutant.subject)} {quote(mutant.what)}{place}")
    verdict = "[red]failed[/]" if outcome.failures else "[green]ok[/]"
    tail = "" if not mutants or outcome.failures else f", {len(survivors)} mutants survive"
    say(
        f"{verdict} {outcome.cases - len(outcome.failures):,} of {outcome.cases:,} cases as expected;"
        f" {covered} % of {outcome.rules} rules covered{tail}"
    )
