"""What every answer of the page says to the browser about itself.  [pure]

Pages of ours load nothing of anybody's, run nothing that stands in them, and stand in no frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.headers import SERVER

# Nothing inline, nothing of others', no frame around us; scripts and styles are files of ours.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Unlike no-referrer, it leaves forms the Origin that they are checked by.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    SERVER[0]: SERVER[1],
}
