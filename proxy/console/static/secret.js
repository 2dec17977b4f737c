// The one sight of a key: shown whole, copied, tried, and gone when the dialog closes.

import { begin, make, occupy, Refused, PREFIX, ROOT, say, send } from "./app.js";

const PLACEHOLDER = "YOUR_API_KEY";

/** Show a key that was just made. `discard`: what ends it again, for whoever did not save it; null: nothing does.
    Resolves, when nothing of it is left on the page, with "saved" or "discarded". */
export function reveal({ token, id, title, question, discard }) {
  let secret = token;
  const dialog = document.getElementById("secret").content.cloneNode(true).querySelector("dialog");
  const find = (name) => dialog.querySelector(`[data-${name}]`);
  dialog.querySelector("h2").textContent = title;
  find("id").textContent = `aegis_${id}`;
  find("secret").textContent = secret;
  find("question").textContent = question;
  find("discard").hidden = find("ask-discard").hidden = discard === null;
  for (const pre of dialog.querySelectorAll("pre")) pre.textContent = pre.textContent.replaceAll(PLACEHOLDER, secret);
  tab(dialog);
  document.body.append(dialog);
  begin(dialog);
  dialog.showModal();
  const guard = (event) => event.preventDefault();
  addEventListener("beforeunload", guard);

  return new Promise((resolve) => {
    const vanish = () => {
      secret = "";
      for (const element of dialog.querySelectorAll("pre, output")) element.textContent = "";
      removeEventListener("beforeunload", guard);
      removeEventListener("pagehide", vanish);
      dialog.close();
      dialog.remove();
    };
    const end = (how) => {
      vanish();
      resolve(how);
    };
    const sure = (shown) => {
      find("sure").hidden = !shown;
      find("ends").hidden = shown;
      (shown ? find("question") : find("copy")).focus();
    };
    addEventListener("pagehide", vanish);
    dialog.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      sure(true);
    });
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); sure(true); });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) sure(true); });
    find("ask-discard").addEventListener("click", () => sure(true));
    find("stay").addEventListener("click", () => sure(false));
    find("leave").addEventListener("click", () => end("saved"));
    find("saved").addEventListener("click", () => end("saved"));
    find("discard").addEventListener("click", () => occupy(find("discard"), async () => {
      try {
        await discard();
        end("discarded");
      } catch (refused) {
        find("fault").textContent = refused.message;
      }
    }));
    find("test").addEventListener("click", () => occupy(find("test"), async () => {
      const { works, words } = await tryOut(secret);
      const icon = find(works ? "works" : "fails").content.cloneNode(true);
      find("tested").replaceChildren(make("p", { className: `notice ${works ? "good" : "bad"}` }, icon, make("span", {}, words)));
    }));
  });
}

/** What the server says to a request with this key, as any client would send it. */
async function tryOut(secret) {
  try {
    const headers = { Authorization: `Bearer ${secret}` };
    const answer = await send(`${PREFIX}/v1/api-keys/validate`, { method: "POST", headers, credentials: "omit", cache: "no-store" });
    const said = await answer.json();
    if (!answer.ok) return { works: false, words: `Refused: ${said.detail}` };
    const ends = said.expires_at ? `until ${new Date(said.expires_at).toLocaleDateString(undefined, { dateStyle: "medium" })}` : "without an end";
    const words = `It works: ${said.user_id}, tier ${said.zaru_tier}, ${said.scopes.length} right${said.scopes.length === 1 ? "" : "s"}, ${ends}.`;
    return { works: true, words };
  } catch (fault) {
    return { works: false, words: fault instanceof Refused ? fault.message : "The answer could not be read. Try again." };
  }
}

function tab(dialog) {
  const tabs = [...dialog.querySelectorAll("[role=tab]")];
  const choose = (chosen) => {
    for (const one of tabs) {
      one.setAttribute("aria-selected", String(one === chosen));
      one.tabIndex = one === chosen ? 0 : -1;
      dialog.querySelector(`#${one.getAttribute("aria-controls")}`).hidden = one !== chosen;
    }
  };
  for (const [index, one] of tabs.entries()) {
    one.addEventListener("click", () => choose(one));
    one.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      choose(next);
      next.focus();
    });
  }
}

/** A word under which a request is done once, however often it is sent. */
export function makeWord() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The request was done before, and its answer is lost: there is a key whose secret nobody knows. */
export function tellLost(id, place) {
  const link = make("a", { href: `${ROOT}/${id}` }, "Open it, and rotate it to get another secret");
  const words = make("span", {}, "It was done, but the answer with the secret got lost on the way. ", link);
  place.replaceChildren(make("p", { className: "notice warn" }, words));
  say("The answer with the secret got lost");
}
