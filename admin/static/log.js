// Follows a log: asks every two seconds, while it is seen and wanted, for what was said since. Only text is ever put in.
const EVERY_MS = 2000, MAX_LINES = 3000;
const log = document.getElementById("log"), follow = document.getElementById("follow");
let busy = false;

function add(line) {
  const span = document.createElement("span");
  span.className = line.level;
  span.textContent = `${line.at.slice(0, 19).replace("T", " ")} ${line.level.padEnd(8)} ${line.text}\n`;
  log.append(span);
}

async function more() {
  if (document.hidden || busy || !follow.checked) return;
  busy = true;
  try {
    const answer = await fetch(`${log.dataset.from}&after=${log.dataset.after}`, {cache: "no-store", redirect: "error", signal: AbortSignal.timeout(8000)});
    if (!answer.ok) return;
    const {lines, after} = await answer.json();
    log.dataset.after = after;
    lines.forEach(add);
    if (lines.length) document.getElementById("log-empty")?.remove();
    while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
    if (lines.length) log.scrollTop = log.scrollHeight;
  } catch {
    // the head says that the page does not answer
  } finally {
    busy = false;
  }
}

if (log) {
  follow.parentElement.hidden = false;
  log.scrollTop = log.scrollHeight;
  setInterval(more, EVERY_MS);
  for (const select of document.querySelectorAll(".filters select")) select.addEventListener("change", () => select.form.requestSubmit());
}
