// Draws the charts of the GPU page from /gpu/history: once whole, then only what is new, while the page is seen.
const COLUMNS = ["load", "encoder", "decoder", "memory_used_mib", "temperature_c", "memory_temperature_c", "power_w", "power_limit_w", "clock_sm_mhz", "clock_memory_mhz"];
const CHARTS = [
  {title: "Busy, %", lines: [["load", "GPU"], ["encoder", "encoder"], ["decoder", "decoder"]], most: 100},
  {title: "Memory, GiB", lines: [["memory_used_mib", "used"]], by: 1024, total: "memory_total_mib"},
  {title: "Temperature, °C", lines: [["temperature_c", "core"], ["memory_temperature_c", "memory"]], limit: "slow-down limit", least: 20, most: 90},
  {title: "Power, W", lines: [["power_w", "draw"], ["power_limit_w", "limit"]]},
  {title: "Clocks, MHz", lines: [["clock_sm_mhz", "SM"], ["clock_memory_mhz", "memory"]]},
];
const HEIGHT = 150, MARK = 6;
const SPAN = {"20 min": 1200, "6 h": 21600, "24 h": 86400};
const state = {moved: null, step: 1, now: 0, cards: {}, jobs: new Map()};
const boxes = [...document.querySelectorAll(".charts")];
const range = boxes[0]?.dataset.range ?? "20 min";
let plots = [], busy = false;

const resolved = (name) => { const probe = document.createElement("span"); probe.style.color = `var(${name})`; document.body.append(probe); const value = getComputedStyle(probe).color; probe.remove(); return value; };
const hour = (at, more) => new Date(at * 1000).toLocaleTimeString([], {hour: "2-digit", minute: "2-digit", hour12: false, ...more});
// The same job has the same colour in every chart, and its neighbour another one.
const hue = (id) => ([...id].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7) * 137) % 360;

function take(answer) {
  Object.assign(state, {moved: answer.moved, step: answer.step, now: answer.now});
  for (const [id, since, until, how] of answer.jobs) state.jobs.set(id + since, {id, since: Date.parse(since) / 1000, until: until && Date.parse(until) / 1000, how});
  for (const [key, job] of state.jobs) if (job.until && job.until < state.now - SPAN[range]) state.jobs.delete(key);
  for (const [card, fresh] of Object.entries(answer.cards)) {
    const known = state.cards[card] ??= Object.fromEntries(Object.keys(fresh).map((name) => [name, []]));
    for (let n = 0; n < fresh.at.length; n++) {
      const last = known.at.at(-1);
      if (last !== undefined && fresh.at[n] <= last) continue;
      if (last !== undefined && fresh.at[n] - last > 3 * state.step) {  // nobody looked: the line must not go on
        for (const name in known) known[name].push(name === "at" ? last + state.step : null);
      }
      for (const name in known) known[name].push(fresh[name][n]);
    }
    const old = known.at.findIndex((at) => at >= state.now - SPAN[range]);
    if (old > 0) for (const name in known) known[name].splice(0, old);
  }
}

function marks(plot) {  // the jobs, as bars on the floor of the chart
  const {ctx, bbox} = plot, ratio = devicePixelRatio;
  for (const {id, since, until, how} of state.jobs.values()) {
    const from = plot.valToPos(since, "x", true), to = plot.valToPos(until ?? state.now, "x", true);
    const left = Math.max(bbox.left, from), right = Math.min(bbox.left + bbox.width, Math.max(to, from + ratio));
    if (right <= left) continue;
    ctx.fillStyle = how === "failed" ? resolved("--bad") : `hsl(${hue(id)} 55% 55%)`;
    ctx.fillRect(left, bbox.top + bbox.height - MARK * ratio, Math.max(ratio, right - left - ratio), MARK * ratio);
  }
}

