/** What Node's `util.inspect`, and so `console.log`, asks an object that wants to show itself. */
export const INSPECT = Symbol.for("nodejs.util.inspect.custom");
