// What a key may do, until when and from where: chosen on the form for a new one, and on the form that changes one.

import { alarm, ask, capitalize, make, say } from "./app.js";

export const form = document.querySelector("form.columns");
export const find = (id) => document.getElementById(id);
const boxes = [...form.querySelectorAll(".tree input[type=checkbox]")];
const SPANS = { "7d": 7, "30d": 30, "90d": 90, "1y": 365 };

export const chosen = (name) => form.elements[name].value;

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

/** When the key ends as it is; "": never. */
const kept = () => form.querySelector("input[data-ends]").dataset.ends;

function findEnd() {
  const value = chosen("expiry");
  if (value === "date") return find("date").value ? new Date(`${find("date").value}T23:59:59`) : null;
  if (value === "keep" || value === "own") return kept() ? new Date(kept()) : null;
  return SPANS[value] ? new Date(Date.now() + SPANS[value] * 86400000) : null;
}

function tellEnd() {
  const end = findEnd();
  find("until").hidden = chosen("expiry") !== "date";
  const never = "It works until somebody revokes it. Prefer an end, and rotate it regularly.";
  const words = end && `It stops working on ${end.toLocaleString(undefined, { dateStyle: "full", timeStyle: "short" })}.`;
  find("ends").textContent = words ?? (chosen("expiry") === "date" ? "It works until the end of that day, in your time." : never);
}

function update() {
  if (find("one")) find("one").hidden = chosen("rights") !== "one";
  find("custom").hidden = chosen("rights") !== "custom";
  for (const box of boxes) {
    const only = box.closest(".row").querySelector(".only");
    if (only) only.hidden = !box.checked;
    if (only && box.checked && chosen("rights") === "custom") offerBelow(only);
  }
  if (chosen("rights") === "one") offerWorkflows(find("workflow"));
  tellRights();
  tellEnd();
}

// Names that the platform lists for whoever is signed in. Without them one types.

const asked = new Map();

/** What a scope's selector may name; asked once for all scopes whose selectors name the same. */
async function findNames({ listed, selector }) {
  if (!asked.has(selector)) asked.set(selector, ask("GET", `/scopes/names?${new URLSearchParams({ scope: listed })}`));
  const answer = await asked.get(selector).catch((refused) => ({ names: [], why_not: refused.message.replace(/\.$/, "") }));
  if (answer.why_not) asked.delete(selector);
  return answer;
}

/** Ask for them once for this place, and say there how it went. */
async function offer(place, note, how, show) {
  if (!place.dataset.listed || place.dataset.asked) return;
  place.dataset.asked = "yes";
  note.textContent = "Asking the platform for names…";
  const { names, why_not: why } = await findNames(place.dataset);
  if (why) {
    const again = make("button", { type: "button", className: "plain" }, "Ask again");
    again.addEventListener("click", () => { delete place.dataset.asked; offer(place, note, how, show); });
    note.replaceChildren(`No names can be offered: ${why}. Type the name.`, again);
  } else note.textContent = names.length ? `The platform lists ${names.length} for you: ${how}. Another can be typed.` : "The platform lists none for you. Type the name.";
  show(names);
}

function offerWorkflows(input) {
  offer(input, find("workflow-names"), "begin to type, and choose", (names) => {
    find("workflows").replaceChildren(...names.map(({ name, title }) => make("option", { value: name, label: title ?? "" })));
  });
}

