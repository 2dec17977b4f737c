// The list: searching as one types, without leaving the field.

import { alarm, refresh, say } from "./app.js";

const form = document.getElementById("filters");
const KEY = /aegis_([0-9A-Za-z]{12})_\w+|aegis_[0-9A-Za-z]{40}/g;
let waiting;
let asking = new AbortController(); // of the latest search, which an earlier one's answer must not overtake

async function search() {
  form.q.value = form.q.value.replace(KEY, "$1"); // of a pasted key its id, which may stand in addresses
  const given = [...new FormData(form)].filter(([, value]) => value);
  const url = given.length ? `${form.action}?${new URLSearchParams(given)}` : form.action;
  asking.abort();
  const mine = asking = new AbortController();
  document.getElementById("results").ariaBusy = "true";
  try {
    await refresh(url, ["results"], mine.signal);
    history.replaceState(null, "", url);
    alarm("");
    const found = document.querySelectorAll("#results tbody tr").length;
    say(found ? `${found} keys shown` : "No key matches");
  } catch (refused) {
    if (mine.signal.aborted) return;
    document.getElementById("results").ariaBusy = null;
    alarm(refused.message);
  }
}

if (form) {
  form.querySelector("button").hidden = true;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 200);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    search();
  });
}
