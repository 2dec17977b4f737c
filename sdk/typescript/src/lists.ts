/**
 * A list that is asked for page by page, as it is iterated.
 *
 * In: a `Call`, and how to read a page of its answer. Out: items, or pages. Refuses to know: what is listed.
 */
import { type Call, type Given, withQuery } from "./calls.js";
import { UnexpectedAnswerError } from "./errors.js";
import { INSPECT } from "./inspecting.js";
import type { Transport } from "./transport.js";

/** `total`: how many there are on all pages; undefined where nobody counts. `nextQuery` undefined: it is the last. */
export interface Page<T> {
  readonly items: readonly T[];
  readonly total: number | undefined;
  readonly nextQuery: Given | undefined;
}

/** Iterate it for its items: `for await (const item of listing)`. Each iteration asks anew. */
export class Listing<T> implements AsyncIterable<T> {
  readonly #call: Call;
  readonly #fetch: (call: Call) => Promise<Page<T>>;

  private constructor(call: Call, fetch: (call: Call) => Promise<Page<T>>) {
    this.#call = call;
    this.#fetch = fetch;
  }

  /** @internal */
  static of<Answer, T>(transport: Transport, call: Call, formPage: (answer: Answer) => Page<T>): Listing<T> {
    return new Listing(call, async (asked) => formPage(await transport.fetch<Answer>(asked)));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for await (const page of this.pages()) {
      yield* page.items;
    }
  }

  /** Page by page. */
  async *pages(): AsyncGenerator<Page<T>, void, undefined> {
    let page = await this.firstPage();
    yield page;
    while (page.nextQuery !== undefined) {
      page = await this.#fetch(withQuery(this.#call, page.nextQuery));
      yield page;
    }
  }

  /** The first page alone. */
  async firstPage(): Promise<Page<T>> {
    return await this.#fetch(this.#call);
  }

  [INSPECT](): string {
    return `Listing(${this.#call.method} ${this.#call.path})`;
  }
}

/** Of a list that is asked for by position, as the platform's are. */
interface Counted {
  readonly limit: number;
  readonly offset: number;
  readonly total?: number;
}

/** Of a list that is asked for by cursor, as the proxy's are. */
interface Linked {
  readonly next_cursor: string | null;
}

/** One without a total ends with the first page that is not full. Throws UnexpectedAnswerError. */
export function formCountedPage<T>({ limit, offset, total }: Counted, items: readonly T[]): Page<T> {
  checkItems(items);
  const told = offset + items.length;
  const more = items.length > 0 && (total === undefined ? items.length >= limit : told < total);
  return { items, total, nextQuery: more ? { limit, offset: told } : undefined };
}

/** Throws UnexpectedAnswerError. */
export function formLinkedPage<T>({ next_cursor }: Linked, items: readonly T[]): Page<T> {
  checkItems(items);
  return { items, total: undefined, nextQuery: next_cursor ? { cursor: next_cursor } : undefined };
}

function checkItems(items: unknown): void {
  if (!Array.isArray(items)) {
    throw new UnexpectedAnswerError("the answer is no page of a list", 200);
  }
}
