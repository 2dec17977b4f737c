/** Asking, against servers that answer otherwise than they should; and where the key does not go. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { type TestContext, test } from "node:test";
import { inspect } from "node:util";
import {
  AegisClient,
  type AegisClientOptions,
  AegisError,
  ConnectionFailedError,
  InputError,
  RequestTimeoutError,
  UnavailableError,
  UnexpectedAnswerError,
} from "@aegis/sdk";
import { answering, form, Origin } from "./origin.ts";

const KEY = `aegis_000000000000_C4n4ry${"x".repeat(44)}`;
const AGENT = { id: "i", name: "n", description: "d", scope: "tenant", revision: 1, manifest_yaml: "m" };

function clientOf(baseUrl: string, options: AegisClientOptions = {}): AegisClient {
  return new AegisClient({ apiKey: KEY, baseUrl, retry: { firstWaitMs: 1, longestWaitMs: 10 }, ...options });
}

/** The error, which must be of this class exactly, and hold the key nowhere. */
async function fails(asked: Promise<unknown>, kind: new (...given: never[]) => AegisError): Promise<AegisError> {
  const error = await asked.then(
    () => assert.fail("it went well"),
    (error: unknown) => error,
  );
  assert.equal((error as Error).constructor, kind, inspect(error));
  assert(!inspect(error, { depth: 9, showHidden: true }).includes("C4n4ry"));
  return error as AegisError;
}

for (const [what, answer, kind] of [
  ["a redirect", form(302, null, "Location: http://127.0.0.1:1/"), UnexpectedAnswerError],
  ["nothing new", form(304, ""), UnexpectedAnswerError],
  ["a page", form(200, "<html>"), UnexpectedAnswerError],
  ["a list", form(200, [AGENT]), UnexpectedAnswerError],
  ["half of an object", form(200, '{"manifest_yaml": "C4n4ry'), UnexpectedAnswerError],
  ["half of an answer", form(200, AGENT).slice(0, -5), ConnectionFailedError],
  ["half of a refusal", form(503, "{}").slice(0, -1), ConnectionFailedError],
  ["no HTTP", "not HTTP\r\n\r\n", ConnectionFailedError],
  ["nothing", "", ConnectionFailedError],
] as const) {
  test(`${what} is no answer, asked for once, and shows nothing`, async (t) => {
    const origin = await Origin.start(t, (peer) => {
      peer.send(answer);
      peer.close();
    });
    await fails(clientOf(origin.url).agents.get("i"), kind);
    assert.equal(origin.requests.length, 1);
  });
}

test("a list is a page of items, or none of the API's", async (t) => {
  const origin = await Origin.start(t, answering(form(200, {})));
  await fails(clientOf(origin.url).agents.list().firstPage(), UnexpectedAnswerError);
});

test("a redirect is not followed, and the key goes nowhere else", async (t) => {
  const elsewhere = await Origin.start(t, answering(form(200, AGENT)));
  const origin = await Origin.start(t, answering(form(307, null, `Location: ${elsewhere.url}/`)));
  await fails(clientOf(origin.url).agents.get("i"), UnexpectedAnswerError);
  await fails(clientOf(origin.url).mcp(), UnexpectedAnswerError);
  assert.equal(elsewhere.peers.length, 0);
});

test("the key is sent as a bearer and stands nowhere else", async (t) => {
  const origin = await Origin.start(t, answering(form(200, AGENT)));
  assert.equal((await clientOf(`${origin.url}/behind`).agents.get("a b")).name, "n");
  const request = origin.requests[0] ?? "";
  assert(request.startsWith("GET /behind/v1/agents/a%20b HTTP/1.1\r\n"));
  assert.match(request, /\r\nuser-agent: aegis-sdk-typescript\/\d/i);
  assert.deepEqual(request.match(/(?<=^authorization: Bearer ).*$/gim), [KEY]);
  assert.deepEqual(request.split(KEY).length, 2);
});

test("members of tomorrow are kept", async (t) => {
  const origin = await Origin.start(t, answering(form(200, { ...AGENT, mood: "good" })));
  assert.deepEqual(await clientOf(origin.url).agents.get("i"), { ...AGENT, mood: "good" });
});

async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test("where nobody listens, what may be done twice is tried again", async () => {
  let asked = 0;
  const counting: typeof fetch = (input, init) => {
    asked += 1;
    return fetch(input, init);
  };
  const client = clientOf(`http://127.0.0.1:${await findFreePort()}`, { fetch: counting });
  const error = await fails(client.agents.get("i"), ConnectionFailedError);
  assert.match(error.message, /^GET \/v1\/agents\/i: .*ECONNREFUSED/);
  assert.equal(asked, 3);
  await fails(client.workflows.run("i"), ConnectionFailedError);
  assert.equal(asked, 4);
});

test("what a fetch that was given says of the key is not handed on", async () => {
  const client = clientOf("http://127.0.0.1:1", {
    fetch: async (_, init) =>
      Promise.reject(new Error(`no luck with ${new Headers(init?.headers).get("authorization")}`)),
  });
  const error = await fails(client.agents.get("i"), ConnectionFailedError);
  assert.match(error.message, /no luck with Bearer …/);
});

test("a GET whose answer broke is not tried again", async (t) => {
  const origin = await Origin.start(t, (peer) => peer.reset());
  await fails(clientOf(origin.url).agents.get("i"), ConnectionFailedError);
  assert.equal(origin.requests.length, 1);
});

