/**
 * What is asked for, before anybody asks it.  [pure]
 *
 * In: names and values, as users give them. Out: a `Call` whose path means one thing. Refuses to know: connections, keys.
 */
import { refuseInput } from "./errors.js";

/** Values by name; what is undefined was not given, and is not sent. */
export type Given = Readonly<Record<string, unknown>>;

/** What is sent as it is: a text (as UTF-8), bytes, a file, or a stream of bytes. */
export type Uploadable = string | ArrayBuffer | ArrayBufferView | Blob | ReadableStream<Uint8Array>;

/** `repeatable`: it may be done twice without harm. `body` is sent as JSON, `content` as it is. */
export interface Call {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  readonly path: string;
  readonly query?: Given;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Given;
  readonly content?: Uploadable;
  readonly repeatable?: boolean;
}

type Beside = Pick<Call, "headers" | "repeatable">;

export function get(path: string, query: Given = {}): Call {
  return { method: "GET", path, query, repeatable: true };
}

export function remove(path: string, query: Given = {}): Call {
  return { method: "DELETE", path, query, repeatable: true };
}

export function post(path: string, body: Given = {}, beside: Beside = {}): Call {
  return { method: "POST", path, body, ...beside };
}

export function patch(path: string, body: Given, beside: Beside = {}): Call {
  return { method: "PATCH", path, body, ...beside };
}

export function withQuery(call: Call, query: Given): Call {
  return { ...call, query: { ...call.query, ...query } };
}

export function withHeaders(call: Call, headers: Readonly<Record<string, string>>): Call {
  return { ...call, headers: { ...call.headers, ...headers } };
}

/** Path and query, to be put behind the base URL. */
export function formTarget(call: Call): string {
  const given = Object.entries(call.query ?? {}).filter(([, value]) => value !== undefined);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return query === "" ? call.path : `${call.path}?${query}`;
}

/** A path below /v1, each segment encoded. Throws InputError for one that would mean another path. */
export function formPath(...segments: string[]): string {
  return `/v1/${segments.map(encodeSegment).join("/")}`;
}

/** The same for a path of files, which keeps its slashes. Throws InputError. */
export function encodeFilePath(path: string): string {
  return path
    .replace(/^\/+|\/+$/g, "")
    .split("/")
    .map(encodeSegment)
    .join("/");
}

export function encodeSegment(segment: string): string {
  if (typeof segment !== "string" || segment === "" || segment === "." || segment === "..") {
    throw refuseInput("name", `${JSON.stringify(segment)} cannot stand in a path`);
  }
  try {
    return encodeURIComponent(segment).replace(/[!'()*]/g, encodeCharacter);
  } catch {
    throw refuseInput("name", "half of a character (a lone surrogate) cannot stand in a path");
  }
}

/** The few that `encodeURIComponent` leaves, and RFC 3986 reserves. */
function encodeCharacter(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
}

/** In UTC. Throws InputError for one that is none. */
export function formTime(moment: Date | undefined): string | undefined {
  if (moment !== undefined && Number.isNaN(moment.getTime())) {
    throw refuseInput("expires_at", "that is no time: an invalid Date");
  }
  return moment?.toISOString();
}
