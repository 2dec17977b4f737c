/**
 * The suite of `sdk/suite`, run by this SDK.
 *
 * `node runner.ts BASE_URL CONTROL_URL`: scenario → steps come as one JSON object on standard input, and the table,
 * scenario → outcomes, goes to standard output.
 */
import { text } from "node:stream/consumers";
import { AegisClient, AegisError, type EventStream, type Retry } from "@aegis/sdk";
import { hold, WrongError } from "./holding.ts";

type Json = unknown;
type Members = Record<string, Json>;

interface Step {
  readonly stage?: string;
  readonly call?: string;
  readonly stream?: string;
  readonly mcp?: string;
  readonly key?: string;
  readonly as?: string;
  readonly args?: Json[];
  readonly with?: Members;
  readonly collect?: boolean;
  readonly pages?: boolean;
  readonly after?: number;
  readonly then?: Step[];
  readonly retry?: Retry;
  readonly raises?: string;
  readonly expect?: Json;
  readonly warnings?: number;
}

interface Place {
  readonly baseUrl: string;
  readonly controlUrl: string;
}

// Of the right form, and its checksum is right: nobody made it.
const NOBODYS_KEY = "aegis_000000000000_00000000000000000000000000000000000000000001VuBFs";
const QUICK: Retry = { firstWaitMs: 2.5, longestWaitMs: 80 };

/** One scenario, under way. */
class Run {
  readonly #place: Place;
  readonly #named = new Map<string, Json>();
  readonly #clients = new Map<string, AegisClient>();
  readonly #warned = new Map<string, number>();

  constructor(place: Place) {
    this.#place = place;
  }

