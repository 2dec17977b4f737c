/** Workflows and their runs. */
import { formPath, get, patch, post, remove } from "./calls.js";
import { formCountedPage, Listing } from "./lists.js";
import type {
  Execution,
  ExecutionPage,
  LogEvent,
  LogPage,
  Version,
  VersionPage,
  Workflow,
  WorkflowPage,
  WorkflowSummary,
} from "./models.js";
import { type Paged, Resource, type Started } from "./resource.js";
import { EventStream } from "./streams.js";
import { readText } from "./transport.js";

/** Which runs are listed. */
export interface RunQuery extends Paged {
  readonly workflowName?: string | undefined;
  readonly status?: string | undefined;
}

/** `client.workflows`. A workflow is named by its name, a run by the id of its execution. */
export class Workflows extends Resource {
  /** All workflows, or those that are seen by `scope`: `user`, `tenant` or `global`. Takes `workflow:list`. */
  list({ scope, pageSize }: Paged & { readonly scope?: string | undefined } = {}): Listing<WorkflowSummary> {
    const call = get(formPath("workflows"), { scope, limit: pageSize });
    return Listing.of(this.transport, call, (page: WorkflowPage) => formCountedPage(page, page.workflows));
  }

  /** One workflow, with its manifest. Takes `workflow:read` (`workflow:read:NAME` is enough). */
  async get(name: string): Promise<Workflow> {
    return await this.transport.fetch(get(formPath("workflows", name)));
  }

  /** The manifest alone. Takes `workflow:read` (`workflow:read:NAME` is enough). */
  async getYaml(name: string): Promise<string> {
    const answer = await this.transport.ask(get(formPath("workflows", name, "yaml")));
    return readText(answer.body);
  }

  /** A new workflow, from its manifest; `force` replaces one of the same name. Takes `workflow:deploy`. */
  async create(manifestYaml: string, { force }: { readonly force?: boolean | undefined } = {}): Promise<Workflow> {
    const call = post(formPath("workflows"), { manifest_yaml: manifestYaml, force: force || undefined });
    return await this.transport.fetch(call);
  }

  /** Takes `workflow:delete` (`workflow:delete:NAME` is enough). */
  async delete(name: string): Promise<void> {
    await this.transport.ask(remove(formPath("workflows", name)));
  }

  /** Its manifests, the oldest first. Takes `workflow:read` (`workflow:read:NAME` is enough). */
  versions(name: string, { pageSize }: Paged = {}): Listing<Version> {
    const call = get(formPath("workflows", name, "versions"), { limit: pageSize });
    return Listing.of(this.transport, call, (page: VersionPage) => formCountedPage(page, page.versions));
  }

  /** Start it. Takes `workflow:run` (`workflow:run:NAME` is enough). */
  async run(name: string, { intent, input }: Started = {}): Promise<Execution> {
    return await this.transport.fetch(post(formPath("workflows", name, "run"), { intent, input }));
  }

  /** Who sees it: `user`, `tenant` or `global`. Takes `team:manage`. */
  async setScope(name: string, scope: string): Promise<WorkflowSummary> {
    return await this.transport.fetch(patch(formPath("workflows", name, "scope"), { scope }));
  }

  /** Runs, the latest first. Takes `execution:list`. */
  listRuns({ workflowName, status, pageSize }: RunQuery = {}): Listing<Execution> {
    const call = get(formPath("workflows", "executions"), { workflow_name: workflowName, status, limit: pageSize });
    return Listing.of(this.transport, call, (page: ExecutionPage) => formCountedPage(page, page.executions));
  }

  /** Takes `execution:read`. */
  async getRun(executionId: string): Promise<Execution> {
    return await this.transport.fetch(get(formPath("workflows", "executions", executionId)));
  }

  /** Takes `workflow:cancel`. */
  async cancelRun(executionId: string): Promise<Execution> {
    return await this.transport.fetch(post(formPath("workflows", "executions", executionId, "cancel")));
  }

  /** Answer a run that waits for a person. Takes `workflow:signal`. */
  async signalRun(executionId: string, signalName: string): Promise<Execution> {
    const path = formPath("workflows", "executions", executionId, "signal");
    return await this.transport.fetch(post(path, { signal_name: signalName }));
  }

  /** What it has written so far. Takes `workflow:logs`. */
  runLogs(executionId: string, { pageSize }: Paged = {}): Listing<LogEvent> {
    const call = get(formPath("workflows", "executions", executionId, "logs"), { limit: pageSize });
    return Listing.of(this.transport, call, (page: LogPage) => formCountedPage(page, page.events));
  }

  /** What it writes, from the first line to its end. Takes `workflow:logs`. */
  streamRunLogs(executionId: string): EventStream {
    return new EventStream(this.transport, get(formPath("workflows", "executions", executionId, "logs", "stream")));
  }
}
