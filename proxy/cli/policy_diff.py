"""`aegis-proxy policy diff`: what an edit opens and closes, for each preset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from proxy.cli.context import JsonOption
from proxy.cli.output import print_json, print_lines, quote, say
from proxy.policy import Policy, load_policy
from proxy.policy.differences import Difference, Differences, Verdict, compare, list_holders

MARKS: Final[dict[Verdict, tuple[str, str]]] = {
    "opened": ("+", "bold green"),
    "widened": ("^", "bold green"),
    "changed": ("~", "yellow"),
    "narrowed": ("v", "red"),
    "closed": ("-", "red"),
}


def diff_policies(
    old: Annotated[Path, typer.Argument(help="The policy as it was.")],
    new: Annotated[Path, typer.Argument(help="The policy as it would be.")],
    preset: Annotated[list[str] | None, typer.Option("--preset", help="Only this preset; may be repeated.")] = None,
    holder: Annotated[
        list[str] | None, typer.Option("--for", help="Only this holder, such as 'tier free'; may be repeated.")
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if there is a difference.")] = False,
    json: JsonOption = False,
) -> None:
    """Tell what becomes allowed or denied when one policy replaces another: for each preset, for each tier, for any key
    at all, and for anyone without one.

    + opened, ^ widened, ~ changed, v narrowed, - closed. Those for whom the same changes stand together.

    Example: aegis-proxy policy diff config/policy.yaml config/policy.candidate.yaml
    """
    before, after = load_policy(old), load_policy(new)
    differences = compare(before, after)
    wanted = [*(f"preset {name}" for name in preset or ()), *(holder or ())]
    if wanted:
        differences = _keep(differences, wanted, before, after)
    if json:
        holders = {name: [asdict(one) for one in found] for name, found in differences.holders.items()}
        print_json({"general": list(differences.general), "holders": holders})
    else:
        _print_differences(differences)
    if exit_code and differences:
        raise typer.Exit(1)


def _keep(differences: Differences, wanted: list[str], before: Policy, after: Policy) -> Differences:
    """Those of some holders only."""
    known = list_holders(before, after)
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(f"{quote(name)} is none of {quote(', '.join(known))}")
    return Differences(
        differences.general, {name: found for name, found in differences.holders.items() if name in wanted}
    )


def _print_differences(differences: Differences) -> None:
    if not differences:
        say("[green]The two policies decide alike.[/]")
        return
    lines = [(quote(line), "") for line in differences.general]
    alike: dict[tuple[Difference, ...], list[str]] = {}
    for name, found in differences.holders.items():
        alike.setdefault(found, []).append(name)
    for found, names in alike.items():
        lines += [("", ""), (quote(", ".join(names)), "bold"), *map(_form_line, found)]
    print_lines(lines)
    verdicts = [one.verdict for found in differences.holders.values() for one in found]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in MARKS if verdict in verdicts]
    say(", ".join(counts) or "No decision changes.")


def _form_line(one: Difference) -> tuple[str, str]:
    mark, style = MARKS[one.verdict]
    if one.verdict == "opened":
        detail = one.after
    elif one.verdict == "closed":
        detail = None
    else:
        detail = f"{one.before}  ->  {one.after}"
    return f"  {mark} {quote(one.subject)}" + (f": {quote(detail)}" if detail is not None else ""), style
