/** Whether a value is as a step of the suite expects it: `sdk/suite/README.md`. */
import { isDeepStrictEqual } from "node:util";

/** A step went otherwise than it says. */
export class WrongError extends Error {}

/** Throws WrongError where the two differ. */
export function hold(expected: unknown, found: unknown, where: string): void {
  if (isObject(expected)) {
    const special = Object.keys(expected).find((name) => name.startsWith("$"));
    if (special !== undefined) {
      if (!judge(special, expected[special], found)) {
        throw new WrongError(`${where}: ${show(found)} is not ${show(expected)}`);
      }
      return;
    }
    for (const [name, value] of Object.entries(expected)) {
      hold(value, isObject(found) ? found[name] : undefined, `${where}.${name}`);
    }
  } else if (Array.isArray(expected) && Array.isArray(found) && expected.length === found.length) {
    for (const [number, value] of expected.entries()) {
      hold(value, found[number], `${where}[${number}]`);
    }
  } else if (expected !== found) {
    throw new WrongError(`${where}: ${show(found)} is not ${show(expected)}`);
  }
}

function judge(word: string, given: unknown, found: unknown): boolean {
  const there =
    found !== undefined && found !== null && [[], {}, ""].every((empty) => !isDeepStrictEqual(found, empty));
  switch (word) {
    case "$length":
      return Array.isArray(found) && found.length === given;
    case "$least":
      return Number(Array.isArray(found) ? found.length : found) >= Number(given);
    case "$contains":
      return typeof found === "string" ? found.includes(String(given)) : Array.isArray(found) && found.includes(given);
    case "$not":
      return !isDeepStrictEqual(found, given);
    case "$present":
      return there;
    case "$absent":
      return !there;
    default:
      throw new WrongError(`${word} is no word of the suite`);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? "absent";
}
