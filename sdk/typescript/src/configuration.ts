/**
 * Whom a client speaks to, as whom, and how patiently.
 *
 * In: options, and the environment for those that are not given. Out: a `Configuration` that was checked, in which the
 * key is held by a thing that never shows it. Refuses to know: requests, and what is asked.
 */
import { ConfigurationError } from "./errors.js";
import { INSPECT } from "./inspecting.js";
import { findVariable, formFetch, LONGEST_TIMER_MS } from "./runtime.js";

const KEY_VARIABLE = "AEGIS_API_KEY";
const BASE_URL_VARIABLE = "AEGIS_BASE_URL";
const TIMEOUT_MS = 30_000;

/**
 * How often something that may be done twice is tried, and how long the waits between may be.
 *
 * `attempts: 1`: once. The first wait is up to `firstWaitMs`, each further one up to twice the last, none longer than
 * `longestWaitMs`; a server that asks for more patience than that is not tried again.
 */
export interface Retry {
  /** Default: 3. */
  readonly attempts?: number | undefined;
  /** Default: 250. */
  readonly firstWaitMs?: number | undefined;
  /** Default: 8000. */
  readonly longestWaitMs?: number | undefined;
}

/** What `new AegisClient(…)` takes; all of it may be left out. */
export interface AegisClientOptions {
  /** Default: the environment's `AEGIS_API_KEY`. */
  readonly apiKey?: string | undefined;
  /** `http(s)://host[:port][/path]`. Default: the environment's `AEGIS_BASE_URL`. */
  readonly baseUrl?: string | undefined;
  /** Milliseconds of silence in which an answer has to come. Default: 30 000. */
  readonly timeoutMs?: number | undefined;
  readonly retry?: Retry | undefined;
  /** Called once, when the key has no more than 14 days left. Default: `console.warn`. */
  readonly onKeyExpiry?: ((expiresAt: Date) => unknown) | undefined;
  /** A `fetch` with settings of your own (proxies, certificates). Default: the runtime's. */
  readonly fetch?: typeof globalThis.fetch | undefined;
}

/** The key, put into each request as it leaves and found nowhere else. */
export class Credential {
  readonly #key: string;

  constructor(key: string) {
    this.#key = key;
  }

  authorize(headers: Headers): void {
    headers.set("Authorization", `Bearer ${this.#key}`);
  }

  /** A text of somebody else's, such as an error of a `fetch` that was given, without the key. */
  keepOutOf(text: string): string {
    return text.replaceAll(this.#key, "…");
  }

  toString(): string {
    return "<an API key>";
  }

  toJSON(): string {
    return this.toString();
  }

  [INSPECT](): string {
    return this.toString();
  }
}

/** `baseUrl` ends without a slash; `onKeyExpiry` undefined: warn. */
export interface Configuration {
  readonly credential: Credential;
  readonly baseUrl: string;
  readonly timeoutMs: number;
  readonly retry: Required<{ [Name in keyof Retry]: number }>;
  readonly onKeyExpiry: ((expiresAt: Date) => unknown) | undefined;
  readonly fetch: typeof globalThis.fetch;
}

/** What was given, completed from the environment. Throws ConfigurationError, which repeats neither key nor URL. */
export function configure(options: AegisClientOptions): Configuration {
  const { timeoutMs = TIMEOUT_MS, onKeyExpiry } = options;
  const key = options.apiKey ?? findVariable(KEY_VARIABLE);
  const url = options.baseUrl ?? findVariable(BASE_URL_VARIABLE);
  if (!key) {
    throw new ConfigurationError(`there is no API key: give apiKey, or set ${KEY_VARIABLE}`);
  }
  if (!/^[!-~]+$/.test(key)) {
    throw new ConfigurationError("the API key has characters in it that no key has, such as a space or a line break");
  }
  if (!url) {
    throw new ConfigurationError(`there is no base URL: give baseUrl, or set ${BASE_URL_VARIABLE}`);
  }
  if (!(timeoutMs > 0)) {
    throw new ConfigurationError("a timeout is more than no time");
  }
  return {
    credential: new Credential(key),
    baseUrl: checkBaseUrl(url),
    timeoutMs: Math.min(timeoutMs, LONGEST_TIMER_MS),
    retry: checkRetry(options.retry ?? {}),
    onKeyExpiry,
    fetch: formFetch(options.fetch),
  };
}

/** Without a slash at the end. Throws ConfigurationError. */
export function checkBaseUrl(text: string): string {
  const [, authority] = /^https?:\/\/([^/?#\\]+)/i.exec(text) ?? [];
  if (authority === undefined || /[\s\p{C}\\]/u.test(text) || !URL.canParse(text)) {
    throw new ConfigurationError("the base URL must be http(s)://host[:port][/path]");
  }
  if (authority.includes("@") || /[?#]/.test(text)) {
    throw new ConfigurationError("the base URL must have neither user, nor query, nor fragment");
  }
  return new URL(text).href.replace(/\/+$/, "");
}

function checkRetry({ attempts = 3, firstWaitMs = 250, longestWaitMs = 8000 }: Retry): Configuration["retry"] {
  if (!(attempts >= 1 && firstWaitMs >= 0 && longestWaitMs >= 0)) {
    throw new ConfigurationError("a retry takes at least one attempt, and waits of no less than nothing");
  }
  return { attempts, firstWaitMs, longestWaitMs: Math.min(longestWaitMs, LONGEST_TIMER_MS) };
}
