"""`aegis-proxy policy …`: what security teams run before and instead of hoping."""

from __future__ import annotations

import typer

from proxy.cli.policy_check import check_policy_file
from proxy.cli.policy_diff import diff_policies
from proxy.cli.policy_explain import explain_policy
from proxy.cli.policy_replay import replay_log
from proxy.cli.policy_suggest import suggest_scopes
from proxy.cli.policy_test import run_policy_tests

app = typer.Typer(
    help="Check, compare, test and explain the policy, and narrow keys by what they did.", no_args_is_help=True
)
app.command("check")(check_policy_file)
app.command("diff")(diff_policies)
app.command("test")(run_policy_tests)
app.command("explain")(explain_policy)
app.command("replay")(replay_log)
app.command("suggest")(suggest_scopes)


@app.callback()
def describe() -> None:
    """Check, compare, test and explain the policy.

    In the order of an edit: `check` reads the file and says what is wrong or odd, `diff` tells what it opens and
    closes, `test` holds it to its own tests. `replay` tries it on what a log says was decided. Then `explain` says
    why a request is allowed or denied, `suggest` how little a key could do with.
    """
