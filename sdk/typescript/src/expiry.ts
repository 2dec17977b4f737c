/**
 * Telling that a key is about to expire, once.
 *
 * In: the header the proxy sends in a key's last days. Out: a call of the user's, or a warning. Refuses to know: the key.
 */
const HEADER = "API-Key-Expires-At";

/** What one client says of its key's end. */
export class ExpiryNotice {
  readonly #onKeyExpiry: (expiresAt: Date) => unknown;
  #told = false;

  constructor(onKeyExpiry: ((expiresAt: Date) => unknown) | undefined) {
    this.#onKeyExpiry = onKeyExpiry ?? warn;
  }

  /** The headers of one answer. Throws what the user's own callback throws. */
  async hear(headers: Headers): Promise<void> {
    const value = headers.get(HEADER);
    const expiresAt = value === null || this.#told ? undefined : parseMoment(value);
    if (expiresAt !== undefined) {
      this.#told = true;
      await this.#onKeyExpiry(expiresAt);
    }
  }
}

function warn(expiresAt: Date): void {
  console.warn(`the API key expires at ${expiresAt.toISOString()}`);
}

/** An ISO or an HTTP date, in UTC unless it says otherwise; undefined: neither. */
export function parseMoment(value: string): Date | undefined {
  const bare = /^\d{4}-\d{2}-\d{2}T[\d:.]+$/.test(value);
  const moment = new Date(bare ? `${value}Z` : value);
  return Number.isNaN(moment.getTime()) ? undefined : moment;
}
