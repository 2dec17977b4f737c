"""What `aegis-proxy demo` is made of: a sample MCP server, and the command that starts everything.

`sample_server` is the MCP face, `sample_platform` the state behind it, `tool_table` how a method becomes a tool, and
`work_tools`, `storage_tools`, `system_tools` are the tools themselves, named as on the real platform.
Nothing outside this package imports it, except the command line.
"""
