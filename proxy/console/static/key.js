// One key: watched live, changed, rotated, revoked.

import { alarm, ask, begin, capitalize, make, occupy, refresh, say } from "./app.js";
import { makeWord, reveal, tellLost } from "./secret.js";

const id = document.getElementById("head").dataset.key;
const path = `/api-keys/${id}`;
const SECONDS = 3; // between two looks
// Seconds without a touch, after which the page stops looking: a sign-in must be able to end.
const RESTING = Math.min(600, Number(document.getElementById("head").dataset.idle) / 3);
let touched = Date.now();
let seen = "";
let word = makeWord(); // of the rotation that the open dialog means

for (const name of ["pointerdown", "keydown", "focus"]) addEventListener(name, () => { touched = Date.now(); });

async function look() {
  const idle = document.hidden || document.querySelector("dialog[open]") || Date.now() - touched > RESTING * 1000;
  if (!idle) {
    try {
      const { sessions } = await ask("GET", `${path}/sessions`);
      const held = JSON.stringify(sessions.map((one) => [one.upstream, one.created_at]));
      if (held !== seen) await refresh(location.pathname, ["sessions"]);
      seen = held;
    } catch {
      // The next look may find it again.
    }
  }
  setTimeout(look, SECONDS * 1000);
}

// Dialogs

document.addEventListener("click", async (event) => {
  const open = event.target.closest("[data-open]");
  if (open) {
    const dialog = document.getElementById(open.dataset.open);
    dialog.querySelector(".fault").textContent = "";
    word = makeWord();
    begin(dialog);
    dialog.showModal();
    if (open.dataset.open === "revoke") countSessions(dialog);
  }
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
  const button = event.target.closest("[data-do]");
  if (!button) return;
  const done = button.dataset.do === "disable" ? "Disabled: it is refused until you enable it" : "Enabled";
  await occupy(button, () => change(() => ask("POST", `${path}/${button.dataset.do}`), done));
});

async function countSessions(dialog) {
  try {
    const { sessions } = await ask("GET", `${path}/sessions`);
    dialog.querySelector("[data-sessions]").textContent = sessions.length;
  } catch {
    // What was there when the page was made stands there still.
  }
}

/** Do it, and show what the key is then. */
async function change(work, done) {
  try {
    await work();
    await refresh(location.pathname, ["head", "old-secret", "facts", "audit", "sessions"]);
    document.querySelector("#head [data-do]")?.focus();
    alarm("");
    say(done);
  } catch (refused) {
    if (refused.status !== 401) alarm(refused.message);
  }
}

/** What a form in a dialog does when it is sent; what goes wrong is said in it, and it stays open. */
function onSubmit(name, work) {
  const dialog = document.getElementById(name);
  const fault = dialog.querySelector(".fault");
  const submit = async (form) => {
    fault.textContent = "";
    try {
      await work(dialog, form);
    } catch (refused) {
      fault.textContent = refused.faults?.length ? refused.faults.map((one) => `${one.field}: ${one.message}.`).join(" ") : refused.message;
    }
  };
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    occupy(dialog.querySelector("button.primary"), () => submit(event.target));
  });
}

onSubmit("rotate", async (dialog, form) => {
  const wanted = { grace: form.elements.compromised.checked ? "now" : form.elements.grace.value, compromised: form.elements.compromised.checked };
  const made = await ask("POST", `${path}/rotate`, wanted, { "Idempotency-Key": word });
  dialog.close();
  if (!made.key) return tellLost(id, document.getElementById("alert"));
  await reveal({
    token: made.key,
    id,
    title: `The new secret of ${made.name}`,
    question: "Did you save it? It cannot be shown again. Without it, rotate once more.",
    discard: null,
  });
  location.reload();
});

onSubmit("revoke", async (dialog, form) => {
  const receipt = document.getElementById("receipt");
  const reason = document.getElementById("reason").value.trim();
  const said = ask("DELETE", reason ? `${path}?${new URLSearchParams({ reason })}` : path);
  say("Revoking, and asking every instance");
  showReceipt(receipt, await said);
  form.hidden = true;
  receipt.hidden = false;
  receipt.focus();
  dialog.addEventListener("close", () => location.reload());
});

const STATES = { confirmed: "Refuses it", unconfirmed: "Not confirmed", fenced: "Cut off: serves nobody" };

