// Keeps the page fresh: fetches it again every two seconds while it is seen, and morphs what changed into place, so that
// focus, typed text and players stay. Everything works without it, a reload at a time.
const EVERY_MS = 2000;
const LIVE = ["live", "mode", "controls", "standing"];
let etag = null;
let busy = false;
let looked = 0;

function sayTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const past = (Date.now() - Date.parse(time.dateTime)) / 1000, ago = Math.abs(past);
    const [number, unit] = ago < 90 ? [ago, "s"] : ago < 5400 ? [ago / 60, "min"] : ago < 172800 ? [ago / 3600, "h"] : [ago / 86400, "days"];
    time.textContent = past < -5 ? `in ${Math.round(number)} ${unit}` : `${past < 0 ? 0 : Math.round(number)} ${unit} ago`;
    time.title = new Date(time.dateTime).toLocaleString();
  }
}

// What the operator has opened or plays, and what another script has drawn, stays as it is.
const callbacks = {
  beforeNodeMorphed: (old) => !["VIDEO", "AUDIO"].includes(old.nodeName) && !(old.matches?.("details.ask[open], [data-keep]")),
  beforeAttributeUpdated: (name) => name !== "open" && name !== "checked",
};

function show(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  document.title = fresh.title;
  for (const id of LIVE) {
    const here = document.getElementById(id), there = fresh.getElementById(id);
    if (here && there) Idiomorph.morph(here, there, {callbacks});
  }
  const icon = document.querySelector("link[rel=icon]"), freshIcon = fresh.querySelector("link[rel=icon]");
  if (icon.href !== freshIcon.href) icon.href = freshIcon.href;
}

async function refresh() {
  const stale = document.getElementById("stale");
  if (!document.getElementById("live") || document.hidden || busy) return;
  busy = true;
  looked = Date.now();
  try {
    const headers = etag ? {"If-None-Match": etag} : {};
    const answer = await fetch(location.href, {headers, cache: "no-store", redirect: "manual", signal: AbortSignal.timeout(8000)});
    if (answer.type === "opaqueredirect") { location.href = "/login?next=" + encodeURIComponent(location.pathname + location.search); return; }
    stale.hidden = answer.status < 500;
    if (answer.status === 200) { etag = answer.headers.get("ETag"); show(await answer.text()); }
  } catch {
    stale.hidden = false;
  } finally {
    busy = false;
    sayTimes();
  }
}

function logInByLink() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  const form = document.getElementById("login");
  if (!code || !form) return;
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.password.value = code;
  form.requestSubmit();
}

function ask(details) {
  details.open = true;
  details.querySelector("input:not([type=hidden]), button")?.focus();
}

const KEYS = {
  o: () => { location.href = "/"; },
  j: () => { location.href = "/jobs"; },
  l: () => { location.href = "/processes"; },
  s: () => { location.href = "/settings"; },
  n: () => { location.href = "/submit"; },
  u: () => { location.href = "/gpu"; },
  r: refresh,
  p: () => { const resume = document.getElementById("resume"), pause = document.getElementById("pause"); resume ? resume.focus() : pause && ask(pause); },
  "/": () => { const field = document.getElementById("q"); field ? field.focus() : location.href = "/jobs#q"; },
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelectorAll("details.ask[open]").forEach((opened) => { opened.open = false; opened.querySelector("summary").focus(); });
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, details.ask[open]")) return;
  if (KEYS[event.key] && document.getElementById("live")) { event.preventDefault(); KEYS[event.key](); }
});
document.addEventListener("click", (event) => {
  for (const opened of document.querySelectorAll("details.ask[open]")) if (!opened.contains(event.target)) opened.open = false;
});
document.addEventListener("toggle", (event) => {
  if (event.target.matches("details.ask[open]")) ask(event.target);
}, true);
document.addEventListener("error", (event) => {  // too many videos at once: the server asks to come back
  const player = event.target;
  if (player.matches?.("video, audio") && (player.tries = (player.tries ?? 0) + 1) < 4) setTimeout(() => player.load(), 3000);
}, true);
document.addEventListener("visibilitychange", refresh);
setInterval(() => {  // a page of which little changes asks for more time
  const every = 1000 * (document.getElementById("live")?.dataset.every ?? 0);
  if (Date.now() - looked > every - EVERY_MS / 2) refresh();
}, EVERY_MS);
logInByLink();
sayTimes();
