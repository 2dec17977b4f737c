/**
 * Which error a refusal is.  [pure]
 *
 * In: the status, headers and body of a refusal, or the problem that ends a stream. Out: the error to be thrown, with
 * the server's own words. Refuses to know: who asked, and with which key.
 */
import {
  ApiError,
  AuthenticationError,
  ConflictError,
  findText,
  InputError,
  InvalidKeyError,
  isObject,
  KeyChangedError,
  KeyDisabledError,
  KeyExpiredError,
  KeyRevokedError,
  NotFoundError,
  OwnerDisabledError,
  PermissionDeniedError,
  type ProblemMembers,
  RateLimitedError,
  type Refusal,
  SecretRetiredError,
  UnavailableError,
  UpstreamError,
} from "./errors.js";

type Kind = new (refusal: Refusal) => ApiError;

const BY_STATUS = new Map<number, Kind>([
  [400, InputError],
  [401, AuthenticationError],
  [403, PermissionDeniedError],
  [404, NotFoundError],
  [409, ConflictError],
  [412, KeyChangedError],
  [413, InputError],
  [415, InputError],
  [422, InputError],
  [429, RateLimitedError],
  [502, UpstreamError],
  [503, UnavailableError],
  [504, UpstreamError],
]);

const BY_CODE = new Map<string | undefined, Kind>([
  ["credential_invalid", InvalidKeyError],
  ["credential_malformed", InvalidKeyError],
  ["key_revoked", KeyRevokedError],
  ["key_expired", KeyExpiredError],
  ["key_disabled", KeyDisabledError],
  ["secret_retired", SecretRetiredError],
  ["owner_disabled", OwnerDisabledError],
]);

/** RFC 9110 section 15, as far as somebody may answer so. */
const PHRASES = new Map([
  [400, "Bad Request"],
  [401, "Unauthorized"],
  [403, "Forbidden"],
  [404, "Not Found"],
  [405, "Method Not Allowed"],
  [406, "Not Acceptable"],
  [407, "Proxy Authentication Required"],
  [408, "Request Timeout"],
  [409, "Conflict"],
  [410, "Gone"],
  [411, "Length Required"],
  [412, "Precondition Failed"],
  [413, "Content Too Large"],
  [414, "URI Too Long"],
  [415, "Unsupported Media Type"],
  [421, "Misdirected Request"],
  [422, "Unprocessable Content"],
  [426, "Upgrade Required"],
  [429, "Too Many Requests"],
  [431, "Request Header Fields Too Large"],
  [500, "Internal Server Error"],
  [501, "Not Implemented"],
  [502, "Bad Gateway"],
  [503, "Service Unavailable"],
  [504, "Gateway Timeout"],
]);

/** Of a problem on a stream, which has no status line of its own. */
const OURS = "urn:aegis-proxy:problem:";

/** What a refused request is answered with. A body that is neither a problem nor `{"error": …}` is not repeated. */
export function formError(status: number, headers: Headers, body: Uint8Array, now: Date): ApiError {
  return formProblemError(readObject(body), status, parseRetryAfter(headers.get("retry-after"), now));
}

export function formProblemError(problem: ProblemMembers, status: number, retryAfter?: number): ApiError {
  const detail = findText(problem, "detail") ?? findText(problem, "error") ?? PHRASES.get(status) ?? `status ${status}`;
  let kind = BY_STATUS.get(status) ?? ApiError;
  if (kind === AuthenticationError) {
    kind = BY_CODE.get(findText(problem, "code")) ?? AuthenticationError;
  }
  return new kind({ detail, status, problem, retryAfter });
}

/** The error that a stream's last event tells of; undefined: it is the platform's own event, and no end. */
export function findStreamError(problem: unknown): ApiError | undefined {
  if (!isObject(problem) || !findText(problem, "type")?.startsWith(OURS)) {
    return undefined;
  }
  const status = problem.status;
  return formProblemError(problem, typeof status === "number" ? status : 0);
}

/** Seconds, from seconds or a date (RFC 9110 section 10.2.3); undefined: it says neither. */
export function parseRetryAfter(value: string | null, now: Date): number | undefined {
  if (value === null) {
    return undefined;
  }
  if (/^[0-9]+$/.test(value)) {
    return Number(value.slice(0, 9));
  }
  // Date.parse takes much that is no date of HTTP's, such as "-1".
  const moment = /^[A-Za-z]{3,9},? /.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(moment) ? undefined : Math.max((moment - now.getTime()) / 1000, 0);
}

/** A body that is a JSON object; empty if it is not. */
export function readObject(body: Uint8Array): ProblemMembers {
  try {
    const found: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
    return isObject(found) ? found : {};
  } catch {
    return {};
  }
}
