// A new key: what it can and cannot do while one chooses, and its one sight.

import { alarm, ask, make, ROOT } from "./app.js";
import { makeWord, reveal, tellLost } from "./secret.js";

const form = document.getElementById("new");
const find = (id) => document.getElementById(id);
const boxes = [...form.querySelectorAll(".tree input[type=checkbox]")];
const SPANS = { "7d": 7, "30d": 30, "90d": 90, "1y": 365 };
let word = makeWord();

const chosen = (name) => form.elements[name].value;

function listOnly(box) {
  const only = box.closest(".row").querySelector("textarea");
  return only ? only.value.split("\n").map((line) => line.trim()).filter(Boolean) : [];
}

/** The scopes that are chosen now. */
function listScopes() {
  const rights = chosen("rights");
  if (rights === "one") {
    const name = find("workflow").value.trim();
    return name ? [`workflow:run:${name}`] : [];
  }
  if (rights !== "custom") {
    const radio = form.querySelector("input[name=rights]:checked");
    return radio ? JSON.parse(radio.dataset.scopes) : [];
  }
  return boxes.filter((box) => box.checked && !box.disabled).flatMap((box) => {
    const only = listOnly(box);
    return only.length ? only.map((name) => `${box.value}:${name}`) : [box.value];
  });
}

function tellRights() {
  const scopes = listScopes();
  const [can, cannot] = [[], []];
  for (const box of boxes) {
    const title = box.dataset.title;
    if (scopes.includes(box.value) || (scopes.includes("*") && box.dataset.may === "yes")) can.push(title);
    else {
      const only = scopes.filter((scope) => scope.startsWith(`${box.value}:`)).map((scope) => scope.slice(box.value.length + 1));
      if (only.length) can.push(`${title}: only ${only.join(", ")}`);
      else cannot.push(title);
    }
  }
  for (const [name, titles] of [["can", can], ["cannot", cannot]]) {
    form.querySelector(`[data-list=${name}]`).replaceChildren(...titles.map((title) => make("li", {}, title)));
    form.querySelector(`[data-count=${name}]`).textContent = titles.length;
  }
}

function findEnd() {
  const value = chosen("expiry");
  if (value === "date") return find("date").value ? new Date(`${find("date").value}T23:59:59`) : null;
  return SPANS[value] ? new Date(Date.now() + SPANS[value] * 86400000) : null;
}

function tellEnd() {
  const end = findEnd();
  find("until").hidden = chosen("expiry") !== "date";
  const never = "It works until somebody revokes it. Prefer an end, and rotate it regularly.";
  const words = end && `It stops working on ${end.toLocaleString(undefined, { dateStyle: "full", timeStyle: "short" })}.`;
  find("ends").textContent = words ?? (chosen("expiry") === "never" ? never : "Choose the last day on which it works.");
}

function update() {
  word = makeWord();
  if (find("one")) find("one").hidden = chosen("rights") !== "one";
  find("custom").hidden = chosen("rights") !== "custom";
  for (const box of boxes) {
    const only = box.closest(".row").querySelector(".only");
    if (only) only.hidden = !box.checked;
  }
  tellRights();
  tellEnd();
}

function search() {
  const words = find("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of form.querySelectorAll(".tree section")) {
    let shown = 0;
    for (const row of section.querySelectorAll(".row")) {
      row.hidden = !words.every((one) => row.dataset.words.includes(one));
      shown += !row.hidden;
    }
    section.hidden = !shown;
  }
}

// What is wrong, beside what it is about.

function clear() {
  alarm("");
  for (const fault of form.querySelectorAll(".fault")) fault.textContent = "";
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

function complain(faults) {
  for (const { field, message } of faults) {
    const place = findPlace(field);
    if (!place) { alarm(`${field}: ${message}`); continue; }
    place.textContent = `${message[0].toUpperCase()}${message.slice(1)}.`.replace(/\.\.$/, ".");
    const details = place.closest("details");
    if (details) details.open = true;
    place.closest(".field")?.querySelector("input, textarea")?.setAttribute("aria-invalid", "true");
  }
  const first = form.querySelector("[aria-invalid]") ?? form.querySelector(".fault:not(:empty)")?.closest("fieldset")?.querySelector("input:checked, input");
  first?.focus();
}

function findPlace(field) {
  const name = field.replace(/\.\d+$/, "");
  const known = { scopes: chosen("rights") === "one" ? "workflow" : "rights", preset: "rights", expires_at: "expiry", expires_in: "expiry" };
  return form.querySelector(`.fault[data-for="${CSS.escape(known[name] ?? name)}"]`);
}

function checkHere(wanted) {
  const faults = [];
  if (!wanted.name) faults.push({ field: "name", message: "Give it a name" });
  if (!chosen("rights")) faults.push({ field: "rights", message: "Choose what it may do" });
  else if (chosen("rights") === "one" && !find("workflow").value.trim()) faults.push({ field: "workflow", message: "Name the workflow" });
  else if (!wanted.preset && !wanted.scopes.length) faults.push({ field: "rights", message: "Choose at least one right" });
  for (const box of chosen("rights") === "custom" ? boxes : []) {
    if (box.checked && box.dataset.may === "some" && !listOnly(box).length) faults.push({ field: "rights", message: `${box.dataset.title}: name which` });
  }
  const end = findEnd();
  if (chosen("expiry") === "date" && !end) faults.push({ field: "expiry", message: "Choose the last day" });
  if (end && end <= new Date()) faults.push({ field: "expiry", message: "That day is over: choose a later one" });
  for (const input of form.querySelectorAll("[data-limit]")) {
    if (input.value.trim() && !Number.isFinite(Number(input.value))) faults.push({ field: `constraints.${input.id}`, message: "Write a number" });
  }
  return faults;
}

function formWanted() {
  const wanted = { name: find("name").value.trim() };
  const rights = chosen("rights");
  if (rights.startsWith("preset:")) wanted.preset = rights.slice(7);
  else wanted.scopes = listScopes();
  if (chosen("expiry") === "date") wanted.expires_at = findEnd()?.toISOString();
  else wanted.expires_in = chosen("expiry");
  const constraints = {};
  const sources = find("sources").value.split(/[\s,]+/).filter(Boolean);
  if (sources.length) constraints.sources = sources;
  for (const input of form.querySelectorAll("[data-limit]")) if (input.value.trim()) constraints[input.id] = Number(input.value);
  if (Object.keys(constraints).length) wanted.constraints = constraints;
  return wanted;
}

async function create(event) {
  event.preventDefault();
  clear();
  const wanted = formWanted();
  const faults = checkHere(wanted);
  if (faults.length) return complain(faults);
  const button = find("create");
  button.disabled = true;
  try {
    await show(await ask("POST", "/api-keys", wanted, { "Idempotency-Key": word }));
  } catch (refused) {
    if (refused.faults?.length) complain(refused.faults);
    else if (refused.code === "key_conflict") complain([{ field: "name", message: refused.message }]);
    else if (refused.code === "expiry_exceeded") complain([{ field: "expires_at", message: refused.message }]);
    else if (refused.status !== 401) alarm(refused.message);
  } finally {
    button.disabled = false;
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

form.addEventListener("input", update);
form.addEventListener("change", update);
form.addEventListener("submit", create);
find("find").addEventListener("input", search);
find("find").addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); }); // makes no key
update();
