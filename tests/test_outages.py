"""An outage is said once, and its end once."""

from __future__ import annotations

import io
import json

from proxy.errors import ProxyError
from proxy.logs import configure_logging
from proxy.outages import Outage


def test_an_outage_of_many_failures_leaves_two_lines() -> None:
    stream = io.BytesIO()
    configure_logging("debug", stream)
    outage = Outage("room", "reading")
    outage.end()
    for _ in range(3):
        outage.begin(ProxyError("why"))
    assert outage.lasts
    outage.end()
    outage.end()
    assert not outage.lasts
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["level"], line["event"], line.get("error")) for line in lines] == [
        ("warning", "reading_failing", "why"),
        ("info", "reading_works_again", None),
    ]
