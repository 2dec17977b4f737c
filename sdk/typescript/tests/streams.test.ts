/** Streams, and how they end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  AegisClient,
  type AegisClientOptions,
  KeyRevokedError,
  type StreamEvent,
  StreamInterruptedError,
  UnexpectedAnswerError,
} from "@aegis/sdk";
import { answering, form, Origin, type Peer, type Script } from "./origin.ts";

const KEY = `aegis_000000000000_C4n4ry${"x".repeat(44)}`;
const STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENT = chunk('event: log\ndata: {"line": "one"}\n\n');
const REVOKED = { code: "key_revoked", detail: "The API key has been revoked.", status: 401 };

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

function follow(
  origin: Origin,
  options: AegisClientOptions = {},
): AsyncIterator<StreamEvent> & AsyncIterable<StreamEvent> {
  const client = new AegisClient({ apiKey: KEY, baseUrl: origin.url, retry: { firstWaitMs: 1 }, ...options });
  return client.executions.stream("i")[Symbol.asyncIterator]() as ReturnType<typeof follow>;
}

async function list(events: AsyncIterable<StreamEvent>): Promise<StreamEvent[]> {
  const found: StreamEvent[] = [];
  for await (const event of events) {
    found.push(event);
  }
  return found;
}

/** A stream that breaks after its first event; whoever then asks who they are is answered so. */
function breakingOff(validated: string): Script {
  return (peer, request) => {
    if (request.startsWith("POST /v1/api-keys/validate ")) {
      peer.send(validated);
      return;
    }
    peer.send(STREAM, EVENT, "7f\r\nda");
    setImmediate(() => peer.close());
  };
}

for (const [validated, kind] of [
  [form(401, REVOKED), KeyRevokedError],
  [form(200, {}), StreamInterruptedError],
  [form(404, {}), StreamInterruptedError],
  ["HTTP/1.1 x\r\n\r\n", StreamInterruptedError],
] as const) {
  test(`a stream that breaks off says why if the key is why: ${kind.name}`, async (t) => {
    const origin = await Origin.start(t, breakingOff(validated));
    const events = follow(origin);
    assert.deepEqual((await events.next()).value, { type: "log", data: { line: "one" }, id: undefined });
    await assert.rejects(events.next(), (error: Error) => {
      assert.equal(error.constructor, kind);
      assert(!inspect(error, { depth: 9, showHidden: true }).includes("C4n4ry"));
      return true;
    });
    assert.equal(origin.requests.length, 2);
  });
}

test("a stream that the server ends ends the loop, and is iterated once", async (t) => {
  const origin = await Origin.start(t, answering(`${STREAM}${EVENT}0\r\n\r\n`));
  const stream = new AegisClient({ apiKey: KEY, baseUrl: origin.url }).executions.stream("i");
  assert.equal(inspect(stream), "EventStream(GET /v1/executions/i/stream)");
  assert.equal(origin.requests.length, 0);
  assert.deepEqual(
    (await list(stream)).map((event) => event.type),
    ["log"],
  );
  assert.deepEqual(await list(stream), []);
  assert.equal(origin.requests.length, 1);
  assert.match(origin.requests[0] ?? "", /\r\naccept: text\/event-stream\r\n/i);
});

test("the proxy's last word is thrown, with what came before it told", async (t) => {
  const problem = { ...REVOKED, type: "urn:aegis-proxy:problem:key_revoked", request_id: "r1" };
  const last = chunk(`event: error\ndata: ${JSON.stringify(problem)}\n\n`);
  const origin = await Origin.start(t, answering(`${STREAM}${EVENT}${last}0\r\n\r\n`));
  const events = follow(origin);
  assert.equal((await events.next()).value?.type, "log");
  await assert.rejects(events.next(), { name: "KeyRevokedError", status: 401, requestId: "r1" });
  assert.deepEqual(await events.next(), { done: true, value: undefined });
  assert.equal(origin.requests.length, 1);
});

test("what is no stream is said to be none", async (t) => {
  for (const answer of [form(200, {}), "HTTP/1.1 204 No Content\r\n\r\n"]) {
    const origin = await Origin.start(t, answering(answer));
    await assert.rejects(follow(origin).next(), UnexpectedAnswerError);
  }
});

test("opening a stream is tried again, and going on with it never is", async (t) => {
  const busy = form(503, { error: "busy" });
  const origin = await Origin.start(t, answering(busy, busy, `${STREAM}${EVENT}0\r\n\r\n`));
  assert.equal((await list(follow(origin))).length, 1);
  assert.equal(origin.requests.length, 3);
});

test("leaving a stream early closes its connection", async (t) => {
  const origin = await Origin.start(t, answering(STREAM + EVENT));
  const events = follow(origin);
  for await (const event of events) {
    assert.deepEqual(event.data, { line: "one" });
    break;
  }
  await origin.peers[0]?.waitGone();
  assert.deepEqual(await list(events), []);
});

test("a stream may be silent for longer than an answer", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  let signal: AbortSignal | null | undefined;
  const answer: typeof fetch = async (_, init) => {
    signal = init?.signal;
    return new Response(readable, { headers: { "Content-Type": "text/event-stream;charset=utf-8" } });
  };
  const client = new AegisClient({ apiKey: KEY, baseUrl: "http://127.0.0.1:1", fetch: answer });
  const events = client.executions.stream("i")[Symbol.asyncIterator]();
  const writer = writable.getWriter();
  for (const line of ["one", "two"]) {
    const next = events.next();
    await writer.write(new TextEncoder().encode(`data: ${line}\n\n`));
    assert.equal((await next).value?.data, line);
    t.mock.timers.tick(3_600_000);
    assert.equal(signal?.aborted, false);
  }
});

test("a stream may be silent for longer than Node is patient", async (t) => {
  t.after(makeNodeImpatient());
  let streaming: Peer | undefined;
  const origin = await Origin.start(t, (peer, request) => {
    if (request.includes("/stream ")) {
      streaming = peer;
      peer.send(STREAM, EVENT);
    } else {
      peer.send(form(200, "half of it").slice(0, -5));
    }
  });
  const events = follow(origin);
  assert.equal((await events.next()).value?.type, "log");
  const waiting = events.next();
  for (let times = 0; times < 2; times += 1) {
    const impatient = await fetch(origin.url);
    await assert.rejects(impatient.text(), (error: { cause: { code: string } }) => error.cause.code === LATE);
  }
  streaming?.send(EVENT, "0\r\n\r\n");
  assert.equal((await waiting).value?.type, "log");
});

const LATE = "UND_ERR_BODY_TIMEOUT";

/** What breaks off five minutes of silence everywhere in this process breaks off a blink of it, until that is undone. */
function makeNodeImpatient(): () => void {
  const version = Number.parseInt(process.versions.undici ?? "", 10) < 8 ? 1 : 2;
  const symbol = Symbol.for(`undici.globalDispatcher.${version}`);
  const place = globalThis as unknown as Record<symbol, { constructor: new (options: object) => never }>;
  new Headers(); // there is none before
  const before = place[symbol] as (typeof place)[symbol];
  place[symbol] = new before.constructor({ bodyTimeout: 30 });
  return () => {
    place[symbol] = before;
  };
}
