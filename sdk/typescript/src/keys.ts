/** API keys: listed, minted, changed, ended; what each may do, and why not more. */
import { type Call, formPath, formTime, type Given, get, patch, post, remove } from "./calls.js";
import { refuseInput, SecretNotShownError } from "./errors.js";
import { formLinkedPage, Listing } from "./lists.js";
import type {
  ApiKey,
  ApiKeyPage,
  AuditEvent,
  AuditPage,
  Constraints,
  Explanation,
  KeySession,
  KeySessions,
  MintedKey,
  Receipt,
  RotatedKey,
  ScopeCatalogue,
  Usage,
} from "./models.js";
import { type Paged, Resource } from "./resource.js";
import { readModel } from "./transport.js";

/** How long a key is to live. */
export type ExpiresIn = "7d" | "30d" | "90d" | "1y" | "never";
/** How long the old secret still opens, after a rotation. */
export type Grace = "now" | "1h" | "24h" | "7d";

/** Which keys are listed. `query`: part of a name or an id. */
export interface KeyQuery extends Paged {
  readonly query?: string | undefined;
  /** One or several of `active`, `disabled`, `revoked`, `expired`. */
  readonly status?: string | readonly string[] | undefined;
  readonly preset?: string | undefined;
  readonly owner?: string | undefined;
}

/** A key as it is to be: either `preset` or `scopes`, `expiresIn` or `expiresAt`. */
export interface KeyRights {
  readonly preset?: string | undefined;
  readonly scopes?: string | readonly string[] | undefined;
  readonly expiresIn?: ExpiresIn | undefined;
  readonly expiresAt?: Date | undefined;
  readonly constraints?: Partial<Constraints> | undefined;
}

/** The same key sent again is the same minting or rotation. Default: a random one for each call. */
export interface Idempotent {
  readonly idempotencyKey?: string | undefined;
}

/** A change of a key; `ifVersion`: only if it is still at that version. */
export interface KeyChange extends KeyRights {
  readonly name?: string | undefined;
  readonly ifVersion?: number | undefined;
}

/** What a key could be asked to do: a tool's call, an HTTP request (`path` with its query), any JSON-RPC request. */
export interface Asked {
  readonly tool?: string | undefined;
  readonly arguments?: Given | undefined;
  readonly method?: string | undefined;
  readonly path?: string | undefined;
  readonly rpc?: string | undefined;
  readonly params?: Given | undefined;
}

/** `client.keys`. A key manages the keys that were made by it, as far as its own `key:*` scopes go. */
export class Keys extends Resource {
  /** The newest first. Takes `key:list`. */
  list({ query, status, preset, owner, pageSize }: KeyQuery = {}): Listing<ApiKey> {
    const statuses = status === undefined || typeof status === "string" ? status : status.join(",");
    const call = get(formPath("api-keys"), { q: query, status: statuses, preset, owner, limit: pageSize });
    return Listing.of(this.transport, call, (page: ApiKeyPage) => formLinkedPage(page, page.api_keys));
  }

  /** Takes `key:read`. */
  async get(keyId: string): Promise<ApiKey> {
    return await this.transport.fetch(get(formPath("api-keys", keyId)));
  }

  /**
   * A new key: `minted.key` is shown this once, and by name alone: neither `console.log(minted)` nor
   * `JSON.stringify(minted)` shows it. Takes `key:create`, and all the rights it is to have.
   *
   * Either `preset` or `scopes`; `expiresIn` or `expiresAt` (neither: 90 days). Throws `SecretNotShownError` when an
   * earlier attempt made it and its answer was lost.
   */
  async mint(name: string, { idempotencyKey, ...rights }: KeyRights & Idempotent = {}): Promise<MintedKey> {
    const headers = formIdempotency(idempotencyKey);
    const call = post(formPath("api-keys"), { name, ...formRights(rights) }, { headers, repeatable: true });
    return await this.#show<MintedKey>(call);
  }

  /**
   * What is given is changed; `expiresIn: 'never'` takes the expiry away, `constraints` replaces all of them.
   *
   * `ifVersion`: throws `KeyChangedError` if the key is not at that version any more. Takes `key:update`, and all the
   * rights it is to have.
   */
  async update(keyId: string, { name, ifVersion, ...rights }: KeyChange): Promise<ApiKey> {
    const beside = ifVersion === undefined ? {} : { headers: { "If-Match": `"${ifVersion}"` } };
    return await this.transport.fetch(patch(formPath("api-keys", keyId), { name, ...formRights(rights) }, beside));
  }

