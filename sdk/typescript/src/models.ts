// The API's answers, as they are on the wire. Made from `openapi.json` by `sdk/generate_typescript.py`.

/** One instance's word. `milliseconds` after the revocation; null until it confirmed. */
export interface Confirmation {
  instance: string;
  state: "confirmed" | "unconfirmed" | "fenced" | (string & {});
  milliseconds: number | null;
  streams: number;
  calls: number;
}

/** None: not constrained. `burst`: how many requests may come at once; a second's worth unless told. */
export interface Constraints {
  /** Addresses and CIDRs that requests may come from. */
  sources?: string[] | null;
  requests_per_second?: number | null;
  /** Requests that may come at once. */
  burst?: number | null;
  /** Calls under way at once, on one instance. */
  max_calls?: number | null;
  /** Streams open at once, on one instance. */
  max_streams?: number | null;
}

/** How often a key was let through and denied on one day, UTC. */
export interface DayUse {
  day: string;
  allowed: number;
  denied: number;
}

/** One thing that was done to a key, or that a request showed of it. `before`, `after`: what differs. */
export interface AuditEvent {
  id: number;
  at: string;
  actor: string;
  action: string;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
}

/** The newest first. `next_cursor`: null when there are no more. */
export interface AuditPage {
  events: AuditEvent[];
  next_cursor: string | null;
}

/** `explanation`: why, as denials and `policy explain --json` say it. */
export interface Explanation {
  allowed: boolean;
  explanation: Record<string, unknown>;
}

/** What is wrong with one member. */
export interface Fault {
  field: string;
  message: string;
}

/** A preset may be given whole, or not at all. */
export interface GrantablePreset {
  name: string;
  title: string;
  scopes: string[];
  may: boolean;
  why_not: string | null;
  missing: string[];
}

/**
 * A scope of the catalogue. `selectors`: what of it may be given where not all of it may; `listed`: the platform lists
 * what a selector may name.
 */
export interface GrantableScope {
  scope: string;
  title: string;
  selector: string | null;
  may: boolean;
  why_not: string | null;
  selectors: string[];
  listed: boolean;
}

/** What this caller may give to a key, and why not the rest. */
export interface ScopeCatalogue {
  scopes: GrantableScope[];
  presets: GrantablePreset[];
  expiries: ("7d" | "30d" | "90d" | "1y" | "never" | (string & {}))[];
}

/** A key as everybody may see it who may see it at all: never any part of a secret. */
export interface ApiKey {
  id: string;
  name: string;
  /** The owner's subject. */
  owner: string;
  issuer: string;
  tenant_id: string;
  tier: string;
  preset: string | null;
  scopes: string[];
  status: "active" | "disabled" | "revoked" | "expired" | "owner_disabled" | "constraints_unreadable" | (string & {});
  expires_at: string | null;
  created_at: string;
  created_by: string;
  parent_id: string | null;
  constraints: Record<string, unknown>;
  version: number;
  old_secret_until: string | null;
  revoked_at: string | null;
  revoked_by: string | null;
  revoked_reason: string | null;
  last_used_at: string | null;
  last_used: LastUse | null;
  last_refused: LastRefusal | null;
  old_secret_last_used_at: string | null;
}

/** `next_cursor`: null when there are no more. */
export interface ApiKeyPage {
  api_keys: ApiKey[];
  next_cursor: string | null;
}

/** The last time a key was refused. */
export interface LastRefusal {
  at: string;
  reason: string;
}

/** The last time a key was let in; `count`: how often ever. */
export interface LastUse {
  at: string;
  address: string | null;
  user_agent: string | null;
  /** What it named: a tool, a method, a route or an operation. */
  tool: string;
  count: number;
}

/** A key with its token, for the one sight of it. */
export interface MintedKey extends ApiKey {
  /** The token. It is not stored, and never shown again. */
  key: string;
}

/** What a selector may name; `title`: in words, where the platform has any. */
export interface OfferedName {
  name: string;
  title: string | null;
}

/**
 * What the platform lists for whoever asks, with their own rights. `why_not`: why there is nothing; any exact name may
 * be given all the same.
 */
export interface OfferedNames {
  scope: string;
  selector: string;
  names: OfferedName[];
  why_not: string | null;
}

