"""The pages around a sign-in, as HTML.  [pure]

In go words of ours and values that are escaped here, whoever they come from; out come whole documents without scripts.
"""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import urlencode, urlsplit

SETTINGS: Final = "/settings"
ROOT: Final = f"{SETTINGS}/api-keys"
SIGN_IN: Final = f"{SETTINGS}/sign-in"
START: Final = f"{SIGN_IN}/start"
CALLBACK: Final = f"{SIGN_IN}/callback"
LINK: Final = f"{SIGN_IN}/link"
SIGN_OUT: Final = f"{SETTINGS}/sign-out"
STATIC: Final = f"{SETTINGS}/static"  # what stands there by its plain name is always the newest
FRAME: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="{static}/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="{static}/app.css">
{head}<title>{title} · Aegis</title></head>
<body>
<header class="bar"><div>
<span class="brand"><img src="{static}/icon.svg" alt="" width="20" height="20"> Aegis</span>
</div></header>
<main class="lone"><h1>{title}</h1>
{body}</main>
</body>
</html>
"""


def find_prefix(public_url: str | None) -> str:
    """What browsers write before the paths of ours; whoever stands before us takes it away again."""
    path = urlsplit(public_url or "").path.strip("/")
    return f"/{path}" if path else ""


def form_sign_in_page(*, prefix: str, csrf: str, onward: str, provider: bool, fault: str | None = None) -> str:
    """`onward`: where to go then; `provider`: whether one can sign in there; `fault`: why it did not work."""
    words = fault and fault[0].upper() + fault[1:]
    told = f'<p class="notice bad" role="alert">{escape(words)}</p>\n' if words else ""
    there = (
        f'<p><a class="button primary" href="{escape(prefix)}{START}?{escape(urlencode({"next": onward}))}">'
        "Sign in with your account</a></p>\n"
        if provider
        else ""
    )
    kind = "" if provider else ' class="primary"'
    form = (
        f'<form class="card stack" method="post" action="{escape(prefix)}{SIGN_IN}">\n'
        f'<input type="hidden" name="csrf" value="{escape(csrf)}">\n'
        f'<input type="hidden" name="next" value="{escape(onward)}">\n'
        '<div class="field"><label for="key">API key that may manage keys</label>\n'
        '<input id="key" type="password" name="key" required autocomplete="off" spellcheck="false"'
        ' autocapitalize="none">\n'
        '<p class="note">One that holds rights such as key:list. The sign-in holds no more than the key does, and ends'
        f" with it.</p></div>\n<button{kind}>Sign in</button>\n</form>\n"
    )
    return FRAME.format(static=escape(prefix) + STATIC, title="Sign in", head="", body=told + there + form)


def form_onward_page(onward: str, prefix: str) -> str:
    """Goes on by itself. A redirect would not do: coming from another site, a browser sends no Strict cookie along with
    it, and with what a page of ours asks for it does."""
    place = escape(prefix + onward)
    return FRAME.format(
        static=escape(prefix) + STATIC,
        title="Signed in",
        head=f'<meta http-equiv="refresh" content="0; url={place}">\n',
        body=f'<p><a href="{place}">Go on</a></p>\n',
    )