test("silence has an end: before an answer, in the middle of it, and of a stream that does not open", async (t) => {
  const origin = await Origin.start(t, (peer, request) => {
    peer.send(request.includes("/volumes/") ? form(200, AGENT).slice(0, -5) : "");
  });
  const client = clientOf(origin.url, { timeoutMs: 200 });
  await fails(client.agents.get("i"), RequestTimeoutError);
  await fails(client.volumes.get("i"), RequestTimeoutError);
  await fails(client.executions.stream("i")[Symbol.asyncIterator]().next(), RequestTimeoutError);
  for (const peer of origin.peers) {
    await peer.waitGone();
  }
});

test("whoever asks for more patience than there is gets none", async (t) => {
  const origin = await Origin.start(t, answering(form(503, { error: "later" }, "Retry-After: 1")));
  const error = (await fails(clientOf(origin.url).agents.get("i"), UnavailableError)) as UnavailableError;
  assert.equal(error.retryAfter, 1);
  assert.equal(origin.requests.length, 1);
});

const EXPIRES = "API-Key-Expires-At: 2026-12-01T00:00:00Z";

test("the end of a key is told once, by whatever answer", async (t) => {
  const origin = await Origin.start(t, answering(form(404, { error: "no" }, EXPIRES), form(200, AGENT, EXPIRES)));
  const told: Date[] = [];
  const client = clientOf(origin.url, { onKeyExpiry: (expiresAt) => told.push(expiresAt) });
  await assert.rejects(client.agents.get("i"), AegisError);
  await client.agents.get("i");
  assert.deepEqual(told, [new Date("2026-12-01T00:00:00Z")]);
});

test("whoever is told of the end of a key may take their time", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let signal: AbortSignal | null | undefined;
  const answer: typeof fetch = async (_, init) => {
    signal = init?.signal;
    return Response.json(AGENT, { headers: { "API-Key-Expires-At": "2026-12-01T00:00:00Z" } });
  };
  const onKeyExpiry = () => t.mock.timers.tick(60_000);
  const client = clientOf("http://127.0.0.1:1", { fetch: answer, onKeyExpiry });
  assert.equal((await client.agents.get("i")).name, "n");
  t.mock.timers.tick(60_000);
  assert.equal(signal?.aborted, false);
});

test("what JSON has no words for is not sent", async () => {
  const circle: Record<string, unknown> = {};
  circle.again = circle;
  const client = clientOf("http://127.0.0.1:1", { fetch: async () => assert.fail("it was sent") });
  for (const input of [circle, 1n]) {
    const error = await fails(client.workflows.run("w", { input }), InputError);
    assert.match(error.message, /cannot be told in JSON/);
  }
});

test("what the callback throws is its caller's", async (t) => {
  const origin = await Origin.start(t, answering(form(200, AGENT, EXPIRES)));
  const client = clientOf(origin.url, { onKeyExpiry: async () => Promise.reject(new RangeError("not this one")) });
  await assert.rejects(client.agents.get("i"), RangeError);
  assert.equal((await client.agents.get("i")).name, "n");
});

function stream(pieces: AsyncIterable<string>): ReadableStream<Uint8Array> {
  const iterator = pieces[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await iterator.next();
      done ? controller.close() : controller.enqueue(new TextEncoder().encode(value));
    },
  });
}

async function* give(...pieces: string[]): AsyncGenerator<string> {
  yield* pieces;
}

test("an upload goes as it comes", async (t: TestContext) => {
  const stored = { volume_id: "v", path: "p", size_bytes: 2, sha256: "s" };
  const origin = await Origin.start(t, answering(form(200, stored)));
  const { volumes } = clientOf(origin.url);
  await volumes.upload("v", "a b&c.txt", stream(give("a", "b")));
  const bytes = new TextEncoder().encode("ab");
  for (const content of [
    "ab",
    bytes,
    bytes.buffer,
    new DataView(bytes.buffer),
    new Blob(["ab"], { type: "text/html" }),
  ]) {
    assert.deepEqual(await volumes.upload("v", "p", content), stored);
  }
  const [first = "", ...others] = origin.requests;
  assert(first.startsWith("POST /v1/volumes/v/files/upload?path=a+b%26c.txt HTTP/1.1\r\n"));
  assert(first.endsWith("\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"));
  for (const request of others) {
    assert.match(request, /\r\ncontent-length: 2\r\n/i);
    assert(request.endsWith("\r\n\r\nab"));
  }
  for (const request of origin.requests) {
    assert.deepEqual(request.match(/(?<=^content-type: ).*$/gim), ["application/octet-stream"]);
  }
});

test("what leaves is no silence", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const taking: typeof fetch = async (_, init = {}) => {
    const reader = (init.body as ReadableStream).getReader();
    for (const piece of "abc") {
      t.mock.timers.tick(90);
      assert.equal(new TextDecoder().decode((await reader.read()).value), piece);
    }
    assert(!init.signal?.aborted);
    t.mock.timers.tick(100);
    assert(init.signal?.aborted);
    throw init.signal.reason;
  };
  const { volumes } = clientOf("http://127.0.0.1:1", { fetch: taking, timeoutMs: 100 });
  await fails(volumes.upload("v", "p", stream(give("a", "b", "c"))), RequestTimeoutError);
});

test("what is too large to leave in one silence has the time of several", async (t) => {
  const waits: number[] = [];
  t.mock.method(globalThis, "setTimeout", (_: unknown, milliseconds: number) => waits.push(milliseconds));
  const { volumes } = clientOf("http://127.0.0.1:1", { fetch: async () => Response.json({}), timeoutMs: 1000 });
  await volumes.upload("v", "p", new Uint8Array(5 << 20));
  assert.equal(waits[0], 6000);
});
