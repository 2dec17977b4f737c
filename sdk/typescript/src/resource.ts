/** What all resources have: a way to ask. */
import type { Transport } from "./transport.js";

/** Some of the API's methods, by what they are about. */
export abstract class Resource {
  /** @internal */
  protected readonly transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.transport = transport;
  }
}

/** Of a list: how many to ask for at a time. */
export interface Paged {
  readonly pageSize?: number | undefined;
}

/** What something that runs is given. */
export interface Started {
  readonly intent?: string | undefined;
  readonly input?: unknown;
}