  /**
   * Another secret for the same key: `rotated.key`, shown this once. The old one is good for `grace`, an hour.
   *
   * `compromised`: the old secret ends now, and so does every key that was made by this one. Throws
   * `SecretNotShownError` like `mint`. Takes `key:update`.
   */
  async rotate(
    keyId: string,
    {
      grace,
      compromised,
      idempotencyKey,
    }: Idempotent & { readonly grace?: Grace | undefined; readonly compromised?: boolean | undefined } = {},
  ): Promise<RotatedKey> {
    const headers = formIdempotency(idempotencyKey);
    const call = post(formPath("api-keys", keyId, "rotate"), { grace, compromised }, { headers, repeatable: true });
    return await this.#show<RotatedKey>(call);
  }

  /** Refuse it until it is enabled again. Takes `key:update`. */
  async disable(keyId: string): Promise<ApiKey> {
    return await this.transport.fetch(post(formPath("api-keys", keyId, "disable"), {}, { repeatable: true }));
  }

  /** Let it in again. Takes `key:update`. */
  async enable(keyId: string): Promise<ApiKey> {
    return await this.transport.fetch(post(formPath("api-keys", keyId, "enable"), {}, { repeatable: true }));
  }

  /** End it and what was made by it, for good. The receipt says who refuses it since when. Takes `key:revoke`. */
  async revoke(keyId: string, { reason }: { readonly reason?: string | undefined } = {}): Promise<Receipt> {
    return await this.transport.fetch(remove(formPath("api-keys", keyId), { reason }));
  }

  /**
   * Whether the key could do something now, and why: a `tool` call with its `arguments`, an HTTP request (`method`, and
   * `path` with its query), or any JSON-RPC request (`rpc` with its `params`). Takes `key:read`.
   */
  async explain(keyId: string, asked: Asked = {}): Promise<Explanation> {
    const { tool, method, path, rpc, params } = asked;
    const body = { tool, arguments: asked.arguments, method, path, rpc, params };
    return await this.transport.fetch(post(formPath("api-keys", keyId, "explain"), body, { repeatable: true }));
  }

  /** The MCP sessions it holds, the newest first. Takes `key:read`. */
  async sessions(keyId: string): Promise<KeySession[]> {
    const found = await this.transport.fetch<KeySessions>(get(formPath("api-keys", keyId, "sessions")));
    return found.sessions;
  }

  /** What was done to it and what it was denied, the newest first. Takes `key:read`. */
  audit(keyId: string, { pageSize }: Paged = {}): Listing<AuditEvent> {
    const call = get(formPath("api-keys", keyId, "audit"), { limit: pageSize });
    return Listing.of(this.transport, call, (page: AuditPage) => formLinkedPage(page, page.events));
  }

  /** What it did, by day and by rule, on the last days (30). Takes `key:read`. */
  async usage(keyId: string, { days }: { readonly days?: number | undefined } = {}): Promise<Usage> {
    return await this.transport.fetch(get(formPath("api-keys", keyId, "usage"), { days }));
  }

  /** All scopes and presets, and which of them this key may give away. */
  async scopes(): Promise<ScopeCatalogue> {
    return await this.transport.fetch(get(formPath("scopes")));
  }

  /** A key with its secret. Throws SecretNotShownError where that was in an answer that got lost. */
  async #show<Shown extends MintedKey>(call: Call): Promise<Shown> {
    const answer = await this.transport.ask(call);
    if (answer.headers.get("Idempotent-Replay") === "true") {
      throw new SecretNotShownError(readModel<ApiKey>(answer));
    }
    return hideSecret(readModel<Shown>(answer));
  }
}

/** Whoever asks for `key` by name gets it; whatever goes over all members passes it by. */
function hideSecret<Shown extends MintedKey>(shown: Shown): Shown {
  return Object.defineProperty(shown, "key", { enumerable: false });
}

/** The same in all attempts of one call. */
function formIdempotency(given: string = crypto.randomUUID()): Record<string, string> {
  if (!/^[!-~]+$/.test(given)) {
    throw refuseInput("idempotency_key", "that is none: visible ASCII characters without spaces");
  }
  return { "Idempotency-Key": given };
}

function formRights({ preset, scopes, expiresIn, expiresAt, constraints }: KeyRights): Given {
  return {
    preset,
    scopes: typeof scopes === "string" ? [scopes] : scopes,
    expires_in: expiresIn,
    expires_at: formTime(expiresAt),
    constraints,
  };
}
