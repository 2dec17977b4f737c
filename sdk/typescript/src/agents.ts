/** Agents: made, read, changed, deleted, set to work, followed. */
import { formPath, get, patch, post, remove } from "./calls.js";
import { formCountedPage, Listing } from "./lists.js";
import type { Agent, AgentPage, AgentSummary, Execution, Version, VersionPage } from "./models.js";
import { type Paged, Resource, type Started } from "./resource.js";
import { EventStream } from "./streams.js";

/** `client.agents`. An agent is named by its id, or by its name where the platform takes one. */
export class Agents extends Resource {
  /** All agents, or those that are seen by `scope`: `user`, `tenant` or `global`. Takes `agent:list`. */
  list({ scope, pageSize }: Paged & { readonly scope?: string | undefined } = {}): Listing<AgentSummary> {
    const call = get(formPath("agents"), { scope, limit: pageSize });
    return Listing.of(this.transport, call, (page: AgentPage) => formCountedPage(page, page.agents));
  }

  /** One agent, with its manifest. Takes `agent:read` (`agent:read:AGENT` is enough). */
  async get(agentId: string): Promise<Agent> {
    return await this.transport.fetch(get(formPath("agents", agentId)));
  }

  /** One agent by its name. Takes `agent:read` (`agent:read:NAME` is enough). */
  async lookup(name: string): Promise<Agent> {
    return await this.transport.fetch(get(formPath("agents", "lookup", name)));
  }

  /** A new agent, from its manifest; `force` replaces one of the same name. Takes `agent:deploy`. */
  async create(manifestYaml: string, { force }: { readonly force?: boolean | undefined } = {}): Promise<Agent> {
    const call = post(formPath("agents"), { manifest_yaml: manifestYaml, force: force || undefined });
    return await this.transport.fetch(call);
  }

  /** A new revision: another manifest of the same name, or another description. Takes `agent:deploy`. */
  async update(
    agentId: string,
    change: { readonly manifestYaml?: string | undefined; readonly description?: string | undefined },
  ): Promise<Agent> {
    const body = { manifest_yaml: change.manifestYaml, description: change.description };
    return await this.transport.fetch(patch(formPath("agents", agentId), body));
  }

  /** Takes `agent:delete` (`agent:delete:AGENT` is enough). */
  async delete(agentId: string): Promise<void> {
    await this.transport.ask(remove(formPath("agents", agentId)));
  }

  /** Its manifests, the oldest first. Takes `agent:read` (`agent:read:AGENT` is enough). */
  versions(agentId: string, { pageSize }: Paged = {}): Listing<Version> {
    const call = get(formPath("agents", agentId, "versions"), { limit: pageSize });
    return Listing.of(this.transport, call, (page: VersionPage) => formCountedPage(page, page.versions));
  }

  /** Set it to work. Takes `agent:execute` (`agent:execute:AGENT` is enough). */
  async execute(agentId: string, { intent, input }: Started = {}): Promise<Execution> {
    return await this.transport.fetch(post(formPath("agents", agentId, "execute"), { intent, input }));
  }

  /** Who sees it: `user`, `tenant` or `global`. Takes `team:manage`. */
  async setScope(agentId: string, scope: string): Promise<AgentSummary> {
    return await this.transport.fetch(patch(formPath("agents", agentId, "scope"), { scope }));
  }

  /** What its executions write, from now on. Takes `agent:logs` (`agent:logs:AGENT` is enough). */
  events(agentId: string): EventStream {
    return new EventStream(this.transport, get(formPath("agents", agentId, "events")));
  }
}