function showReceipt(place, said) {
  const count = said.instances.filter((one) => one.state !== "unconfirmed").length;
  const time = said.milliseconds === null ? "" : ` in ${Math.round(said.milliseconds)} ms`;
  const good = said.confirmed;
  const verdict = good ? `Refused on ${count} of ${said.instances.length} instances${time}.` : `Revoked, and not yet confirmed by every instance: ${count} of ${said.instances.length}. Those that are silent close themselves.`;
  const ended = `Ended: ${plural(said.streams, "stream")}, ${plural(said.calls, "running call")}.`;
  const table = make("table", { className: "stacked" });
  const row = (kind, cells) => make("tr", {}, ...cells.map((text) => make(kind, {}, text)));
  table.append(make("thead", {}, row("th", ["Instance", "Answer", "After", "Ended"])));
  const body = make("tbody");
  for (const one of said.instances) {
    const line = row("td", [one.instance.slice(0, 8), STATES[one.state], one.milliseconds === null ? "–" : `${Math.round(one.milliseconds)} ms`, `${plural(one.streams, "stream")}, ${plural(one.calls, "call")}`]);
    ["", "Answer", "After", "Ended"].forEach((label, index) => { if (label) line.cells[index].dataset.label = label; });
    body.append(line);
  }
  table.append(body);
  place.replaceChildren(
    make("h2", {}, "Receipt"),
    make("p", { className: `notice ${good ? "good" : "warn"}` }, `${verdict} ${ended}`),
    table,
    make("div", { className: "actions" }, Object.assign(make("button", { type: "button", className: "primary" }, "Done"), { onclick: () => place.closest("dialog").close() })),
  );
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

// May it?

const question = document.getElementById("ask");
// What is asked about; beside it, what is a JSON object.
const KINDS = { tool: "arguments", path: null, rpc: "params" };
const NEEDED = { tool: "Name a tool.", path: "Write a path, such as /v1/workflows.", rpc: "Name a method, such as resources/read." };

question.addEventListener("change", () => {
  for (const part of question.querySelectorAll("[data-kind]")) part.hidden = part.dataset.kind !== question.elements.kind.value;
});

question.addEventListener("submit", (event) => {
  event.preventDefault();
  occupy(question.querySelector("button"), explain);
});

async function explain() {
  const place = document.getElementById("answer");
  place.replaceChildren();
  for (const fault of question.querySelectorAll(".fault")) fault.textContent = "";
  for (const field of question.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  const kind = question.elements.kind.value;
  const wanted = { [kind]: document.getElementById(kind).value.trim() };
  if (!wanted[kind]) return tellFault(kind, NEEDED[kind]);
  if (kind === "path") wanted.method = document.getElementById("method").value;
  const beside = KINDS[kind];
  const text = beside ? document.getElementById(beside).value.trim() : "";
  if (text) {
    const given = parseObject(text);
    if (!given) return tellFault(beside, `This is not JSON, or no object: write one such as ${document.getElementById(beside).placeholder}.`);
    wanted[beside] = given;
  }
  try {
    showAnswer(place, await ask("POST", `${path}/explain`, wanted));
  } catch (refused) {
    for (const { field, message } of refused.faults?.length ? refused.faults : [{ field: kind, message: refused.message }]) tellFault(field, message);
  }
}

function parseObject(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function tellFault(field, text) {
  const place = question.querySelector(`[data-for="${CSS.escape(field)}"]`) ?? question.querySelector("[data-for=body]");
  place.textContent = text;
  document.getElementById(field)?.setAttribute("aria-invalid", "true");
  document.getElementById(field)?.focus();
}

function showAnswer(place, { allowed, explanation }) {
  const why = explanation.why ? ` ${capitalize(explanation.why)}.` : "";
  const more = (explanation.enough ?? []).filter((scope) => !why.includes(scope));
  const enough = more.length ? ` It would take ${more.join(", ")}.` : "";
  const list = make("ol", { className: "trace" }, ...explanation.trace.map((step) => make("li", {}, step)));
  const word = allowed ? "Allowed." : `Refused.${why}${enough}`;
  const steps = make("details", {}, make("summary", {}, "How the policy got there"), list);
  place.replaceChildren(make("p", { className: `notice ${allowed ? "good" : "bad"}` }, word), steps);
}

setTimeout(look, SECONDS * 1000);
