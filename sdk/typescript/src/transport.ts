/**
 * Asking, as often as may be, and taking the answer or throwing.
 *
 * In: a `Call`. Out: an answer of 2xx, or one of `errors`. What `fetch` knew of the request (its headers hold the key)
 * ends here: its errors are told in words, and never handed on. Refuses to know: resources.
 */
import { type Call, formTarget, type Given, type Uploadable } from "./calls.js";
import type { Configuration } from "./configuration.js";
import { ConnectionFailedError, isObject, RequestTimeoutError, refuseInput, UnexpectedAnswerError } from "./errors.js";
import { ExpiryNotice } from "./expiry.js";
import { Patience } from "./patience.js";
import { formError } from "./refusals.js";
import { type Failure, findWaitMs } from "./retrying.js";
import { readBreakage, sleep } from "./runtime.js";
import { USER_AGENT } from "./version.js";

/** An answer of 2xx, read to its end. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array;
}

/** An answer of 2xx, open: to be read or cancelled by whoever asked. */
export interface Opened {
  readonly response: Response;
  readonly patience: Patience;
}

/** How much of an upload has the time of one answer, where nobody says how much of it is gone: 35 kB in a second. */
const PIECE_BYTES = 1 << 20;

/** One client's way to the proxy. */
export class Transport {
  readonly #configuration: Configuration;
  readonly #expiry: ExpiryNotice;

  constructor(configuration: Configuration) {
    this.#configuration = configuration;
    this.#expiry = new ExpiryNotice(configuration.onKeyExpiry);
  }

  /** The answer, as JSON has it. Throws AegisError. */
  async fetch<Model>(call: Call): Promise<Model> {
    return readModel<Model>(await this.ask(call));
  }

  /** The answer, read to its end. Throws AegisError. */
  async ask(call: Call): Promise<Answer> {
    const { response, patience } = await this.open(call);
    const body = await this.#readWhole(call, response, patience);
    return { status: response.status, headers: response.headers, body };
  }

  /** The answer, open. Throws AegisError. */
  async open(call: Call): Promise<Opened> {
    for (let attempt = 1; ; attempt += 1) {
      const found = await this.#attempt(call);
      if ("response" in found) {
        return found;
      }
      const waitMs = call.repeatable ? findWaitMs(this.#configuration.retry, attempt, found, Math.random()) : undefined;
      if (waitMs === undefined) {
        throw found.error;
      }
      await sleep(waitMs);
    }
  }

  async #attempt(call: Call): Promise<Opened | Failure> {
    const { baseUrl, fetch, timeoutMs } = this.#configuration;
    const request = this.#formRequest(call);
    const patience = new Patience(timeoutMs * (1 + Math.floor(measure(call.content) / PIECE_BYTES)));
    let response: Response;
    try {
      response = await fetch(baseUrl + formTarget(call), watch(request, patience));
    } catch (error) {
      patience.end();
      return this.#translate(error, call, patience);
    }
    try {
      patience.end(); // whoever is told of the key's end may take their time
      await this.#expiry.hear(response.headers);
      patience.renew();
      return response.ok ? { response, patience } : await this.#refuse(call, response, patience);
    } catch (error) {
      // A callback of the user's, or an answer that broke.
      patience.end();
      await discard(response);
      throw error;
    }
  }

  #formRequest(call: Call): RequestInit {
    const headers = new Headers({ Accept: "application/json", "User-Agent": USER_AGENT, ...call.headers });
    this.#configuration.credential.authorize(headers);
    const request: RequestInit = { method: call.method, headers, redirect: "manual" };
    if (call.body !== undefined) {
      headers.set("Content-Type", "application/json");
      return { ...request, body: formJson(call.body) };
    }
    return call.content === undefined ? request : { ...request, body: call.content as BodyInit };
  }

  async #refuse(call: Call, response: Response, patience: Patience): Promise<Failure> {
    const { status, headers } = response;
    if (status < 400) {
      patience.end();
      await discard(response);
      const what = status === 0 ? "a redirect" : `status ${status}`; // browsers show no more of one
      return { error: new UnexpectedAnswerError(`the answer is none of the API's: ${what}`, status), unsent: false };
    }
    const body = await this.#readWhole(call, response, patience);
    return { error: formError(status, headers, body, new Date()), unsent: false };
  }

  /** Throws ConnectionFailedError. */
  async #readWhole(call: Call, response: Response, patience: Patience): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    try {
      for await (const piece of iterateBody(response)) {
        patience.renew();
        pieces.push(piece);
      }
    } catch (error) {
      throw this.#translate(error, call, patience).error;
    } finally {
      patience.end();
    }
    return join(pieces);
  }

  /** In our words. */
  #translate(error: unknown, { method, path }: Call, patience: Patience): Failure {
    const { unsent, late, message } = readBreakage(error);
    if (patience.isOver || late) {
      return { error: new RequestTimeoutError(`${method} ${path}: nothing came in time`), unsent };
    }
    const told = this.#configuration.credential.keepOutOf(message);
    return { error: new ConnectionFailedError(`${method} ${path}: ${told}`), unsent };
  }
}

/** Throws UnexpectedAnswerError, which repeats nothing that stands in the answer. */
export function readModel<Model>({ status, body }: Answer): Model {
  let found: unknown;
  try {
    found = JSON.parse(readText(body));
  } catch {
    found = undefined;
  }
  if (!isObject(found)) {
    throw new UnexpectedAnswerError("the answer is no JSON object", status);
  }
  return found as Model;
}

export function readText(body: Uint8Array): string {
  return new TextDecoder().decode(body);
}

/** The pieces of an answer's body, as they come. Leaving early lets go of it. */
export async function* iterateBody(response: Response): AsyncGenerator<Uint8Array, void> {
  const reader = response.body?.getReader();
  if (reader === undefined) {
    return;
  }
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      yield read.value;
    }
  } finally {
    await reader.cancel().catch(ignore); // of one that broke, it says so once more
  }
}

/** An answer that nobody reads. */
export async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(ignore);
}

function ignore(): void {}

function join(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((size, piece) => size + piece.byteLength, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.byteLength;
  }
  return whole;
}

/** The bytes of what is uploaded, as far as they are known. */
function measure(content: Uploadable | undefined): number {
  if (typeof content === "string") {
    return content.length;
  }
  if (content instanceof Blob) {
    return content.size;
  }
  return content instanceof ArrayBuffer || ArrayBuffer.isView(content) ? content.byteLength : 0;
}

/** The request, broken off when patience is over. What leaves of a stream is no silence. */
function watch(request: RequestInit, patience: Patience): RequestInit {
  const { signal } = patience;
  if (!(request.body instanceof ReadableStream)) {
    return { ...request, signal };
  }
  const watching = new TransformStream<Uint8Array, Uint8Array>({
    transform(piece, controller) {
      patience.renew();
      controller.enqueue(piece);
    },
  });
  // Without `duplex`, which TypeScript does not know yet, `fetch` takes no stream.
  return { ...request, signal, body: request.body.pipeThrough(watching), duplex: "half" } as RequestInit;
}

/** Throws InputError for what JSON has no words for, such as a circle. */
function formJson(body: Given): string {
  try {
    return JSON.stringify(body);
  } catch (error) {
    throw refuseInput("body", `that cannot be told in JSON: ${error instanceof Error ? error.message : error}`);
  }
}
