/** The suite's words, each where it holds and where it does not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { hold, WrongError } from "./holding.ts";

for (const [expected, right, wrong] of [
  [1, [1], [2, "1", null, undefined, {}]],
  [null, [null], [undefined, 0, "", {}]],
  [[], [[]], [[1], {}, null, ""]],
  [["a", { b: 1 }], [["a", { b: 1, c: 2 }]], [["a"], ["a", {}], [{ b: 1 }, "a"], ["a", { b: 1 }, 3]]],
  [{ a: 1, b: { c: null } }, [{ a: 1, b: { c: null }, d: 0 }], [{ a: 1 }, { a: 1, b: {} }, null, []]],
  [{ $length: 1 }, [["a"]], [[], ["a", "b"], "a", null]],
  [{ $least: 2 }, [[1, 2], [1, 2, 3], 2, 3.5], [[1], 1, null, undefined, "x"]],
  [{ $contains: "b" }, ["abc", ["a", "b"]], ["ac", ["ab"], null, undefined, { b: 1 }]],
  [{ $not: "a" }, ["b", null, undefined, ["a"]], ["a"]],
  [{ $present: true }, [0, false, "a", [0], { a: 1 }], [null, undefined, "", [], {}]],
  [{ $absent: true }, [null, undefined, "", [], {}], [0, false, "a", [0]]],
  [{ a: { $absent: true } }, [{}, { a: null }, null], [{ a: 1 }]],
] as const) {
  test(`${JSON.stringify(expected)} holds where it should`, () => {
    for (const found of right) {
      hold(expected, found, "x");
    }
    for (const found of wrong) {
      assert.throws(() => hold(expected, found, "x"), WrongError, JSON.stringify(found));
    }
  });
}

test("a word that the suite does not have is none", () => {
  assert.throws(() => hold({ a: { $most: 1 } }, { a: 1 }, "x"), /\$most is no word of the suite/);
  assert.throws(() => hold({ a: [1, 2] }, { a: [1, 3] }, "x"), /x\.a\[1\]: 3 is not 2/);
});
