"""Templates filled in: values go in, HTML comes out, with everything escaped that is not a template's own.  [io]

All templates are read once, at start, so that a fault in one of them shows there and no request waits for a disk.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from proxy.client_setups import CLIENTS, ClientSetup, form_environment, form_setup
from proxy.console import pages
from proxy.console.assets import Assets, read_assets
from proxy.console.sign_in_pages import ROOT, SETTINGS
from proxy.policy.scopes import show


class Renderer:
    """One instance per process."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._environment = Environment(
            loader=PackageLoader("proxy.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals.update(list_setups=list_setups, find_held=pages.find_held, find_one=pages.find_one)
        self._environment.filters.update(
            actor=pages.tell_actor,
            changes=pages.list_changes,
            deed=pages.name_deed,
            groups=pages.group_scopes,
            hints=pages.list_hints,
            iso=_write_iso,
            moment=pages.tell_moment,
            number=pages.tell_number,
            resources=pages.list_resources,
            show=show,
            state=pages.judge_state,
        )
        for name in self._environment.list_templates():
            self._environment.get_template(name)

    def render(self, template: str, prefix: str, **values: object) -> str:
        """One whole page. `prefix`: what browsers write before our paths."""

        def asset(name: str) -> str:
            return prefix + self._assets.locate(name)

        places = {"root": prefix + ROOT, "settings": prefix + SETTINGS, "asset": asset}
        return self._environment.get_template(template).render(values | places)


@cache  # it takes 0.15 s of an event loop, which may have another proxy to serve
def open_renderer() -> Renderer:
    """The process' own."""
    return Renderer(read_assets())


def list_setups(base_url: str) -> list[ClientSetup]:
    """What to paste where: the environment, then each client."""
    environment = ClientSetup("environment", "Environment", (form_environment(base_url),))
    return [environment, *(form_setup(name, base_url) for name in CLIENTS)]


def _write_iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
