/** Whom a client speaks to, as whom; and that the key is shown nowhere. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { inspect } from "node:util";
import { AegisClient, ConfigurationError } from "@aegis/sdk";
import { Credential, checkBaseUrl, configure } from "../dist/esm/configuration.js";

const KEY = `aegis_000000000000_C4n4ry${"x".repeat(44)}`;
const URL = "http://127.0.0.1:8080";

beforeEach(() => {
  delete process.env.AEGIS_API_KEY;
  delete process.env.AEGIS_BASE_URL;
});

function refuses(make: () => unknown, said: RegExp): void {
  assert.throws(make, (error: Error) => {
    assert(error instanceof ConfigurationError);
    assert.match(error.message, said);
    assert(!inspect(error).includes("C4n4ry"));
    return true;
  });
}

test("what is not given comes from the environment", () => {
  refuses(() => new AegisClient(), /AEGIS_API_KEY/);
  process.env.AEGIS_API_KEY = KEY;
  refuses(() => new AegisClient(), /AEGIS_BASE_URL/);
  process.env.AEGIS_BASE_URL = URL;
  assert.equal(inspect(new AegisClient()), `AegisClient(baseUrl='${URL}')`);
  assert.equal(JSON.stringify(new AegisClient({ baseUrl: "https://a.example/" })), '{"baseUrl":"https://a.example"}');
});

for (const key of ["", " ", `${KEY}\n`, ` ${KEY}`, "ключ", "a\tb", "a\0b"]) {
  test(`${JSON.stringify(key.replace(KEY, "key"))} is no key, and not repeated`, () => {
    refuses(() => new AegisClient({ apiKey: key, baseUrl: URL }), /API key/);
  });
}

for (const url of [
  "",
  "aegis.example",
  "ftp://aegis.example",
  "http://",
  "http:///v1",
  "http:\\\\aegis.example",
  "http://ada:C4n4ry@aegis.example",
  "https://aegis.example/?key=C4n4ry",
  "https://aegis.example/?",
  "https://aegis.example/#C4n4ry",
  "http://aegis.example:port",
  "http://a b/",
  "http://aegis.example/\n",
]) {
  test(`${JSON.stringify(url)} is no base URL, and not repeated`, () => {
    refuses(() => new AegisClient({ apiKey: KEY, baseUrl: url }), /base URL/);
  });
}

test("a base URL may have a path", () => {
  for (const url of ["http://127.0.0.1:8080", "https://aegis.example/behind/a/path", "http://[::1]:8080"]) {
    assert.equal(checkBaseUrl(url), url);
    assert.equal(checkBaseUrl(`${url}/`), url);
  }
  assert.equal(checkBaseUrl("https://bücher.example"), "https://xn--bcher-kva.example");
});

test("patience and retries that make no sense are refused", () => {
  for (const timeoutMs of [0, -1, Number.NaN]) {
    refuses(() => new AegisClient({ apiKey: KEY, baseUrl: URL, timeoutMs }), /timeout/);
  }
  for (const retry of [{ attempts: 0 }, { firstWaitMs: -1 }, { longestWaitMs: Number.NaN }]) {
    refuses(() => new AegisClient({ apiKey: KEY, baseUrl: URL, retry }), /retry/);
  }
  assert.equal(configure({ apiKey: KEY, baseUrl: URL, timeoutMs: Number.POSITIVE_INFINITY }).timeoutMs, 2 ** 31 - 1);
});

test("the key is shown by nothing a client is made of", () => {
  const client = new AegisClient({ apiKey: KEY, baseUrl: URL });
  const parts = [
    client,
    ...Object.values(client),
    client.agents.list(),
    client.executions.stream("i"),
    new Credential(KEY),
  ];
  for (const part of parts) {
    const shown = [inspect(part, { depth: 9, showHidden: true, customInspect: false }), inspect(part), `${part}`];
    assert(![...shown, JSON.stringify(part)].join().includes("C4n4ry"));
  }
  assert(!inspect(configure({ apiKey: KEY, baseUrl: URL }), { depth: 9 }).includes("C4n4ry"));
});

test("a key is not copied", () => {
  assert(!inspect(structuredClone(new Credential(KEY)), { showHidden: true }).includes("C4n4ry"));
});
