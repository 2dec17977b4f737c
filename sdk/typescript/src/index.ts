/**
 * The AEGIS platform from TypeScript and JavaScript, with an API key.
 *
 * ```ts
 * import { AegisClient } from '@aegis/sdk';
 *
 * const client = new AegisClient({ apiKey: 'aegis_…' }); // or AEGIS_API_KEY; where to is said by baseUrl or AEGIS_BASE_URL
 * const execution = await client.workflows.run('nightly-etl');
 * for await (const event of client.executions.stream(execution.execution_id)) {
 *   console.log(event.type, event.data);
 * }
 * ```
 *
 * Every error is an `AegisError`, and every refusal an `ApiError`, in the server's own words. The key is never shown: not
 * by `console.log`, not in an error or a URL.
 *
 * @module
 */
export type { Agents } from "./agents.js";
export type { Uploadable } from "./calls.js";
export { AegisClient } from "./client.js";
export type { AegisClientOptions, Retry } from "./configuration.js";
export {
  AegisError,
  ApiError,
  AuthenticationError,
  ConfigurationError,
  ConflictError,
  ConnectionFailedError,
  InputError,
  type InputFault,
  InvalidKeyError,
  KeyChangedError,
  KeyDisabledError,
  KeyExpiredError,
  KeyRevokedError,
  NotFoundError,
  OwnerDisabledError,
  PermissionDeniedError,
  type ProblemMembers,
  RateLimitedError,
  type Refusal,
  RequestTimeoutError,
  SecretNotShownError,
  SecretRetiredError,
  StreamInterruptedError,
  UnavailableError,
  UnexpectedAnswerError,
  UpstreamError,
} from "./errors.js";
export type { StreamEvent } from "./events.js";
export type { ExecutionQuery, Executions } from "./executions.js";
export type { Asked, ExpiresIn, Grace, Idempotent, KeyChange, KeyQuery, KeyRights, Keys } from "./keys.js";
export type { Listing, Page } from "./lists.js";
export type { McpClient } from "./mcp.js";
export type * from "./models.js";
export type { Paged, Started } from "./resource.js";
export type { EventStream } from "./streams.js";
export { VERSION } from "./version.js";
export type { Volumes } from "./volumes.js";
export type { RunQuery, Workflows } from "./workflows.js";
