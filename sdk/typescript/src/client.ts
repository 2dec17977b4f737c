/** The client: one key, one proxy, and the resources behind it. */
import { Agents } from "./agents.js";
import { type AegisClientOptions, type Configuration, configure } from "./configuration.js";
import { Executions } from "./executions.js";
import { INSPECT } from "./inspecting.js";
import { Keys } from "./keys.js";
import { connectMcp, type McpClient } from "./mcp.js";
import type { Identity } from "./models.js";
import { WHO_AM_I } from "./streams.js";
import { Transport } from "./transport.js";
import { Volumes } from "./volumes.js";
import { Workflows } from "./workflows.js";

/**
 * The AEGIS platform, as far as one API key opens it.
 *
 * Throws `ConfigurationError` when there is no key or no base URL. There is nothing to close.
 */
export class AegisClient {
  readonly agents: Agents;
  readonly workflows: Workflows;
  readonly executions: Executions;
  readonly volumes: Volumes;
  readonly keys: Keys;
  readonly #configuration: Configuration;
  readonly #transport: Transport;

  constructor(options: AegisClientOptions = {}) {
    this.#configuration = configure(options);
    this.#transport = new Transport(this.#configuration);
    this.agents = new Agents(this.#transport);
    this.workflows = new Workflows(this.#transport);
    this.executions = new Executions(this.#transport);
    this.volumes = new Volumes(this.#transport);
    this.keys = new Keys(this.#transport);
  }

  /** Whose key this is, and what it may do. Any key may ask. */
  async whoami(): Promise<Identity> {
    return await this.#transport.fetch(WHO_AM_I);
  }

  /**
   * A connected session of the official MCP client: `const session = await client.mcp()`, `await session.close()`.
   *
   * Takes the package `@modelcontextprotocol/client`.
   */
  async mcp(): Promise<McpClient> {
    return await connectMcp(this.#configuration);
  }

  toJSON(): { readonly baseUrl: string } {
    return { baseUrl: this.#configuration.baseUrl };
  }

  [INSPECT](): string {
    return `AegisClient(baseUrl='${this.#configuration.baseUrl}')`;
  }
}