/** Whose keys there are, and the most that any of them can do (`tier`). */
export interface Owner {
  id: string;
  issuer: string;
  subject: string;
  tenant_id: string;
  tier: string;
  disabled: boolean;
  created_at: string;
}

/** By name. `next_cursor`: null when there are no more. */
export interface OwnerPage {
  owners: Owner[];
  next_cursor: string | null;
}

/** RFC 9457. `error` is `detail` once more, for the platform's clients; some codes have further members. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  request_id: string;
  error: string;
  /** Scopes that would have been needed. */
  missing?: string[] | null;
  faults?: Fault[] | null;
}

/** What became of a revocation on every instance: what it ended there, and whether the instance said so. */
export interface Receipt {
  message: string;
  confirmed: boolean;
  milliseconds: number | null;
  instances: Confirmation[];
  streams: number;
  calls: number;
  api_key: ApiKey;
}

/** A key with its new token. `descendants_revoked`: of a compromised one. */
export interface RotatedKey extends ApiKey {
  /** The token. It is not stored, and never shown again. */
  key: string;
  descendants_revoked: number;
}

/** An MCP session that a key holds upstream; its id is its holder's alone. */
export interface KeySession {
  upstream: string;
  protocol_version: string | null;
  created_at: string;
  last_seen_at: string;
  secret_version: number;
}

/** The newest first. */
export interface KeySessions {
  sessions: KeySession[];
}

/** What a key did on the last days, today included and last. */
export interface Usage {
  days: DayUse[];
  uses: Use[];
}

/** How often a rule allowed or denied, resting on these scopes; of a denial: which would have sufficed, if any. */
export interface Use {
  rule: string;
  scopes: string[];
  allowed: boolean;
  count: number;
  last_at: string;
}

/** What a valid key says of its owner. `scopes`: what it can do now, its maker's and its tier's limits applied. */
export interface Identity {
  user_id: string;
  tenant_id: string;
  aegis_role: string | null;
  scopes: string[];
  zaru_tier: string;
  key_id: string;
  name: string;
  expires_at: string | null;
}

export interface AgentSummary {
  id: string;
  name: string;
  description: string;
  /** Who sees it: user, tenant, global. */
  scope: string;
  revision: number;
}

export interface Agent extends AgentSummary {
  manifest_yaml: string;
}

export interface AgentPage {
  agents: AgentSummary[];
  total: number;
  limit: number;
  offset: number;
}

export interface WorkflowSummary {
  id: string;
  name: string;
  description: string;
  /** Who sees it: user, tenant, global. */
  scope: string;
  revision: number;
}

export interface Workflow extends WorkflowSummary {
  manifest_yaml: string;
}

export interface WorkflowPage {
  workflows: WorkflowSummary[];
  total: number;
  limit: number;
  offset: number;
}

export interface Version {
  version: number;
  manifest_yaml: string;
}

export interface VersionPage {
  versions: Version[];
  total: number;
  limit: number;
  offset: number;
}

export interface Execution {
  execution_id: string;
  /** task (of an agent), workflow, pipeline. */
  kind: string;
  /** The agent's or workflow's name. */
  subject: string;
  /** running, completed, cancelled, … */
  status: string;
  started_at: string;
  /** What it was given. */
  input?: unknown;
}

export interface ExecutionPage {
  executions: Execution[];
  total: number;
  limit: number;
  offset: number;
}

export interface LogEvent {
  type: string;
  execution_id?: string;
  number?: number;
  line?: string;
}

export interface LogPage {
  execution_id: string;
  events: LogEvent[];
  limit: number;
  offset: number;
}

export interface Volume {
  id: string;
  label: string;
  size_limit_bytes: number;
  used_bytes: number;
}

export interface VolumePage {
  volumes: Volume[];
  total: number;
  limit: number;
  offset: number;
}

export interface VolumeFile {
  path: string;
  /** Absent: it is a directory. */
  size_bytes?: number;
}

export interface FilePage {
  files: VolumeFile[];
  total: number;
  limit: number;
  offset: number;
}

export interface UploadedFile {
  volume_id: string;
  path: string;
  size_bytes: number;
  sha256: string;
}

export interface Quota {
  used_bytes: number;
  limit_bytes: number;
  volumes: number;
}
