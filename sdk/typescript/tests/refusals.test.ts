/** Refusals become the error that stands in SURFACE.md, in the server's own words. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as sdk from "@aegis/sdk";
import { AegisError, ApiError, ConflictError, InputError, PermissionDeniedError } from "@aegis/sdk";
import { findStreamError, formError, formProblemError, parseRetryAfter } from "../dist/esm/refusals.js";

const NOW = new Date("2026-11-29T00:00:00Z");
const BY_STATUS = {
  400: "InputError",
  401: "AuthenticationError",
  403: "PermissionDeniedError",
  404: "NotFoundError",
  409: "ConflictError",
  412: "KeyChangedError",
  413: "InputError",
  415: "InputError",
  422: "InputError",
  429: "RateLimitedError",
  502: "UpstreamError",
  503: "UnavailableError",
  504: "UpstreamError",
  405: "ApiError",
  418: "ApiError",
  500: "ApiError",
  599: "ApiError",
};
const BY_CODE = {
  credential_missing: "AuthenticationError",
  credential_invalid: "InvalidKeyError",
  credential_malformed: "InvalidKeyError",
  key_revoked: "KeyRevokedError",
  key_expired: "KeyExpiredError",
  key_disabled: "KeyDisabledError",
  secret_retired: "SecretRetiredError",
  owner_disabled: "OwnerDisabledError",
};

function refuse(status: number, body: string, headers: Record<string, string> = {}): ApiError {
  return formError(status, new Headers(headers), new TextEncoder().encode(body), NOW);
}

test("the status decides", () => {
  for (const [status, name] of Object.entries(BY_STATUS)) {
    assert.equal(refuse(Number(status), "{}").name, name);
    assert.equal(refuse(Number(status), '{"code": "some_word", "detail": "no"}').name, name);
  }
});

test("the code refines 401 and nothing else", () => {
  for (const [code, name] of Object.entries(BY_CODE)) {
    assert.equal(refuse(401, JSON.stringify({ code })).name, name);
    assert.equal(refuse(403, JSON.stringify({ code })).name, "PermissionDeniedError");
  }
});

test("a problem is told in its own words", () => {
  const problem = {
    type: "urn:aegis-proxy:problem:route_denied",
    title: "Not allowed",
    status: 403,
    detail: "No.",
    code: "route_denied",
    request_id: "r1",
    missing: ["a:b", 7],
    smallest_sufficient: "a:b",
    held: "c:d",
    rule: "x",
  };
  const error = refuse(403, JSON.stringify(problem), { "Retry-After": "3" });
  assert(error instanceof PermissionDeniedError);
  assert.equal(error.message, "No. (route_denied, request r1)");
  assert.deepEqual([error.status, error.title, error.type], [403, "Not allowed", problem.type]);
  assert.deepEqual([error.requestId, error.retryAfter, error.rule], ["r1", 3, "x"]);
  assert.deepEqual([error.missing, error.smallestSufficient, error.held, error.required], [["a:b"], "a:b", [], []]);
  assert.deepEqual(error.problem, problem);
});

test("the platform's own errors have no code", () => {
  const error = refuse(409, '{"error": "there is one"}');
  assert(error instanceof ConflictError);
  assert.deepEqual([error.message, error.detail], ["there is one", "there is one"]);
  assert.deepEqual([error.code, error.requestId], [undefined, undefined]);
});

test("a body that is none of the API's is not repeated", () => {
  for (const body of ["", "<html>secret</html>", '["secret"]', '{"detail": 7}', "[".repeat(100_000)]) {
    assert.equal(refuse(502, body).message, "Bad Gateway");
    assert.equal(refuse(599, body).message, "status 599");
  }
  assert.equal(formError(502, new Headers(), new Uint8Array([0xff]), NOW).message, "Bad Gateway");
});

test("faults name their fields", () => {
  const faults = [{ field: "name", message: "is empty" }, "odd", {}];
  const error = formProblemError({ detail: "no", faults }, 422);
  assert(error instanceof InputError);
  assert.deepEqual(error.faults, [
    { field: "name", message: "is empty" },
    { field: "", message: "" },
  ]);
  assert.deepEqual(new InputError({ detail: "no", status: 400, problem: { faults: "none" } }).faults, []);
});

test("Retry-After is seconds or a date", () => {
  const later = new Date(NOW.getTime() + 60_000).toUTCString();
  const before = new Date(NOW.getTime() - 60_000).toUTCString();
  for (const [value, seconds] of [
    [null, undefined],
    ["", undefined],
    ["soon", undefined],
    ["-1", undefined],
    ["1.5", undefined],
    ["٣", undefined],
    ["0", 0],
    ["120", 120],
    [later, 60],
    [before, 0],
    ["9".repeat(5000), 999_999_999],
  ] as const) {
    assert.equal(parseRetryAfter(value, NOW), seconds, String(value).slice(0, 40));
  }
});

test("the proxy's last event is an error, and the platform's own is none", () => {
  const problem = { type: "urn:aegis-proxy:problem:key_revoked", status: 401, code: "key_revoked", detail: "revoked" };
  assert.equal(findStreamError(problem)?.name, "KeyRevokedError");
  assert.equal(findStreamError({ ...problem, status: "401" })?.name, "ApiError");
  for (const other of [null, [], "x", {}, { type: 7 }, { type: "urn:other:key_revoked" }]) {
    assert.equal(findStreamError(other), undefined);
  }
});

test("every class has its own name, whatever makes the code small", () => {
  const classes = Object.entries(sdk).filter(([name]) => name.endsWith("Error"));
  assert.equal(classes.length, 23);
  for (const [name, kind] of classes) {
    assert((kind as { prototype: unknown }).prototype instanceof Error);
    assert.equal((kind as { prototype: Error }).prototype.name, name);
    assert(Object.hasOwn((kind as { prototype: object }).prototype, "name"));
  }
  assert(new ApiError({ detail: "no", status: 400, problem: {} }) instanceof AegisError);
});
