/**
 * What can go wrong, one class for each kind: the tree of `SURFACE.md`.
 *
 * Nothing in here ever held a key.
 */
import type { ApiKey } from "./models.js";

/** The root of everything this package throws on purpose. */
export class AegisError extends Error {}

/** Nothing was sent: there is no key, no base URL, or a package is missing. */
export class ConfigurationError extends AegisError {}

/** There was no answer: no connection could be made, or it broke. */
export class ConnectionFailedError extends AegisError {}

/** Nothing came for as long as `timeoutMs` says. */
export class RequestTimeoutError extends ConnectionFailedError {}

/** A stream broke off, and nobody said why. */
export class StreamInterruptedError extends ConnectionFailedError {}

/** An answer that is none of the API's: a redirect, something else than JSON. */
export class UnexpectedAnswerError extends AegisError {
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

/**
 * The key was made (or rotated) by an earlier attempt, whose answer was lost with the secret in it.
 *
 * `apiKey` is that key, without the secret: rotate it to get one that you see, or revoke it.
 */
export class SecretNotShownError extends AegisError {
  readonly apiKey: ApiKey;

  constructor(apiKey: ApiKey) {
    super(`the secret of key ${apiKey.id} was in an answer that got lost: rotate it, or revoke it`);
    this.apiKey = apiKey;
  }
}

/** One thing that is wrong with what was sent; `field` is its path, such as `constraints.sources[0]`. */
export interface InputFault {
  readonly field: string;
  readonly message: string;
}

/** Everything a refusal says, as it is on the wire. */
export type ProblemMembers = Readonly<Record<string, unknown>>;

/** What an `ApiError` is made of. `status` undefined: it was not even sent. */
export interface Refusal {
  readonly detail: string;
  readonly status: number | undefined;
  readonly problem: ProblemMembers;
  readonly retryAfter?: number | undefined;
}

/**
 * A refusal, in the server's own words.
 *
 * `code` is the stable word for the reason (`key_revoked`), undefined where the platform itself refused; `problem` holds
 * every member of the answer. `retryAfter`: seconds, where the server says when to come back.
 */
export class ApiError extends AegisError {
  readonly detail: string;
  readonly status: number | undefined;
  readonly code: string | undefined;
  readonly title: string | undefined;
  readonly type: string | undefined;
  readonly requestId: string | undefined;
  readonly retryAfter: number | undefined;
  readonly problem: ProblemMembers;

  constructor({ detail, status, problem, retryAfter }: Refusal) {
    const code = findText(problem, "code");
    const requestId = findText(problem, "request_id");
    const beside = [code, requestId && `request ${requestId}`].filter(Boolean).join(", ");
    super(beside ? `${detail} (${beside})` : detail);
    this.detail = detail;
    this.status = status;
    this.code = code;
    this.title = findText(problem, "title");
    this.type = findText(problem, "type");
    this.requestId = requestId;
    this.retryAfter = retryAfter;
    this.problem = problem;
  }
}

/** What was sent cannot be taken, and sending it again will not help. `faults` names each field, where known. */
export class InputError extends ApiError {
  get faults(): InputFault[] {
    const found = this.problem.faults;
    return (Array.isArray(found) ? found : []).filter(isObject).map((each) => ({
      field: String(each.field ?? ""),
      message: String(each.message ?? ""),
    }));
  }
}

/** The key does not open the door. */
export class AuthenticationError extends ApiError {}

/** There is no such key: unknown, mistyped, or its secret is another. */
export class InvalidKeyError extends AuthenticationError {}

/** The key was revoked. That is for good. */
export class KeyRevokedError extends AuthenticationError {}

/** The key's time is over. */
export class KeyExpiredError extends AuthenticationError {}

/** The key is switched off; it may be enabled again. */
export class KeyDisabledError extends AuthenticationError {}

/** The key was rotated, and this is its old secret, past its grace. */
export class SecretRetiredError extends AuthenticationError {}

/** The account the key belongs to is disabled. */
export class OwnerDisabledError extends AuthenticationError {}

/** The key may not do that. */
export class PermissionDeniedError extends ApiError {
  /** The scopes that are needed and not held. */
  get missing(): string[] {
    return findTexts(this.problem, "missing");
  }

  /** The narrowest scope that would do; undefined: no single one would, or it is not told. */
  get smallestSufficient(): string | undefined {
    return findText(this.problem, "smallest_sufficient");
  }

  get required(): string[] {
    return findTexts(this.problem, "required");
  }

  /** What the key may do, all in all. */
  get held(): string[] {
    return findTexts(this.problem, "held");
  }

  /** The rule of the policy that decided. */
  get rule(): string | undefined {
    return findText(this.problem, "rule");
  }
}

/** There is no such thing, or none for this key. */
export class NotFoundError extends ApiError {}

/** It stands against what is there already. */
export class ConflictError extends ApiError {}

/** The key is not at the version any more that the change was made for. */
export class KeyChangedError extends ConflictError {}

/** Too many requests; `retryAfter` says when to come back. */
export class RateLimitedError extends ApiError {}

/** The platform behind the proxy did not answer, or not in time. */
export class UpstreamError extends ApiError {}

/** It cannot be said right now; the key may be perfectly good. */
export class UnavailableError extends ApiError {}

const KINDS = {
  AegisError,
  ConfigurationError,
  ConnectionFailedError,
  RequestTimeoutError,
  StreamInterruptedError,
  UnexpectedAnswerError,
  SecretNotShownError,
  ApiError,
  InputError,
  AuthenticationError,
  InvalidKeyError,
  KeyRevokedError,
  KeyExpiredError,
  KeyDisabledError,
  SecretRetiredError,
  OwnerDisabledError,
  PermissionDeniedError,
  NotFoundError,
  ConflictError,
  KeyChangedError,
  RateLimitedError,
  UpstreamError,
  UnavailableError,
};

// By the word that stands here, and not by the class's own name: what makes code small renames classes.
for (const [name, kind] of Object.entries(KINDS)) {
  Object.defineProperty(kind.prototype, "name", { value: name, configurable: true, writable: true });
}

/** What is not even sent. */
export function refuseInput(field: string, message: string): InputError {
  return new InputError({
    detail: `${field}: ${message}`,
    status: undefined,
    problem: { faults: [{ field, message }] },
  });
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function findText(problem: ProblemMembers, member: string): string | undefined {
  const found = problem[member];
  return typeof found === "string" && found !== "" ? found : undefined;
}

function findTexts(problem: ProblemMembers, member: string): string[] {
  const found = problem[member];
  return Array.isArray(found) ? found.filter((each) => typeof each === "string") : [];
}
