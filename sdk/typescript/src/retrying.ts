/**
 * Whether something is tried again, and how long from now.  [pure]
 *
 * In: how an attempt failed, and a number drawn at random. Out: milliseconds to wait, or undefined: that was the last.
 * Refuses to know: what was asked; clocks.
 */
import type { Configuration } from "./configuration.js";
import { type AegisError, ApiError } from "./errors.js";

/** The proxy cannot say, or what is behind it does not answer: the next moment may be better. */
const PASSING: ReadonlySet<number | undefined> = new Set([502, 503, 504]);

/** An attempt that did not succeed. `unsent`: there was no connection, so that nothing was sent. */
export interface Failure {
  readonly error: AegisError;
  readonly unsent: boolean;
}

/** Until the next attempt after the `attempt`-th, counted from 1. `chance`: at least 0 and below 1. */
export function findWaitMs(
  retry: Configuration["retry"],
  attempt: number,
  { error, unsent }: Failure,
  chance: number,
): number | undefined {
  const askedMs = (error instanceof ApiError ? (error.retryAfter ?? 0) : 0) * 1000;
  const passing = unsent || (error instanceof ApiError && PASSING.has(error.status));
  if (attempt >= retry.attempts || !passing || askedMs > retry.longestWaitMs) {
    return undefined;
  }
  const mostMs = Math.min(retry.longestWaitMs, retry.firstWaitMs * 2 ** (attempt - 1));
  return Math.max((mostMs * (1 + chance)) / 2, askedMs);
}