  /** The outcomes, up to the first that is wrong. */
  async go(steps: readonly Step[]): Promise<string[]> {
    const outcomes: string[] = [];
    await this.#ask("begin");
    try {
      for (const step of steps) {
        outcomes.push(await this.#take(step));
      }
    } catch (error) {
      if (!(error instanceof WrongError)) {
        throw error;
      }
      outcomes.push(`wrong: ${error.message}`);
    }
    return outcomes;
  }

  /** One step's outcome. Throws WrongError. */
  async #take(given: Step): Promise<string> {
    const filled = (["args", "with", "expect"] as const).filter((name) => name in given);
    const step: Step = { ...given, ...Object.fromEntries(filled.map((name) => [name, this.#fill(given[name])])) };
    let value: Json;
    try {
      value = await this.#do(step);
    } catch (error) {
      if (!(error instanceof AegisError)) {
        throw error;
      }
      if (error.name !== step.raises) {
        throw new WrongError(`${tell(step)} raised ${error.name}: ${error.message}`);
      }
      hold(step.expect ?? {}, showError(error), tell(step));
      return error.name;
    }
    if (step.raises !== undefined) {
      throw new WrongError(`${tell(step)} did not raise ${step.raises}, but gave ${JSON.stringify(value)}`);
    }
    if (step.expect !== undefined) {
      hold(step.expect, value, tell(step));
    }
    if (step.warnings !== undefined) {
      hold(step.warnings, this.#warned.get(step.key ?? "") ?? 0, `${tell(step)}: warnings`);
    }
    if (step.as !== undefined) {
      this.#named.set(step.as, value);
    }
    return "ok";
  }

  async #do(step: Step): Promise<Json> {
    if (step.stage !== undefined) {
      return await this.#ask(step.stage, step.with);
    }
    const client = this.#findClient(step.key ?? "none", step.retry);
    if (step.mcp !== undefined) {
      return await listTools(client);
    }
    const options = step.with === undefined ? [] : [formOptions(step.with)];
    const result = await callMethod(client, step.call ?? step.stream ?? "whoami", [...(step.args ?? []), ...options]);
    if (step.stream !== undefined) {
      return await this.#follow(result as EventStream, step);
    }
    if (step.pages) {
      return {
        pages: await collect((result as { pages(): AsyncIterable<{ items: Json[] }> }).pages(), (page) => page.items),
      };
    }
    if (step.collect) {
      return { items: await collect(result as AsyncIterable<Json>, (item) => item) };
    }
    return result instanceof Uint8Array ? new TextDecoder().decode(result) : result;
  }

  async #follow(stream: EventStream, step: Step): Promise<Json> {
    const types = new Set<string>();
    let number = 0;
    for await (const event of stream) {
      types.add(event.type);
      number += 1;
      if (number === step.after) {
        for (const nested of step.then ?? []) {
          await this.#take(nested);
        }
      }
    }
    return { types: [...types] };
  }

  #findClient(name: string, retry: Retry | undefined): AegisClient {
    const apiKey = name === "none" ? NOBODYS_KEY : ((this.#named.get(name) as Members).key as string);
    const called = `${name} ${JSON.stringify(retry ?? {})}`;
    const found = this.#clients.get(called);
    const onKeyExpiry = (): unknown => this.#warned.set(name, (this.#warned.get(name) ?? 0) + 1);
    const { baseUrl } = this.#place;
    const client = found ?? new AegisClient({ apiKey, baseUrl, retry: { ...QUICK, ...retry }, onKeyExpiry });
    this.#clients.set(called, client);
    return client;
  }

  async #ask(word: string, given: Json = {}): Promise<Json> {
    const answer = await fetch(`${this.#place.controlUrl}/${word}`, { method: "POST", body: JSON.stringify(given) });
    return await answer.json();
  }

  /** What `$name.member` stands for, wherever it stands. */
  #fill(given: Json): Json {
    if (typeof given === "string" && given.startsWith("$")) {
      const [name = "", member] = given.slice(1).split(".", 2);
      const named = this.#named.get(name);
      return member === undefined ? named : (named as Members)[member];
    }
    if (Array.isArray(given)) {
      return given.map((each) => this.#fill(each));
    }
    if (typeof given === "object" && given !== null) {
      return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, this.#fill(value)]));
    }
    return given;
  }
}

async function collect<Item>(source: AsyncIterable<Item>, show: (item: Item) => Json): Promise<Json[]> {
  const items: Json[] = [];
  for await (const item of source) {
    items.push(show(item));
  }
  return items;
}

async function listTools(client: AegisClient): Promise<Json> {
  const session = await client.mcp();
  try {
    const { tools } = await session.listTools();
    return { tools: tools.map((tool) => tool.name).sort() };
  } finally {
    await session.close();
  }
}

async function callMethod(client: AegisClient, name: string, given: readonly Json[]): Promise<Json> {
  const [method = "", resource] = name.split(".").reverse();
  const place = (resource === undefined ? client : client[resource as "agents"]) as unknown as Members;
  return await (place[formName(method)] as (...given: Json[]) => Json).call(place, ...given);
}

/** The suite's `expires_at` under `with` is a moment. */
function formOptions(given: Members): Members {
  const moment = given.expires_at === undefined ? {} : { expiresAt: new Date(given.expires_at as string) };
  const named = Object.entries(given).map(([name, value]) => [formName(name), value]);
  return { ...Object.fromEntries(named), ...moment };
}

/** A name of the Python column in this language. */
function formName(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** All an error tells, under the names of the Python column. */
function showError(error: AegisError): Members {
  const names = new Set<string>();
  for (let kind: object = error; kind !== AegisError.prototype; kind = Object.getPrototypeOf(kind)) {
    for (const name of Object.getOwnPropertyNames(kind)) {
      names.add(name);
    }
  }
  const told = [...names].map((name) => [
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    (error as unknown as Members)[name] ?? null,
  ]);
  return Object.fromEntries(told);
}

function tell(step: Step): string {
  const kind = (["stage", "call", "stream", "mcp"] as const).find((each) => step[each] !== undefined) ?? "call";
  return `${kind} ${step[kind]}`;
}

const [baseUrl = "", controlUrl = ""] = process.argv.slice(2);
const scenarios = JSON.parse(await text(process.stdin)) as Record<string, Step[]>;
const table: Record<string, string[]> = {};
for (const [name, steps] of Object.entries(scenarios)) {
  table[name] = await new Run({ baseUrl, controlUrl }).go(steps);
}
process.stdout.write(`${JSON.stringify(table)}\n`);
