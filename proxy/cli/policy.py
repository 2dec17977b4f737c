"""`aegis-proxy policy …`: what security teams run before and instead of hoping."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.context import ConfigOption, JsonOption, read_settings
from proxy.cli.output import print_json, quote, say
from proxy.cli.policy_diff import diff_policies
from proxy.cli.policy_explain import explain_policy
from proxy.cli.policy_suggest import suggest_scopes
from proxy.cli.policy_test import run_policy_tests
from proxy.policy import load_policy

app = typer.Typer(
    help="Check, compare, test and explain the policy, and narrow keys by what they did.", no_args_is_help=True
)
app.command("diff")(diff_policies)
app.command("test")(run_policy_tests)
app.command("explain")(explain_policy)
app.command("suggest")(suggest_scopes)


@app.command("check")
def check_policy(
    file: Annotated[Path | None, typer.Argument(help="The policy file. Default: the configured one.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Check a policy file: every fault at once, with its line and its mend."""
    path = file or read_settings(config).policy
    policy = load_policy(path)
    if json:
        print_json({"file": str(path), "revision": policy.revision, "presets": list(policy.presets)})
    else:
        say(
            f"[green]ok[/] {quote(path)}: revision {policy.revision}, {len(policy.routes)} routes,"
            f" {len(policy.catalogue)} scopes, presets {quote(', '.join(policy.presets))}"
        )


@app.callback()
def describe() -> None:
    """Check, compare, test and explain the policy.

    In the order of an edit: `check` reads the file, `diff` tells what it opens and closes, `test` holds it to its own
    tests, `explain` says why a request is allowed or denied, `suggest` how little a key could do with.
    """
