"""`aegis-proxy policy replay`: what a policy would have decided otherwise, by the log of what was decided."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from proxy.cli.context import ConfigOption, JsonOption, SinceOption, read_settings
from proxy.cli.output import open_progress, print_json, print_table, quote, say
from proxy.policy import Policy, load_policy
from proxy.policy.replays import DecisionLog, Flip, Replay
from proxy.policy_files import find_candidate_path

CHUNK_LINES = 2_000  # between two looks at the bar
STDIN = Path("-")


def replay_log(
    log: Annotated[
        list[Path],
        typer.Argument(
            exists=True, dir_okay=False, readable=True, allow_dash=True, help="Files of the proxy's log; - for stdin."
        ),
    ],
    policy: Annotated[
        Path | None,
        typer.Option(
            help="The policy to try. Default: the candidate beside the configured one, or the configured one."
        ),
    ] = None,
    since: SinceOption = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if anything flips.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Decide everything in a log again, under another policy, and list what would come out otherwise.

    The log holds of every request what was read to decide, and nothing else. Where the other policy reads more than
    that, what it would decide is not told, and the summary says what is missing.

    Example: aegis-proxy policy replay /var/log/aegis.log --policy edited.yaml --since 24h
    """
    path = policy or _find_default(config)
    tried = load_policy(path)
    decisions = DecisionLog(since=since.strftime("%Y-%m-%dT%H:%M:%S") if since is not None else "")
    for one in log:
        _read(one, decisions)
    replay = decisions.replay(tried)
    if json:
        print_json(_form(path, tried, decisions, replay))
    else:
        _print(path, tried, decisions, replay)
    if exit_code and replay.flips:
        raise typer.Exit(1)


def _find_default(config: Path | None) -> Path:
    configured = read_settings(config).policy
    candidate = find_candidate_path(configured)
    return candidate if candidate.exists() else configured


def _read(path: Path, decisions: DecisionLog) -> None:
    if path == STDIN:
        _read_lines(sys.stdin.buffer, decisions)
        return
    with path.open("rb") as lines, open_progress(f"Reading {path.name}, bytes", path.stat().st_size) as advance:
        waiting = 0
        for number, line in enumerate(lines, start=1):
            decisions.read(line)
            waiting += len(line)
            if number % CHUNK_LINES == 0:
                advance(waiting)
                waiting = 0
        advance(waiting)


def _read_lines(lines: Iterable[bytes], decisions: DecisionLog) -> None:
    for line in lines:
        decisions.read(line)


def _form(path: Path, policy: Policy, decisions: DecisionLog, replay: Replay) -> dict[str, Any]:
    return {
        "policy": str(path),
        "revision": policy.revision,
        "lines": decisions.lines,
        "foreign": decisions.foreign,
        "undecided": decisions.undecided,
        "older": decisions.older,
        **{verdict: replay.verdicts[verdict] for verdict in ("same", "other_rule", "opens", "closes")},
        "not_told": dict(replay.untold),
        "flips": [_form_flip(flip) for flip in replay.flips],
    }


def _form_flip(flip: Flip) -> dict[str, Any]:
    members = asdict(flip)
    return {**members, **members.pop("seen")}


def _print(path: Path, policy: Policy, decisions: DecisionLog, replay: Replay) -> None:
    if replay.flips:
        print_table(("", "TIMES", "KEY", "WHAT", "RULE", "LAST"), map(_form_row, replay.flips))
    told, untold = sum(replay.verdicts.values()), sum(replay.untold.values())
    other = f", {replay.verdicts['other_rule']} of them by another rule" if replay.verdicts["other_rule"] else ""
    same = replay.verdicts["same"] + replay.verdicts["other_rule"]
    say(
        f"{told + untold} decisions under {quote(path)} (revision {policy.revision}): {same} the same{other},"
        f" [green]{replay.verdicts['opens']} open[/], [red]{replay.verdicts['closes']} close[/], {untold} not told"
    )
    for reason, count in replay.untold.most_common():
        say(f"[yellow]not told[/] {count}: {quote(reason)}")
    left = {
        "older than asked for": decisions.older,
        "requests without a decision": decisions.undecided,
        "other lines": decisions.foreign,
    }
    parts = [f"{count} {what}" for what, count in left.items() if count]
    if parts:
        say(f"Left out: {', '.join(parts)}.")


def _form_row(flip: Flip) -> tuple[str, ...]:
    rules = [rule or "none" for rule in (flip.rule_before, flip.rule_after)]
    rule = rules[0] if rules[0] == rules[1] else " → ".join(rules)
    last = flip.seen.last[:16].replace("T", " ") + "Z"
    return flip.verdict, str(flip.seen.count), flip.key_id, flip.subject, rule, last
