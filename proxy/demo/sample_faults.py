"""How the sample platform says no, in a sentence that a model can read and act on.  [pure]

A `ToolError` alone means that what was asked makes no sense; the two here mean more, and REST has statuses for them.
Refuses to know: how either face of the platform writes it down.
"""

from __future__ import annotations

from mcp.server.mcpserver.exceptions import ToolError


class Missing(ToolError):
    """There is no such thing."""


class InTheWay(ToolError):
    """What is there already forbids it: a name that is taken, a run that has ended, a volume that is full."""
