"""Event streams as servers write them, and one that uses all of the grammar.

Those of the Python SDK (mcp 2.3.0) were recorded from its servers; those of the TypeScript SDK (1.32.2) are spelt as
its `webStandardStreamableHttp` and `sse` spell them. All of them may be shown to anybody who may use the tool `echo`.
"""

from __future__ import annotations

_INITIALIZED = (
    b'{"jsonrpc":"2.0","id":0,"result":{"capabilities":{"tools":{"listChanged":false}},"protocolVersion":"2025-11-25",'
    b'"serverInfo":{"name":"upstream","version":""}}}'
)
_TOOLS = (
    b'{"jsonrpc":"2.0","id":3,"result":{"tools":[{"description":"","inputSchema":{"properties":{"text":{"type":"string"}},'
    b'"required":["text"],"type":"object","title":"echoArguments"},"name":"echo"}],"nextCursor":""}}'
)

PYTHON_CALL = (
    b"id: 1_3\r\ndata: \r\nretry: 3000\r\n\r\nid: 1_4\r\nevent: message\r\n"
    b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1,"total":2,'
    b'"message":"half \xe2\x80\x94 a\\nline"}}\r\n\r\nid: 1_5\r\nevent: message\r\n'
    b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[{"text":"\xc3\xa9\xe2\x80\xa8","type":"text"}],'
    b'"isError":false,"structuredContent":{"result":"\xc3\xa9\xe2\x80\xa8"}}}\r\n\r\n'
)
PYTHON_LIST = b"id: 3_6\r\ndata: \r\nretry: 3000\r\n\r\nid: 3_7\r\nevent: message\r\ndata: " + _TOOLS + b"\r\n\r\n"
PYTHON_LEGACY = (
    b"event: endpoint\r\ndata: /messages/?session_id=e0b9d145fcaf4b3899bc321bf4c4e928\r\n\r\n"
    b"event: message\r\ndata: " + _INITIALIZED + b"\r\n\r\n: ping - 2026-11-23 19:23:46.903493+00:00\r\n\r\n"
)
TYPESCRIPT_LIST = (
    b"id: 4d0c_1\nretry: 1000\ndata: \n\n: keepalive\n\nevent: message\nid: 4d0c_2\ndata: " + _TOOLS + b"\n\n"
    b": keepalive\n\n"
)
TYPESCRIPT_LEGACY = (
    b"event: endpoint\ndata: /messages?sessionId=0b6e4f5c-2f9e-4a53-9d07-3b5c3a0d6a11\n\n"
    b"event: message\ndata: " + _INITIALIZED + b"\n\n"
)
# BOM, all three line ends, comments in and between events, data in several lines, empty fields, fields without a colon,
# unknown ones, and an event that has no end.
EVERYTHING = (
    b"\xef\xbb\xbf: hello\r\rid\rid:\nretry:\r\ndata\r\n\r\n:\n\n\n"
    b'data: {"jsonrpc":"2.0",\rdata:"method":"notifications/message"\r: inside\rdata:,"params":{"data":"a\\nb"}}\r\r'
    b"event: tools\nunknown\nid: 1 \n: \xff\ndata:  two spaces\n\r\r\ndata: " + _TOOLS[:90] + b"\ndata: "
    b"" + _TOOLS[90:] + b"\n\n: ping\rdata: the end is missing\r\n"
)

RECORDED = {
    "python call": PYTHON_CALL,
    "python list": PYTHON_LIST,
    "python legacy": PYTHON_LEGACY,
    "typescript list": TYPESCRIPT_LIST,
    "typescript legacy": TYPESCRIPT_LEGACY,
    "everything": EVERYTHING,
}
