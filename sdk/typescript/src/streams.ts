/**
 * A stream of events, iterated as they come.
 *
 * In: a `Call`. Out: `StreamEvent`s, until the server ends the stream; or the reason why it ended early, thrown.
 * Refuses to know: what is told.
 */
import { type Call, formPath, withHeaders } from "./calls.js";
import { AuthenticationError, StreamInterruptedError, UnexpectedAnswerError } from "./errors.js";
import { EventDecoder, readEvent, type StreamEvent } from "./events.js";
import { INSPECT } from "./inspecting.js";
import { discard, iterateBody, type Transport } from "./transport.js";

export const WHO_AM_I: Call = { method: "POST", path: formPath("api-keys", "validate"), repeatable: true };

const ASKED = { Accept: "text/event-stream", "Cache-Control": "no-store" };

/**
 * `for await (const event of stream)`. Connects when it is first iterated; can be iterated once. Leaving early, by
 * `break`, closes it.
 *
 * Throws, while iterated: `KeyRevokedError` when the key is revoked, as `ApiError` in general when the proxy ends the
 * stream and says why; `StreamInterruptedError` when it broke off and nobody knows why.
 */
export class EventStream implements AsyncIterable<StreamEvent> {
  readonly #transport: Transport;
  readonly #call: Call;
  readonly #events: AsyncGenerator<StreamEvent, void, undefined>;

  /** @internal */
  constructor(transport: Transport, call: Call) {
    this.#transport = transport;
    this.#call = withHeaders(call, ASKED);
    this.#events = this.#iterate();
  }

  [Symbol.asyncIterator](): AsyncGenerator<StreamEvent, void, undefined> {
    return this.#events;
  }

  [INSPECT](): string {
    return `EventStream(${this.#call.method} ${this.#call.path})`;
  }

  async *#iterate(): AsyncGenerator<StreamEvent, void, undefined> {
    const decoder = new EventDecoder();
    const pieces = iterateBody(await this.#connect());
    try {
      for (let read = await this.#read(pieces); !read.done; read = await this.#read(pieces)) {
        for (const event of decoder.decode(read.value)) {
          yield readEvent(event);
        }
      }
    } finally {
      await pieces.return();
    }
  }

  async #connect(): Promise<Response> {
    const { response, patience } = await this.#transport.open(this.#call);
    patience.end(); // from now on it may be silent
    const type = response.headers.get("content-type") ?? "none at all";
    if (type.split(";")[0]?.trim().toLowerCase() !== "text/event-stream") {
      await discard(response);
      throw new UnexpectedAnswerError("the answer is no stream of events", response.status);
    }
    return response;
  }

  async #read(pieces: AsyncGenerator<Uint8Array, void>): Promise<IteratorResult<Uint8Array, void>> {
    try {
      return await pieces.next();
    } catch {
      throw await this.#findWhy();
    }
  }

  /** Of a stream that broke: a revocation that the proxy could not say cleanly looks just like that. */
  async #findWhy(): Promise<AuthenticationError | StreamInterruptedError> {
    try {
      await this.#transport.ask(WHO_AM_I);
    } catch (error) {
      if (error instanceof AuthenticationError) {
        return error;
      }
    }
    return new StreamInterruptedError(`${this.#call.method} ${this.#call.path}: the stream broke off`);
  }
}
