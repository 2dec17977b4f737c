/** Sessions of the official MCP client: how they begin and end, and what a refusal becomes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { AegisClient } from "@aegis/sdk";
import { answering, form, Origin, type Script } from "./origin.ts";

const KEY = `aegis_000000000000_C4n4ry${"x".repeat(44)}`;

function connect(origin: Origin): ReturnType<AegisClient["mcp"]> {
  return new AegisClient({ apiKey: KEY, baseUrl: origin.url, timeoutMs: 5000 }).mcp();
}

/** Initialized as of 2025-11-25, with a session. */
const serving: Script = (peer, request) => {
  const text = request.slice(request.indexOf("\r\n\r\n"));
  const { id, method } = request.startsWith("POST ") ? JSON.parse(text) : { id: undefined, method: undefined };
  const result = { protocolVersion: "2025-11-25", capabilities: {}, serverInfo: { name: "s", version: "1" } };
  if (method === "initialize") {
    peer.send(form(200, { jsonrpc: "2.0", id, result }, "Mcp-Session-Id: s1"));
  } else {
    peer.send(form(request.startsWith("GET ") ? 405 : id === undefined ? 202 : 404, ""));
  }
};

const isEnd = (request: string): boolean => request.startsWith("DELETE ");

test("whoever closes a session tells the server, with the key that opened it", async (t) => {
  const origin = await Origin.start(t, serving);
  const session = await connect(origin);
  assert(!inspect(session, { depth: 9, showHidden: true }).includes("C4n4ry"));
  await session.close();
  const end = origin.requests.find(isEnd) ?? ""; // the package's own GET may come after it
  assert(end.startsWith("DELETE /mcp/v1 HTTP/1.1\r\n"));
  assert.match(end, /\r\nmcp-session-id: s1\r\n/i);
  for (const request of origin.requests) {
    assert(request.includes(`Bearer ${KEY}`));
  }
});

test("a session ends even where nobody listens to its end", async (t) => {
  const silent: Parameters<Script>[0][] = [];
  const origin = await Origin.start(t, (peer, request) => {
    if (isEnd(request)) {
      silent.push(peer);
    } else {
      serving(peer, request);
    }
  });
  const session = await new AegisClient({ apiKey: KEY, baseUrl: origin.url, timeoutMs: 1500 }).mcp();
  await session.close();
  assert.equal(silent.length, 1);
  await silent[0]?.waitGone();
});

for (const [answer, name] of [
  [form(401, { error: { code: -31401, message: "no", data: { reason: "key_revoked" } } }), "KeyRevokedError"],
  [
    form(403, { error: { code: -31403, message: "no", data: { reason: "x", missing: ["a:b"] } } }),
    "PermissionDeniedError",
  ],
  [form(401, { code: "key_expired", detail: "over" }), "KeyExpiredError"],
  [form(503, "<html>"), "UnavailableError"],
  [form(500, { error: { code: -32603, message: "odd" } }), "ApiError"],
  [form(302, null, "Location: http://127.0.0.1:1/"), "UnexpectedAnswerError"],
] as const) {
  test(`a session that is refused is a ${name}`, async (t) => {
    const origin = await Origin.start(t, answering(answer));
    await assert.rejects(connect(origin), (error: Error) => {
      assert.equal(error.name, name);
      assert(!inspect(error, { depth: 9, showHidden: true }).includes("C4n4ry"));
      return true;
    });
  });
}

test("a refusal in an answer of 200 is one, too", async (t) => {
  const origin = await Origin.start(t, (peer, request) => {
    const { id } = JSON.parse(request.slice(request.indexOf("\r\n\r\n")));
    const data = { reason: "scope_missing", missing: ["agent:list"], request_id: "r1" };
    peer.send(form(200, { jsonrpc: "2.0", id, error: { code: -31403, message: "no", data } }));
  });
  await assert.rejects(connect(origin), { name: "PermissionDeniedError", code: "scope_missing", requestId: "r1" });
});

test("what is asked for while closing is not why there is no session", async (t) => {
  const origin = await Origin.start(t, (peer, request) => {
    if (request.includes("notifications/initialized")) {
      peer.send(form(401, { code: "key_revoked", detail: "over" }));
    } else {
      serving(peer, request.startsWith("DELETE ") ? "GET " : request);
    }
  });
  await assert.rejects(connect(origin), { name: "KeyRevokedError" });
  assert(origin.requests.some(isEnd));
});

test("where nobody listens, there is no session", async (t) => {
  const origin = await Origin.start(t, (peer) => peer.reset());
  await assert.rejects(connect(origin), { name: "ConnectionFailedError" });
});
