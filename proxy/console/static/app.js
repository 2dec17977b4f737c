// What every page does: times as the reader's own, copying, and talking to the server.

/** What this browser writes before our paths: a proxy before ours may take something away. */
export const PREFIX = new URL("../../..", import.meta.url).pathname.replace(/\/$/, "");
export const ROOT = `${PREFIX}/settings/api-keys`;
let csrf = document.querySelector("meta[name=csrf]")?.content ?? "";
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const LOST = { detail: "The server cannot be reached. Check your connection, and try again." };
const UNITS = [["year", 31536000], ["month", 2592000], ["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];

/** An answer that says no: `message` is for whoever reads the page. */
export class Refused extends Error {
  constructor(status, problem) {
    super(capitalize(problem.detail ?? "The server answered in a way this page does not understand. Reload it, and try again."));
    this.status = status;
    this.code = problem.code ?? "";
    this.faults = problem.faults ?? [];
  }
}

/** Ask the management API as whoever is signed in. Throws Refused. */
export async function ask(method, path, body, headers = {}) {
  const sent = { Accept: "application/json", "X-CSRF-Token": csrf, ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const answer = await send(`${PREFIX}/settings/v1${path}`, { method, headers: sent, body: body && JSON.stringify(body), cache: "no-store" });
  const said = await answer.json().catch(() => null);
  if (answer.ok && !said) throw new Refused(0, LOST);
  if (answer.ok) return said;
  if (answer.status === 403 && said?.code === "origin_not_allowed" && await goOn()) return ask(method, path, body, headers);
  if (answer.status === 401) tellEnded();
  throw new Refused(answer.status, said ?? {});
}

/** fetch, whose failure is said in words. Throws Refused. */
export async function send(url, options) {
  return fetch(url, options).catch(() => { throw new Refused(0, LOST); });
}

/** A sentence, of words that a log line may begin with. */
export const capitalize = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Do what a button stands for, once at a time: until it is done, the button says so and does nothing else. Returns
    what `work` does, and throws what that throws. */
export async function occupy(button, work) {
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    return await work();
  } finally {
    button.ariaBusy = null;
  }
}

/** For ears: what happened, without moving the focus. */
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = "";
  requestAnimationFrame(() => { place.textContent = text; });
}

/** For eyes and ears, at the top of the page: something went wrong. */
export function alarm(text) {
  const place = document.getElementById("alert");
  place.replaceChildren(text ? make("p", { className: "notice bad" }, text) : "");
  if (text) place.scrollIntoView({ block: "nearest" });
}

/** Whoever signed in again in another tab, as the same person, goes on here. False: nobody did. */
async function goOn() {
  const answer = await send(ROOT, { headers: { Accept: "text/html" }, cache: "no-store" });
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [word, who] = [fresh.querySelector("meta[name=csrf]")?.content, fresh.querySelector(".who span")?.textContent];
  if (!word || word === csrf || who !== document.querySelector(".who span").textContent) return false;
  csrf = word;
  for (const member of document.querySelectorAll("input[name=csrf]")) member.value = word;
  alarm("");
  return true;
}

function tellEnded() {
  const next = encodeURIComponent(location.pathname.slice(PREFIX.length) + location.search);
  const link = make("a", { href: `${PREFIX}/settings/sign-in?next=${next}`, target: "_blank" }, "Sign in again");
  const words = make("span", {}, "Your sign-in has ended, and nothing was changed. ", link, " in a new tab, then go on here: what you typed stays.");
  document.getElementById("alert").replaceChildren(make("p", { className: "notice warn" }, words));
}

/** An element with properties and children; text stays text. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Show text in the clipboard's place, or mark it for the reader's own hand. True: it was copied. */
export async function copy(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
    return true;
  } catch {
    getSelection().selectAllChildren(shown);
    say("The browser does not allow copying: the text is selected, press Control C or Command C");
    return false;
  }
}

function show(moment, style, now) {
  const seconds = (moment - now) / 1000;
  if (style === "ago" || style === "until") {
    const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? [];
    return unit ? relative.format(Math.trunc(seconds / size), unit) : style === "ago" ? "just now" : "in less than a minute";
  }
  return moment.toLocaleString(undefined, style === "full" ? { dateStyle: "medium", timeStyle: "short" } : { dateStyle: "medium" });
}

/** Every <time> below `root`, in the reader's own zone; UTC stands in its title. */
export function tellTimes(root = document) {
  const now = new Date();
  for (const time of root.querySelectorAll("time[data-style]")) time.textContent = show(new Date(time.dateTime), time.dataset.style, now);
}

/** Replace parts of this page by those of a freshly read one, which the server has escaped. `signal` takes it back. */
export async function refresh(url, ids, signal) {
  const answer = await send(url, { headers: { Accept: "text/html" }, cache: "no-store", signal });
  if (answer.redirected) return tellEnded();
  if (!answer.ok) throw new Refused(answer.status, {});
  const text = await answer.text().catch(() => { throw new Refused(0, LOST); });
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const id of ids) {
    const [old, next] = [document.getElementById(id), fresh.getElementById(id)];
    if (!old || !next) continue;
    old.replaceWith(next);
    begin(next);
  }
}

/** What needs scripts appears once they run. */
export function begin(root) {
  tellTimes(root);
  for (const element of root.querySelectorAll(".needs-script")) element.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const shown = button.parentElement.querySelector("pre, output");
  const copied = await copy(shown.textContent, shown);
  if (button.dataset.said) return;
  const before = [...button.childNodes];
  button.dataset.said = "yes";
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { button.replaceChildren(...before); delete button.dataset.said; }, 2000);
});

begin(document);
