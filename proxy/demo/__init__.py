"""What `aegis-proxy demo` is made of: a sample of the platform behind the proxy, and the command that starts it all.

`sample_platform` is the state, with `sample_definition`, `sample_execution`, `sample_storage` and `sample_faults`.
It has two faces: `sample_server` speaks MCP (`sample_face`, `sample_streams`; `tool_table` is how a method becomes a
tool, and `work_tools`, `storage_tools`, `system_tools` are the tools themselves, named as on the real platform), and
`sample_api` speaks REST (`rest_…`, by what they are about). `assertion_check` is how either learns who calls, if told
to. Nothing outside this package imports it, except the command line.
"""
