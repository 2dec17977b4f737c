/**
 * A session of the official MCP client, with the client's key and toward the same proxy.
 *
 * In: a configuration. Out: a connected `Client` of `@modelcontextprotocol/client`, which is an optional peer and asked
 * for only here. Refuses to know: what is done in the session.
 */
import type { Configuration, Credential } from "./configuration.js";
import {
  type AegisError,
  ConfigurationError,
  ConnectionFailedError,
  isObject,
  UnexpectedAnswerError,
} from "./errors.js";
import { formError, formProblemError, readObject } from "./refusals.js";
import { readBreakage } from "./runtime.js";
import { VERSION } from "./version.js";

/**
 * The official package's client.
 *
 * @ts-ignore It is an optional peer: whoever has not installed it has no type of it, and no use for one. */
export type McpClient = import("@modelcontextprotocol/client").Client;

const PATH = "/mcp/v1";
/** What the proxy refuses for a status has the JSON-RPC code of the status beyond this, below nought. */
const RPC_BASE = 31_000;

/** Throws ConfigurationError without the package, AegisError for what the proxy refuses, else what that package does. */
export async function connectMcp(configuration: Configuration): Promise<McpClient> {
  const { Client, StreamableHTTPClientTransport } = await importPackage();

  /** Whoever closes it tells the server, too, that the session is over. */
  class Transport extends StreamableHTTPClientTransport {
    override async close(): Promise<void> {
      const givingUp = setTimeout(() => void super.close(), configuration.timeoutMs);
      await this.terminateSession().catch(() => undefined); // the server, or the key, may be gone
      clearTimeout(givingUp);
      await super.close();
    }
  }

  const door = new Door(configuration);
  const url = new URL(configuration.baseUrl + PATH);
  const transport = new Transport(url, { fetch: door.fetch, requestInit: { redirect: "manual" } });
  const session = new Client({ name: "aegis-sdk-typescript", version: VERSION });
  try {
    await session.connect(transport, { timeout: configuration.timeoutMs });
  } catch (error) {
    const { last } = door;
    await session.close(); // what it still asks for is not why
    throw findRefusal(error) ?? (await explain(last)) ?? error;
  }
  door.isOpen = true;
  return session;
}

async function importPackage(): Promise<typeof import("@modelcontextprotocol/client")> {
  try {
    return await import("@modelcontextprotocol/client");
  } catch {
    throw new ConfigurationError("mcp() needs the official client: npm install @modelcontextprotocol/client");
  }
}

/** Where the session's requests leave with the key; and what became of the last one, until the session is open. */
class Door {
  last: Response | ConnectionFailedError | undefined;
  isOpen = false;
  readonly #credential: Credential;
  readonly #fetch: typeof globalThis.fetch;

  constructor({ credential, fetch }: Configuration) {
    this.#credential = credential;
    this.#fetch = fetch;
  }

  readonly fetch = async (url: string | URL, init?: RequestInit): Promise<Response> => {
    const headers = new Headers(init?.headers);
    this.#credential.authorize(headers);
    try {
      const response = await this.#fetch(url, { ...init, headers });
      this.last = response.ok || this.isOpen ? undefined : response.clone();
      return response;
    } catch (error) {
      const { message } = readBreakage(error);
      this.last = new ConnectionFailedError(`${init?.method} ${PATH}: ${this.#credential.keepOutOf(message)}`);
      throw this.last;
    }
  };
}

/** Why there is no session; undefined: neither the proxy nor the way to it is why. */
async function explain(last: Door["last"]): Promise<AegisError | undefined> {
  return last instanceof Response ? await readRefusal(last).catch(() => undefined) : last;
}

async function readRefusal(response: Response): Promise<AegisError> {
  if (response.status < 400) {
    return new UnexpectedAnswerError(`the answer is none of MCP's: status ${response.status}`, response.status);
  }
  const body = new Uint8Array(await response.arrayBuffer());
  const told = readObject(body).error;
  return isObject(told)
    ? formRpcError(told, response.status)
    : formError(response.status, response.headers, body, new Date());
}

/** What the proxy said in JSON-RPC, with which it may refuse in an answer of 200. */
function findRefusal(error: unknown): AegisError | undefined {
  const code = isObject(error) ? error.code : undefined;
  const status = typeof code === "number" ? -code - RPC_BASE : 0;
  return isObject(error) && status >= 400 && status < 600 ? formRpcError(error, status) : undefined;
}

/** A JSON-RPC error as the problem that it would be elsewhere. */
function formRpcError({ message, data }: Record<string, unknown>, status: number): AegisError {
  const members = isObject(data) ? data : {};
  return formProblemError({ ...members, code: members.reason, detail: message }, status);
}