function options(chart, box, group, most) {
  const ink = resolved("--soft"), line = resolved("--line"), strokes = ["--link", "--warn", "--good"].map(resolved);
  const axis = {stroke: ink, grid: {stroke: line, width: 1}, ticks: {stroke: line, width: 1}, font: "12px system-ui, sans-serif"};
  return {
    width: Math.max(240, box.clientWidth), height: HEIGHT,
    cursor: {sync: {key: group}, y: false},
    legend: {live: true},
    scales: {x: {time: true, range: () => [state.now - SPAN[range], state.now]}, y: {range: (plot, low, high) => [chart.least ?? 0, Math.max(most ?? chart.most ?? 0, high ?? 0, 1)]}},
    axes: [{...axis, space: 60, values: (plot, at) => at.map((one) => hour(one))}, {...axis, size: 48, space: 25}],
    series: [{label: "at", value: (plot, at) => at ? hour(at, {second: "2-digit"}) : "now"}, ...chart.lines.map(([, label, fixed], n) => ({
      label, stroke: fixed ? resolved("--bad") : strokes[n], dash: fixed && [4, 4], width: fixed ? 1 : 1.5, points: {show: false}, value: (plot, value, series, at) => said(at === null ? plot.data[series].at(-1) : value, chart),
    }))],
    hooks: {draw: [marks]},
  };
}

const said = (value, chart) => value === null || value === undefined ? "n/a" : value.toFixed(chart.by ? 1 : 0);
const drawn = ([name, , fixed], card, by) => fixed ? card.at.map(() => fixed) : by ? card[name].map((value) => value === null ? null : value / by) : card[name];
const data = (chart, card) => [card.at, ...chart.lines.map((line) => drawn(line, card, chart.by))];
// With the limit of this card, if the chart shows one and the card names it.
const limited = (chart, limit) => chart.limit && limit ? {...chart, lines: [...chart.lines, ["", chart.limit, Number(limit)]]} : chart;

function draw() {
  for (const plot of plots) plot.plot.destroy();
  plots = [];
  for (const box of boxes) {
    box.replaceChildren();
    const card = state.cards[box.dataset.card];
    if (!card?.at.length) continue;
    const shown = CHARTS.filter((chart) => chart.lines.some(([name]) => card[name].some((value) => value !== null))).map((chart) => limited(chart, box.dataset.limit));
    const figures = shown.map((chart) => {  // all of them first: a column is as wide as it is beside the others
      const figure = document.createElement("figure"), title = document.createElement("figcaption");
      title.textContent = chart.title;
      figure.append(title);
      box.append(figure);
      return figure;
    });
    shown.forEach((chart, n) => {
      const most = chart.total ? Math.max(...card[chart.total].map(Number)) / chart.by : undefined;
      const plot = new uPlot(options(chart, figures[n], box.id, most), data(chart, card), figures[n]);
      plots.push({plot, chart, card: box.dataset.card});
    });
  }
}

function redraw() {
  const whole = boxes.some((box) => !box.childElementCount && state.cards[box.dataset.card]?.at.length);
  if (whole || !plots.length) return draw();
  for (const {plot, chart, card} of plots) plot.setData(data(chart, state.cards[card] ?? {at: [], ...Object.fromEntries(COLUMNS.map((name) => [name, []]))}));
}

async function look() {
  if (document.hidden || busy || !boxes.length) return;
  busy = true;
  try {
    const newest = Math.max(0, ...Object.values(state.cards).map((card) => card.at.at(-1) ?? 0));
    const answer = await fetch(`/gpu/history?range=${encodeURIComponent(range)}&after=${newest}`, {cache: "no-store", redirect: "error", signal: AbortSignal.timeout(8000)});
    if (answer.ok) {
      const told = await answer.json();
      if (state.moved !== null && told.moved !== state.moved) {  // the clock jumped: all of it lies elsewhere now
        Object.assign(state, {moved: null, cards: {}, jobs: new Map()});
      } else {
        take(told);
        redraw();
      }
    }
  } catch { /* panel.js says that the page is old */ } finally { busy = false; }
}

let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
document.addEventListener("visibilitychange", look);
look();
setInterval(look, 2000);
