/**
 * What differs from one JavaScript runtime to another: the environment, and how patient `fetch` is.
 *
 * Refuses to know: keys, and what is asked.
 */

/** What a timer holds; a longer one would end at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** An environment's variable, where there is an environment. */
export function findVariable(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name];
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
    const dispatcher = findDispatcher() && { dispatch: dispatchPatiently };
    return globalThis.fetch(input, dispatcher === undefined ? init : ({ ...init, dispatcher } as RequestInit));
  };
}

/** Of undici, which Node's `fetch` is: what sends its requests. https://undici.nodejs.org/#/docs/api/Dispatcher */
interface Dispatcher {
  dispatch(options: object, handler: unknown): boolean;
}

/** Whichever is set when a request leaves, such as the one of a corporate proxy. */
function findDispatcher(): Dispatcher | undefined {
  void globalThis.Headers; // Node loads undici when something of it is first asked for
  const place = globalThis as unknown as Record<symbol, Dispatcher | undefined>;
  return place[Symbol.for("undici.globalDispatcher.2")] ?? place[Symbol.for("undici.globalDispatcher.1")];
}

function dispatchPatiently(options: object, handler: unknown): boolean {
  return findDispatcher()?.dispatch({ ...options, headersTimeout: 0, bodyTimeout: 0 }, handler) ?? false;
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
  const told = causes.filter((each) => each.message).at(-1) ?? causes[0];
  return {
    unsent: causes.some((each) => UNSENT_CALLS.has(each.syscall ?? "") || UNSENT_CODES.has(each.code ?? "")),
    late: causes.some((each) => each.code?.startsWith("UND_ERR_") && each.code.endsWith("_TIMEOUT")),
    message: told?.message || told?.code || told?.name || "no answer",
  };
}

/** Node's system errors name what failed. */
const UNSENT_CALLS = new Set(["connect", "getaddrinfo"]);
/** undici's, and Bun's. */
const UNSENT_CODES = new Set(["UND_ERR_CONNECT_TIMEOUT", "ConnectionRefused", "FailedToOpenSocket"]);

interface Cause {
  readonly name?: string;
  readonly message?: string;
  readonly code?: string;
  readonly syscall?: string;
  readonly cause?: unknown;
  readonly errors?: readonly unknown[];
}

/** An error, what caused it, and what caused that; of a host with several addresses, each attempt. */
function listCauses(error: unknown, depth = 0): Cause[] {
  if (typeof error !== "object" || error === null || depth > 5) {
    return [];
  }
  const { cause, errors = [] } = error as Cause;
  return [error as Cause, ...[cause, ...errors].flatMap((each) => listCauses(each, depth + 1))];
}
