// A key that is changed: only what was touched is sent, and only while the key is what this page has shown.

import { ask, make, occupy, ROOT, say } from "./app.js";
import { checkHere, clear, complain, find, form, readConstraints, readExpiry, readRights, tellRefusal } from "./choosing.js";

let seen = JSON.parse(form.dataset.key);
const path = `/api-keys/${seen.id}`;
const constrained = readConstraints();

function formPatch() {
  const patch = { ...readRights(), ...readExpiry() };
  const name = find("name");
  if (name.value.trim() !== name.defaultValue) patch.name = name.value.trim();
  const constraints = readConstraints();
  const touched = Object.keys({ ...constrained, ...constraints }).filter((one) => differ(constraints[one], constrained[one]));
  if (touched.length) patch.constraints = mend(seen.constraints, constraints, touched);
  return patch;
}

/** They are sent whole: what was not touched here is sent as the key has it, whoever wrote it. */
function mend(held, constraints, touched) {
  const mended = { ...held };
  for (const one of touched) {
    if (one in constraints) mended[one] = constraints[one];
    else delete mended[one];
  }
  return mended;
}

const differ = (one, other) => JSON.stringify(one) !== JSON.stringify(other);

async function save() {
  clear();
  const patch = formPatch();
  const faults = checkHere(patch);
  if (faults.length) return complain(faults);
  if (!Object.keys(patch).length) return location.assign(`${ROOT}/${seen.id}`);
  try {
    await ask("PATCH", path, patch, { "If-Match": `"${seen.version}"` });
    location.assign(`${ROOT}/${seen.id}`);
  } catch (refused) {
    if (refused.code === "key_changed") await tellConflict(refused);
    else tellRefusal(refused);
  }
}

// Somebody else was faster

const WORDS = { name: "Name", scopes: "Rights", expires_at: "Expires", constraints: "Constraints", status: "State" };

async function tellConflict(refused) {
  try {
    show(await ask("GET", path));
  } catch {
    tellRefusal(refused);
  }
}

function show(now) {
  const place = find("conflict");
  const names = Object.keys(WORDS).filter((name) => differ(now[name], seen[name]));
  const lines = names.map((name) => make("li", {}, `${WORDS[name]}: ${name === "scopes" ? compare(seen[name], now[name]) : `${tell(name, seen[name])} → ${tell(name, now[name])}`}`));
  if (!lines.length) lines.push(make("li", {}, "Nothing that stands here: its secret was rotated."));
  const mine = make("button", { type: "button", className: "primary" }, "Save mine all the same");
  const theirs = make("button", { type: "button" }, "Start again from what is there now");
  mine.addEventListener("click", () => { place.hidden = true; occupy(find("save"), save); });
  theirs.addEventListener("click", () => location.reload());
  const told = make("div", { className: "stack" });
  told.append(
    make("p", {}, "This key was changed while you edited it, and nothing of yours is saved yet:"),
    make("ul", {}, ...lines),
    make("p", {}, "What you did not touch here stays as it is there now."),
    make("div", { className: "actions" }, mine, theirs),
  );
  place.replaceChildren(told);
  place.hidden = false;
  place.focus();
  say("This key was changed while you edited it");
  seen = now;
  keepTheirs(now);
}

/** What is not touched is theirs now, and is shown so. */
function keepTheirs({ scopes, expires_at: end }) {
  const [rights, expiry] = ["rights", "expiry"].map((name) => form.querySelector(`input[name=${name}][value=keep]`));
  const more = scopes.length > 4 ? ` and ${scopes.length - 4} more` : "";
  rights.dataset.scopes = JSON.stringify(scopes);
  rights.closest("label").querySelector("b").nextElementSibling.replaceWith(make("span", { className: "note" }, scopes.slice(0, 4).join(", ") + more));
  expiry.dataset.ends = end ?? "";
  form.dispatchEvent(new Event("change"));
}

function compare(before, after) {
  const [lost, won] = [before.filter((one) => !after.includes(one)), after.filter((one) => !before.includes(one))];
  return [lost.length ? `no longer ${lost.join(", ")}` : "", won.length ? `now also ${won.join(", ")}` : ""].filter(Boolean).join("; ") || "in another order";
}

function tell(name, value) {
  if (name === "expires_at") return value ? new Date(value).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }) : "never";
  if (Array.isArray(value)) return value.join(", ") || "none";
  if (typeof value === "object") return Object.entries(value).map(([one, limit]) => `${one.replaceAll("_", " ")} ${limit}`).join("; ") || "none";
  return value;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  occupy(find("save"), save);
});
