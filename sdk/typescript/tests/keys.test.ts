/** What is sent for keys, and what becomes of a secret. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { AegisClient, InputError, SecretNotShownError } from "@aegis/sdk";
import { answering, form, Origin } from "./origin.ts";

const KEY = { id: "000000000001", name: "n", scopes: ["agent:list"], version: 1 };
const MINTED = { ...KEY, key: "aegis_000000000001_S3cret" };

function clientOf({ url }: Origin): AegisClient {
  return new AegisClient({ apiKey: "k", baseUrl: url, retry: { firstWaitMs: 1 } });
}

function readBody(request: string): unknown {
  return JSON.parse(request.slice(request.indexOf("\r\n\r\n")));
}

function findHeader(request: string, name: string): string | undefined {
  return new RegExp(`\\r\\n${name}: (.*)\\r\\n`, "i").exec(request)?.[1];
}

test("all attempts of one minting are one, and the next is another", async (t) => {
  const busy = form(503, { error: "busy" });
  const origin = await Origin.start(t, answering(busy, busy, form(201, MINTED)));
  const minted = await clientOf(origin).keys.mint("n", { scopes: ["agent:list"] });
  await clientOf(origin).keys.rotate("000000000001", { grace: "now" });
  assert.equal(minted.key, "aegis_000000000001_S3cret");
  const [once, again, third, other] = origin.requests.map((request) => findHeader(request, "Idempotency-Key"));
  assert.match(once ?? "", /^[0-9a-f-]{36}$/);
  assert.deepEqual([again, third], [once, once]);
  assert.notEqual(other, once);
});

test("a minted key shows its secret to whoever asks for it by name", async (t) => {
  const origin = await Origin.start(t, answering(form(201, MINTED)));
  const { keys } = clientOf(origin);
  for (const shown of [await keys.mint("n", { preset: "read-only" }), await keys.rotate("000000000001")]) {
    const { key, ...rest } = shown;
    assert.equal(key, MINTED.key);
    assert(!`${inspect([shown])}${JSON.stringify(shown)}${inspect({ ...shown })}${inspect(rest)}`.includes("S3cret"));
  }
});

test("a replay is an error that has the key without its secret", async (t) => {
  const origin = await Origin.start(t, answering(form(200, KEY, "Idempotent-Replay: true")));
  const { keys } = clientOf(origin);
  for (const asked of [keys.mint("n", { preset: "read-only" }), keys.rotate("000000000001")]) {
    await assert.rejects(asked, (error) => {
      assert(error instanceof SecretNotShownError);
      assert.equal(error.apiKey.name, "n");
      assert.match(error.message, /000000000001/);
      return true;
    });
  }
});

test("what is given is sent, and nothing else", async (t) => {
  const origin = await Origin.start(t, answering(form(200, MINTED)));
  const { keys } = clientOf(origin);
  await keys.mint("n", { scopes: "agent:list", expiresAt: new Date("2027-01-01T00:00:00Z"), idempotencyKey: "once" });
  await keys.mint("n", { preset: "p", expiresIn: "never", constraints: { max_calls: 2 } });
  await keys.update("000000000001", { constraints: {}, ifVersion: 7 });
  await keys.disable("000000000001");
  assert.deepEqual(origin.requests.map(readBody), [
    { name: "n", scopes: ["agent:list"], expires_at: "2027-01-01T00:00:00.000Z" },
    { name: "n", preset: "p", expires_in: "never", constraints: { max_calls: 2 } },
    { constraints: {} },
    {},
  ]);
  assert.deepEqual(
    origin.requests.map((request) => findHeader(request, "If-Match")),
    [undefined, undefined, '"7"', undefined],
  );
  assert.equal(findHeader(origin.requests[0] ?? "", "Idempotency-Key"), "once");
  await assert.rejects(keys.mint("n", { idempotencyKey: "two\r\nlines" }), InputError);
  assert.equal(origin.requests.length, 4);
});

test("a change is not tried again, and switching is", async (t) => {
  const busy = form(503, { error: "busy" });
  const origin = await Origin.start(t, answering(busy, busy, form(200, KEY)));
  const { keys } = clientOf(origin);
  await assert.rejects(keys.update("000000000001", { name: "m" }), /busy/);
  assert.equal(origin.requests.length, 1);
  assert.equal((await keys.enable("000000000001")).name, "n");
  assert.equal(origin.requests.length, 3);
});

test("keys are looked for by several words", async (t) => {
  const origin = await Origin.start(t, answering(form(200, { api_keys: [KEY], next_cursor: null })));
  const { keys } = clientOf(origin);
  const listing = keys.list({ query: "a&b", status: ["active", "expired"], owner: "ada", pageSize: 5 });
  assert.equal(inspect(listing), "Listing(GET /v1/api-keys)");
  for await (const key of listing) {
    assert.equal(key.id, "000000000001");
  }
  await keys.list({ status: "active" }).firstPage();
  assert.deepEqual(
    origin.requests.map((request) => request.split(" ")[1]),
    ["/v1/api-keys?q=a%26b&status=active%2Cexpired&owner=ada&limit=5", "/v1/api-keys?status=active"],
  );
});

test("who asks who they are sends no body", async (t) => {
  const origin = await Origin.start(t, answering(form(200, { user_id: "ada" })));
  assert.equal((await clientOf(origin).whoami()).user_id, "ada");
  assert(["0", undefined].includes(findHeader(origin.requests[0] ?? "", "Content-Length")));
  assert.equal(findHeader(origin.requests[0] ?? "", "Content-Type"), undefined);
});
