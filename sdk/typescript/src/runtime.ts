/**
 * What differs from one JavaScript runtime to another: the environment, and how patient `fetch` is.
 *
 * Refuses to know: keys, and what is asked.
 */
import { findText, isObject } from "./errors.js";

/** What a timer holds; a longer one would end at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** As far as a runtime has one. */
interface Process {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly versions?: Readonly<Record<string, string | undefined>>;
}

function findProcess(): Process {
  return (globalThis as { process?: Process }).process ?? {};
}

/** An environment's variable, where there is an environment. */
export function findVariable(name: string): string | undefined {
  return findProcess().env?.[name];
}

export async function sleep(milliseconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, Math.min(milliseconds, LONGEST_TIMER_MS)));
}

/**
 * The given `fetch`, or the runtime's. Node's breaks off what is silent for five minutes, and a stream may be silent for
 * longer: it is told not to; how long an answer may take is kept by `Patience`.
 */
export function formFetch(given: typeof globalThis.fetch | undefined): typeof globalThis.fetch {
  if (given !== undefined) {
    return given;
  }
  return (input, init) => {
    const beside = isUndiciKnown() ? { dispatcher: { dispatch: dispatchPatiently } } : {};
    return globalThis.fetch(input, { ...init, ...beside } as RequestInit);
  };
}

/** undici is what Node's `fetch` is. Each major version finds what sends its requests in another way. */
function isUndiciKnown(): boolean {
  return /^[678]\./.test(findProcess().versions?.undici ?? "");
}

/** What sends requests, such as by way of a company's proxy. https://undici.nodejs.org/#/docs/api/Dispatcher */
interface Dispatcher {
  dispatch(options: object, handler: object): boolean;
}

/** Of the dispatchers in use, the one for whoever asks: up to version 7 handlers have other methods, and another place. */
function dispatchPatiently(options: object, handler: object): boolean {
  const place = Symbol.for(`undici.globalDispatcher.${"onConnect" in handler ? 1 : 2}`);
  const dispatcher = (globalThis as unknown as Record<symbol, Dispatcher>)[place] as Dispatcher;
  return dispatcher.dispatch({ ...options, headersTimeout: 0, bodyTimeout: 0 }, handler);
}

/** What `fetch` was broken by, in its words and in those of what it rests on. */
export interface Breakage {
  /** No connection could be made, so that nothing was sent. Not every runtime tells. */
  readonly unsent: boolean;
  readonly late: boolean;
  readonly message: string;
}

export function readBreakage(error: unknown): Breakage {
  const causes = listCauses(error);
  const all = (member: string) => causes.flatMap((cause) => findText(cause, member) ?? []);
  const [calls, codes, messages] = [all("syscall"), all("code"), all("message")];
  return {
    unsent:
      calls.some((call) => UNSENT_CALLS.has(call)) ||
      codes.some((code) => UNSENT_CODES.has(code)) ||
      messages.some((message) => message.includes(UNSENT_WORDS)),
    late: codes.some((code) => /^UND_ERR_.*_TIMEOUT$/.test(code)),
    message: messages.at(-1) ?? codes.at(-1) ?? all("name").at(-1) ?? "no answer",
  };
}

/** Node's system errors name the call that failed. */
const UNSENT_CALLS = new Set(["connect", "getaddrinfo"]);
/** undici's, and Bun's. */
const UNSENT_CODES = new Set(["UND_ERR_CONNECT_TIMEOUT", "ECONNREFUSED", "ConnectionRefused", "FailedToOpenSocket"]);
/** Deno has no more than words: https://docs.rs/hyper-util/latest/hyper_util/client/legacy/struct.Error.html */
const UNSENT_WORDS = "client error (Connect)";

type Cause = Readonly<Record<string, unknown>>;

/** An error, what caused it, and what caused that; of a host with several addresses, each attempt. */
function listCauses(error: unknown, depth = 0): Cause[] {
  if (!isObject(error) || depth > 5) {
    return [];
  }
  const several = Array.isArray(error.errors) ? error.errors : [];
  return [error, ...[error.cause, ...several].flatMap((each) => listCauses(each, depth + 1))];
}
