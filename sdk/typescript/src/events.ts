/**
 * What is told on a stream, read.  [pure]
 *
 * In: server-sent events, as bytes come. Out: `StreamEvent`s; the proxy's last word is thrown as the error it tells of.
 */
import { isObject } from "./errors.js";
import { findStreamError } from "./refusals.js";

/** `type` is the event's name, or the member `type` of its data. `data` is JSON read; other text, itself. */
export interface StreamEvent {
  readonly type: string;
  // biome-ignore lint/suspicious/noExplicitAny: what it holds is the platform's to say
  readonly data: any;
  readonly id: string | undefined;
}

/** As it stands on the wire. */
export interface SentEvent {
  readonly name: string;
  readonly data: string;
  readonly id: string;
}

/** Throws ApiError if it is the proxy's, ending the stream. */
export function readEvent({ name, data: text, id }: SentEvent): StreamEvent {
  const data = readData(text);
  const ended = name === "error" ? findStreamError(data) : undefined;
  if (ended !== undefined) {
    throw ended;
  }
  const named = name === "message" && isObject(data) ? data.type : undefined;
  return { type: typeof named === "string" ? named : name, data, id: id === "" ? undefined : id };
}

function readData(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The event stream format, https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream */
export class EventDecoder {
  readonly #decoder = new TextDecoder();
  #rest = "";
  #isReturned = false;
  #name = "";
  #data: string[] = [];
  #id = "";

  /** The events that are complete with these bytes. */
  *decode(bytes: Uint8Array): Generator<SentEvent, void> {
    const text = this.#decoder.decode(bytes, { stream: true });
    // A carriage return ends a line at once; a line feed that comes after it is part of that end.
    this.#rest += this.#isReturned && text.startsWith("\n") ? text.slice(1) : text;
    this.#isReturned = text === "" ? this.#isReturned : text.endsWith("\r");
    const lines = this.#rest.split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = line === "" ? this.#dispatch() : this.#take(line);
      if (event !== undefined) {
        yield event;
      }
    }
  }

  #take(line: string): undefined {
    const [, field = "", value = ""] = /^([^:]*)(?:: ?(.*))?$/su.exec(line) ?? [];
    if (field === "event") {
      this.#name = value;
    } else if (field === "data") {
      this.#data.push(value);
    } else if (field === "id" && !value.includes("\0")) {
      this.#id = value;
    }
    return undefined;
  }

  #dispatch(): SentEvent | undefined {
    const event = { name: this.#name || "message", data: this.#data.join("\n"), id: this.#id };
    const told = this.#data.length > 0;
    this.#name = "";
    this.#data = [];
    return told ? event : undefined;
  }
}
