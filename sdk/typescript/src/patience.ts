/**
 * How long a silence may last before an attempt is given up.
 *
 * In: milliseconds. Out: a signal that breaks it off. Refuses to know: what is waited for.
 */
export class Patience {
  isOver = false;
  readonly #milliseconds: number;
  readonly #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(milliseconds: number) {
    this.#milliseconds = milliseconds;
    this.renew();
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Something came, or went. */
  renew(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.isOver = true;
      this.#abort.abort();
    }, this.#milliseconds);
  }

  /** From now on it does not matter. */
  end(): void {
    clearTimeout(this.#timer);
  }
}
