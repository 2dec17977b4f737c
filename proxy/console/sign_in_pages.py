"""The pages around a sign-in, as HTML.  [pure]

In go words of ours and values that are escaped here, whoever they come from; out come whole documents without scripts.
"""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import urlencode

ROOT: Final = "/settings/api-keys"
SIGN_IN: Final = "/settings/sign-in"
START: Final = f"{SIGN_IN}/start"
CALLBACK: Final = f"{SIGN_IN}/callback"
LINK: Final = f"{SIGN_IN}/link"
SIGN_OUT: Final = "/settings/sign-out"
FRAME: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
{head}<title>{title}</title></head>
<body><main><h1>{title}</h1>
{body}</main></body>
</html>
"""


def form_sign_in_page(*, csrf: str, onward: str, provider: bool, fault: str | None = None) -> str:
    """`onward`: where to go then; `provider`: whether one can sign in there; `fault`: why it did not work."""
    told = f'<p role="alert">{escape(fault)}</p>\n' if fault is not None else ""
    there = (
        f'<p><a href="{START}?{escape(urlencode({"next": onward}))}">Sign in with your account</a></p>\n'
        if provider
        else ""
    )
    form = (
        f'<form method="post" action="{SIGN_IN}">\n'
        f'<input type="hidden" name="csrf" value="{escape(csrf)}">\n'
        f'<input type="hidden" name="next" value="{escape(onward)}">\n'
        "<label>API key that may manage keys\n"
        '<input type="password" name="key" required autocomplete="off" spellcheck="false" autocapitalize="none">'
        "</label>\n<button>Sign in</button>\n</form>\n"
    )
    return FRAME.format(title="Sign in", head="", body=told + there + form)


def form_onward_page(onward: str) -> str:
    """Goes on by itself. A redirect would not do: coming from another site, a browser sends no Strict cookie along with
    it, and with what a page of ours asks for it does."""
    place = escape(onward)
    return FRAME.format(
        title="Signed in",
        head=f'<meta http-equiv="refresh" content="0; url={place}">\n',
        body=f'<p><a href="{place}">Go on</a></p>\n',
    )