function offerBelow(only) {
  const note = make("p", { className: "note" });
  note.setAttribute("role", "status");
  if (only.dataset.listed && !only.dataset.asked) only.append(note);
  offer(only, note, "choose above", (names) => {
    if (!names.length) return;
    const area = only.querySelector("textarea");
    const options = names.map(({ name, title }) => new Option(title && title !== name ? `${name}: ${title}` : name, name));
    const select = make("select", {}, new Option("Add one that is listed…", ""), ...options);
    select.setAttribute("aria-label", `${area.getAttribute("aria-label")}: add one that is listed`);
    select.addEventListener("change", () => {
      const lines = area.value.split("\n").filter(Boolean);
      if (select.value && !lines.includes(select.value)) area.value = [...lines, select.value].join("\n");
      if (select.value) say(`Added ${select.value}`);
      select.value = "";
      update();
    });
    note.before(select);
  });
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

export function clear() {
  alarm("");
  for (const fault of form.querySelectorAll(".fault")) fault.textContent = "";
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

export function complain(faults) {
  for (const { field, message } of faults) {
    const place = findPlace(field);
    if (!place) { alarm(`${field}: ${message}`); continue; }
    place.textContent ||= `${capitalize(message)}.`.replace(/\.\.$/, ".");
    const details = place.closest("details");
    if (details) details.open = true;
    const where = place.closest(".field") ?? (place.dataset.for === "expiry" && chosen("expiry") === "date" ? find("until") : null);
    where?.querySelector("input, textarea")?.setAttribute("aria-invalid", "true");
  }
  const first = form.querySelector("[aria-invalid]") ?? form.querySelector(".fault:not(:empty)")?.closest("fieldset")?.querySelector("input:checked, input");
  first?.focus();
}

function findPlace(field) {
  const name = field.replace(/\.\d+$/, "");
  const known = { scopes: chosen("rights") === "one" ? "workflow" : "rights", preset: "rights", expires_at: "expiry", expires_in: "expiry" };
  return form.querySelector(`.fault[data-for="${CSS.escape(known[name] ?? name)}"]`);
}

export function checkHere(wanted) {
  const faults = [];
  if (!find("name").value.trim()) faults.push({ field: "name", message: "Give it a name" });
  if (!chosen("rights")) faults.push({ field: "rights", message: "Choose what it may do" });
  else if (chosen("rights") === "one" && !find("workflow").value.trim()) faults.push({ field: "workflow", message: "Name the workflow" });
  else if (wanted.scopes && !wanted.scopes.length) faults.push({ field: "rights", message: "Choose at least one right" });
  for (const box of chosen("rights") === "custom" ? boxes : []) {
    if (box.checked && box.dataset.may === "some" && !listOnly(box).length) faults.push({ field: "rights", message: `${box.dataset.title}: name which` });
  }
  const end = findEnd();
  if (chosen("expiry") === "date" && !end) faults.push({ field: "expiry", message: "Choose the last day" });
  if (end && end <= new Date()) faults.push({ field: "expiry", message: "That day is over: choose a later one" });
  for (const input of form.querySelectorAll("[data-limit]")) {
    if (input.value.trim() && !Number.isFinite(Number(input.value))) faults.push({ field: `constraints.${input.id}`, message: "Write a number" });
    else if (input.value.trim() && Number(input.value) <= 0) faults.push({ field: `constraints.${input.id}`, message: "Write a number above 0" });
  }
  return faults;
}

/** What is to be sent of the rights; nothing where they stay as they are. */
export function readRights() {
  const rights = chosen("rights");
  if (rights === "keep") return {};
  return rights.startsWith("preset:") ? { preset: rights.slice(7) } : { scopes: listScopes() };
}

/** The same of the expiry. */
export function readExpiry() {
  const expiry = chosen("expiry");
  if (expiry === "keep") return {};
  return expiry === "date" || expiry === "own" ? { expires_at: findEnd()?.toISOString() } : { expires_in: expiry };
}

/** All constraints there are. */
export function readConstraints() {
  const constraints = {};
  const sources = find("sources").value.split(/[\s,]+/).filter(Boolean);
  if (sources.length) constraints.sources = sources;
  for (const input of form.querySelectorAll("[data-limit]")) if (input.value.trim()) constraints[input.id] = Number(input.value);
  return constraints;
}

/** What the server did not take, beside what it is about. */
export function tellRefusal(refused) {
  if (refused.faults?.length) complain(refused.faults);
  else if (refused.code === "key_conflict") complain([{ field: "name", message: refused.message }]);
  else if (refused.code === "expiry_exceeded") complain([{ field: "expires_at", message: refused.message }]);
  else if (refused.status !== 401) alarm(refused.message);
}

form.addEventListener("input", update);
form.addEventListener("change", update);
find("find").addEventListener("input", search);
find("find").addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); }); // makes no key
update();
