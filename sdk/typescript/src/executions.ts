/** Executions: of agents, workflows and pipelines alike. */
import { encodeFilePath, formPath, get, post, remove } from "./calls.js";
import { formCountedPage, Listing } from "./lists.js";
import type { Execution, ExecutionPage } from "./models.js";
import { type Paged, Resource, type Started } from "./resource.js";
import { EventStream } from "./streams.js";

/** Which executions are listed. */
export interface ExecutionQuery extends Paged {
  readonly agentId?: string | undefined;
  readonly workflowName?: string | undefined;
  readonly status?: string | undefined;
}

/** `client.executions`. */
export class Executions extends Resource {
  /** The latest first; of one agent, one workflow or one status. Takes `execution:list`. */
  list({ agentId, workflowName, status, pageSize }: ExecutionQuery = {}): Listing<Execution> {
    const query = { agent_id: agentId, workflow_name: workflowName, status, limit: pageSize };
    const call = get(formPath("executions"), query);
    return Listing.of(this.transport, call, (page: ExecutionPage) => formCountedPage(page, page.executions));
  }

  /** Set an agent to work. Takes `agent:execute`, for all agents: `agents.execute` is content with one. */
  async start(agentId: string, { intent, input }: Started = {}): Promise<Execution> {
    return await this.transport.fetch(post(formPath("executions"), { agent_id: agentId, intent, input }));
  }

  /** Takes `execution:read`. */
  async get(executionId: string): Promise<Execution> {
    return await this.transport.fetch(get(formPath("executions", executionId)));
  }

  /** Takes `execution:cancel`. */
  async cancel(executionId: string): Promise<Execution> {
    return await this.transport.fetch(post(formPath("executions", executionId, "cancel")));
  }

  /** Out of the history. Takes `execution:remove`. */
  async delete(executionId: string): Promise<void> {
    await this.transport.ask(remove(formPath("executions", executionId)));
  }

  /**
   * Everything it writes, from the first line to its end: `for await (const event of client.executions.stream(id))`.
   *
   * Takes `execution:stream`. A key that is revoked meanwhile throws `KeyRevokedError` in the loop.
   */
  stream(executionId: string): EventStream {
    return new EventStream(this.transport, get(formPath("executions", executionId, "stream")));
  }

  /** A file it left behind. Takes `execution:read`. */
  async readFile(executionId: string, path: string): Promise<Uint8Array> {
    const below = formPath("executions", executionId, "files");
    const answer = await this.transport.ask(get(`${below}/${encodeFilePath(path)}`));
    return answer.body;
  }
}
