/** What is asked for, read and told, value by value: paths, pages, events, waits, the end of a key. */
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { ApiError, ConnectionFailedError, InputError, KeyRevokedError, UnexpectedAnswerError } from "@aegis/sdk";
import { encodeFilePath, encodeSegment, formPath, formTarget, formTime, get, post } from "../dist/esm/calls.js";
import { EventDecoder, readEvent, type SentEvent } from "../dist/esm/events.js";
import { ExpiryNotice, parseMoment } from "../dist/esm/expiry.js";
import { formCountedPage, formLinkedPage } from "../dist/esm/lists.js";
import { findWaitMs } from "../dist/esm/retrying.js";
import { readBreakage } from "../dist/esm/runtime.js";

const RETRY = { attempts: 3, firstWaitMs: 250, longestWaitMs: 8000 };

test("a name is one segment, of unreserved characters alone", () => {
  for (const name of ["a/b", "à la carte №1", "%2e%2e", "a?b#c", "!'()*;:@&=+$,[]", "-._~", "…", "\0\n\\", "😀"]) {
    const segment = encodeSegment(name);
    assert.match(segment, /^(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+$/);
    assert.equal(decodeURIComponent(segment), name);
  }
  assert.equal(formPath("workflows", "a/b"), "/v1/workflows/a%2Fb");
});

test("what would mean another path is not sent", () => {
  for (const name of ["", ".", "..", "\ud800", undefined as unknown as string]) {
    assert.throws(() => encodeSegment(name), isRefused);
  }
  for (const path of ["", "/", "a//b", "../a", "a/.", "/./"]) {
    assert.throws(() => encodeFilePath(path), isRefused);
  }
  assert.equal(encodeFilePath("/notes/à faire?.txt"), "notes/%C3%A0%20faire%3F.txt");
});

function isRefused(error: unknown): boolean {
  return error instanceof InputError && error.status === undefined && error.faults.length === 1;
}

test("what is not given is not sent", () => {
  assert.equal(formTarget(get("/v1/x", { a: undefined, b: 0, c: "", d: "e f&" })), "/v1/x?b=0&c=&d=e+f%26");
  assert.equal(formTarget(get("/v1/x", { a: undefined })), "/v1/x");
  assert.equal(JSON.stringify(post("/v1/x", { a: undefined, b: false }).body), '{"b":false}');
  assert.deepEqual(post("/v1/x").body, {});
  assert(get("/v1/x").repeatable);
  assert(!post("/v1/x").repeatable);
});

test("times are sent in UTC, and are times", () => {
  assert.equal(formTime(new Date("2027-01-31T12:00:00+02:00")), "2027-01-31T10:00:00.000Z");
  assert.equal(formTime(undefined), undefined);
  assert.throws(() => formTime(new Date("never")), isRefused);
});

test("a counted list goes on until its total", () => {
  const items = ["a", "b"];
  const first = { items, total: 5, nextQuery: { limit: 2, offset: 2 } };
  assert.deepEqual(formCountedPage({ limit: 2, offset: 0, total: 5 }, items), first);
  assert.equal(formCountedPage({ limit: 2, offset: 3, total: 5 }, items).nextQuery, undefined);
  assert.equal(formCountedPage({ limit: 2, offset: 2, total: 5 }, []).nextQuery, undefined, "it has shrunk");
  assert.deepEqual(formCountedPage({ limit: 2, offset: 4 }, items).nextQuery, { limit: 2, offset: 6 });
  assert.equal(formCountedPage({ limit: 3, offset: 4 }, items).nextQuery, undefined);
});

test("a linked list goes on while there is a cursor", () => {
  const first = { items: ["a"], total: undefined, nextQuery: { cursor: "c" } };
  assert.deepEqual(formLinkedPage({ next_cursor: "c" }, ["a"]), first);
  assert.equal(formLinkedPage({ next_cursor: null }, ["a"]).nextQuery, undefined);
  assert.throws(() => formLinkedPage({ next_cursor: null }, undefined as unknown as []), UnexpectedAnswerError);
});

function decode(...pieces: (string | Uint8Array)[]): SentEvent[] {
  const decoder = new EventDecoder();
  const bytes = pieces.map((piece) => (typeof piece === "string" ? new TextEncoder().encode(piece) : piece));
  return bytes.flatMap((piece) => [...decoder.decode(piece)]);
}

test("a stream is read as the standard has it", () => {
  const stream = [
    "\ufeffevent: log\r\ndata: one\r\ndata:  two\r\nid: 7\r\n\r\n",
    ": a comment\n\ndata\rdata\r\r",
    "event: nothing\n\nretry: 5\nodd: x\nid: a\0b\ndata:last\n\ndata: not ended\n",
  ].join("");
  const read = [
    { name: "log", data: "one\n two", id: "7" },
    { name: "message", data: "\n", id: "7" },
    { name: "message", data: "last", id: "7" },
  ];
  assert.deepEqual(decode(stream), read);
  assert.deepEqual(decode(...stream), read, "a character at a time");
  assert.equal(decode("data: at once\r\r").length, 1, "and not when the next one comes");
  const bytes = new TextEncoder().encode("data: à😀\n\n");
  assert.deepEqual(decode(...[...bytes].map((byte) => Uint8Array.of(byte)))[0]?.data, "à😀", "a byte at a time");
});

test("an event is read", () => {
  const sent = (data: string, name = "message", id = ""): SentEvent => ({ name, data, id });
  const read = (type: string, data: unknown, id?: string) => ({ type, data, id });
  assert.deepEqual(readEvent(sent('{"line": 1}', "log")), read("log", { line: 1 }));
  assert.deepEqual(readEvent(sent('{"type": "log"}', "message", "7")), read("log", { type: "log" }, "7"));
  assert.deepEqual(readEvent(sent('{"type": 7}')), read("message", { type: 7 }));
  assert.deepEqual(readEvent(sent("plain", "log")), read("log", "plain"));
  assert.deepEqual(readEvent(sent('{"error": "its own"}', "error")), read("error", { error: "its own" }));
  const problem = { type: "urn:aegis-proxy:problem:key_revoked", status: 401, code: "key_revoked", detail: "revoked" };
  assert.throws(() => readEvent(sent(JSON.stringify(problem), "error")), KeyRevokedError);
  assert.equal(readEvent(sent(JSON.stringify(problem), "log")).type, "log");
});

test("a wait lies between half and the whole of what it may be", () => {
  const refused = (status: number, retryAfter?: number) => ({
    error: new ApiError({ detail: "no", status, problem: {}, retryAfter }),
    unsent: false,
  });
  for (const attempt of [1, 2, 7, 50]) {
    const most = Math.min(8000, 250 * 2 ** (attempt - 1));
    const patient = { ...RETRY, attempts: 100 };
    assert.equal(findWaitMs(patient, attempt, refused(503), 0), most / 2);
    assert.equal(findWaitMs(patient, attempt, refused(503), 1), most);
  }
  assert.equal(findWaitMs({ ...RETRY, attempts: 2000 }, 1999, refused(502), 1), 8000);
  assert.equal(findWaitMs(RETRY, 3, refused(503), 0), undefined, "that was the last");
  assert.equal(findWaitMs(RETRY, 1, refused(503, 2), 0), 2000, "nobody comes back sooner than asked");
  assert.equal(findWaitMs(RETRY, 1, refused(503, 9), 0), undefined, "nor waits longer than allowed");
  for (const status of [400, 401, 403, 404, 409, 422, 429, 500, 501, 505]) {
    assert.equal(findWaitMs(RETRY, 1, refused(status), 0), undefined);
  }
  const error = new ConnectionFailedError("nobody there");
  assert.equal(findWaitMs(RETRY, 1, { error, unsent: true }, 0), 125);
  assert.equal(findWaitMs(RETRY, 1, { error, unsent: false }, 0), undefined, "it was sent");
});

test("what broke is told by what it rests on", () => {
  const refused = Object.assign(new Error("connect ECONNREFUSED ::1:1"), { code: "ECONNREFUSED", syscall: "connect" });
  const several = Object.assign(new AggregateError([refused, refused]), { code: "ECONNREFUSED" });
  const reset = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET", syscall: "read" });
  const late = Object.assign(new Error("Headers Timeout Error"), { code: "UND_ERR_HEADERS_TIMEOUT" });
  const read = (cause: unknown) => readBreakage(new TypeError("fetch failed", { cause }));
  assert.deepEqual(read(refused), { unsent: true, late: false, message: "connect ECONNREFUSED ::1:1" });
  assert.deepEqual(read(several), { unsent: true, late: false, message: "connect ECONNREFUSED ::1:1" });
  assert.deepEqual(read(reset), { unsent: false, late: false, message: "read ECONNRESET" });
  assert.deepEqual(read(late), { unsent: false, late: true, message: "Headers Timeout Error" });
  const inBun = Object.assign(new TypeError("Unable to connect."), { code: "ECONNREFUSED" });
  assert(readBreakage(inBun).unsent);
  assert(read(new Error("error sending request for url (…): client error (Connect): dns error: no such host")).unsent);
  assert.deepEqual(readBreakage("odd"), { unsent: false, late: false, message: "no answer" });
});

test("the end of a key is told once", async () => {
  const told: Date[] = [];
  const notice = new ExpiryNotice((expiresAt) => told.push(expiresAt));
  for (const value of [undefined, "nonsense", "2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"]) {
    await notice.hear(new Headers(value === undefined ? {} : { "API-Key-Expires-At": value }));
  }
  assert.deepEqual(told, [new Date("2026-12-01T00:00:00Z")]);
});

test("the end of a key is a warning where nobody asked for it", async () => {
  const warned = mock.method(console, "warn", () => undefined);
  await new ExpiryNotice(undefined).hear(new Headers({ "API-Key-Expires-At": "2026-12-01T00:00:00Z" }));
  assert.match(String(warned.mock.calls[0]?.arguments[0]), /2026-12-01/);
  warned.mock.restore();
});

test("a moment is read in either form", () => {
  for (const value of [
    "2026-12-01T00:00:00Z",
    "2026-12-01T00:00:00+00:00",
    "Tue, 01 Dec 2026 00:00:00 GMT",
    "2026-12-01T00:00:00",
  ]) {
    assert.deepEqual(parseMoment(value), new Date("2026-12-01T00:00:00Z"));
  }
  assert.equal(parseMoment("nonsense"), undefined);
});
