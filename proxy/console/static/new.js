// A new key, and its one sight.

import { ask, occupy, ROOT } from "./app.js";
import { checkHere, clear, complain, find, form, readConstraints, readExpiry, readRights, tellRefusal } from "./choosing.js";
import { makeWord, reveal, tellLost } from "./secret.js";

let word = makeWord();

function formWanted() {
  const wanted = { name: find("name").value.trim(), ...readRights(), ...readExpiry() };
  const constraints = readConstraints();
  if (Object.keys(constraints).length) wanted.constraints = constraints;
  return wanted;
}

async function create() {
  clear();
  const wanted = formWanted();
  const faults = checkHere(wanted);
  if (faults.length) return complain(faults);
  try {
    return await ask("POST", "/api-keys", wanted, { "Idempotency-Key": word });
  } catch (refused) {
    tellRefusal(refused);
  }
}

async function show(made) {
  if (!made.key) return tellLost(made.id, find("alert"));
  const how = await reveal({
    token: made.key,
    id: made.id,
    title: `Your new key: ${made.name}`,
    question: "Did you save it? It cannot be shown again. Discarding revokes it, and you can create another.",
    discard: () => ask("DELETE", `/api-keys/${made.id}?reason=not%20saved`),
  });
  location.assign(how === "saved" ? `${ROOT}/${made.id}` : ROOT);
}

for (const kind of ["input", "change"]) form.addEventListener(kind, () => { word = makeWord(); });
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const made = await occupy(find("create"), create);
  if (made) await show(made);
});
