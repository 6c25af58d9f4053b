// Keeps the page fresh: fetches it again every two seconds while it is seen, and morphs what changed into place, so that
// focus, typed text and players stay. Everything works without it, a reload at a time.
import {Idiomorph} from "/static/vendor/idiomorph-0.8.0/idiomorph.esm.js";

const EVERY_MS = 2000;
let etag = null;

function sayTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const ago = Math.max(0, (Date.now() - Date.parse(time.dateTime)) / 1000);
    const [number, unit] = ago < 90 ? [ago, "s"] : ago < 5400 ? [ago / 60, "min"] : ago < 172800 ? [ago / 3600, "h"] : [ago / 86400, "days"];
    time.textContent = `${Math.round(number)} ${unit} ago`;
    time.title = new Date(time.dateTime).toLocaleString();
  }
}

async function refresh() {
  const live = document.getElementById("live");
  const stale = document.getElementById("stale");
  if (!live || document.hidden) return;
  try {
    const headers = etag ? {"If-None-Match": etag} : {};
    const answer = await fetch(location.href, {headers, cache: "no-store", redirect: "manual", signal: AbortSignal.timeout(8000)});
    if (answer.type === "opaqueredirect") { location.href = "/login"; return; }
    stale.hidden = true;
    if (answer.status !== 200) return;
    etag = answer.headers.get("ETag");
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = fresh.title;
    for (const id of ["live", "mode"]) {
      const here = document.getElementById(id), there = fresh.getElementById(id);
      if (here && there) Idiomorph.morph(here, there, {callbacks: {
        beforeNodeMorphed: (old) => !["VIDEO", "AUDIO"].includes(old.nodeName),
        beforeAttributeUpdated: (name) => name !== "open",
      }});
    }
    const icon = document.querySelector("link[rel=icon]"), freshIcon = fresh.querySelector("link[rel=icon]");
    if (icon.href !== freshIcon.href) icon.href = freshIcon.href;
    sayTimes();
  } catch {
    stale.hidden = false;
  }
}

function logInByLink() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  const form = document.getElementById("login");
  if (!code || !form) return;
  history.replaceState(null, "", "/login");
  form.elements.password.value = code;
  form.requestSubmit();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  const go = {o: "/", j: "/jobs"}[event.key];
  const field = {p: "reason", "/": "q"}[event.key];
  if (go) location.href = go;
  else if (field && document.getElementById(field)) { event.preventDefault(); document.getElementById(field).focus(); }
});
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY_MS);
logInByLink();
sayTimes();
