"""Aegis MCP Proxy: an authenticating reverse proxy in front of an MCP server."""

__version__ = "0.1.0"
