// The page of a report: what is chosen on the front, and everything that follows from it.

const facts = JSON.parse(document.getElementById("facts").textContent);
const charts = JSON.parse(document.getElementById("charts").textContent);
const $ = (id) => document.getElementById(id);
const trials = new Map(facts.trials.map((trial) => [trial.number, trial]));
const front = facts.front.map((number) => trials.get(number));
const objectives = facts.objectives;
const kinds = new Map(objectives.map((o) => [o.name, o]));
const names = [...objectives.map((o) => o.name), ...facts.costs];
const quality = objectives.find((o) => o.kind === "quality").name;
const better = (name) => (kinds.get(name)?.direction === "maximize" ? -1 : 1);
const views = new Map();
let chosen = facts.knee;

// --- words -------------------------------------------------------------------------------------------

function element(tag, content = "", attributes = {}) {
  const made = document.createElement(tag);
  if (content instanceof Node) made.append(content);
  else if (Array.isArray(content)) made.append(...content);
  else made.textContent = content;
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(name, value);
  return made;
}

function value(trial, name) {
  return trial.values?.[name] ?? trial.metrics?.[name] ?? trial.costs?.[name];
}

function number(x) {
  if (x === undefined || x === null) return "–";
  if (Number.isInteger(x)) return x.toLocaleString("en");
  return Math.abs(x) >= 1000 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(4)));
}

const UNITS = { latency_ms: "ms", energy_mj: "mJ", size_mb: "MB", peak_memory_mb: "MB", loss: "nats", params: "parameters", macs: "multiply-accumulates" };

function written(trial, name) {
  const unit = UNITS[name.split("@")[0]];
  const latency = name.startsWith("latency_ms") ? trial.latencies?.[name.split("@")[1] ?? "this machine"] : null;
  const spread = trial.spread?.[name];
  const isQuality = kinds.get(name)?.kind === "quality";
  let text = number(value(trial, name));
  if (spread !== undefined) text += ` ± ${number(spread)}`;
  if (unit) text += ` ${unit}`;
  if (isQuality) text += ` (n = ${trial.runs ?? 1}${trial.runs > 1 ? " runs" : " run"})`;
  if (latency?.low !== undefined) text += ` (${number(latency.low)} to ${number(latency.high)}, n = ${latency.rounds} rounds)`;
  return text;
}

function rowOf(cells, tag = "td", classes = []) {
  return element("tr", cells.map((cell, i) => element(tag, cell, { class: classes[i] || undefined, scope: tag === "th" ? "col" : undefined })));
}

function fill(table, header, rows, classes = []) {
  const caption = table.querySelector("caption");
  table.replaceChildren(...(caption ? [caption] : []), element("thead", rowOf(header, "th", classes)), element("tbody", rows));
}

function command(text, what) {
  const button = element("button", "Copy", { type: "button", "aria-label": `Copy the command to ${what}` });
  const code = element("code", text);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return element("div", [element("span", `To ${what}`, { class: "note" }), element("div", [code, button], { class: "command" })]);
}

// As a shell takes it for one word, whatever is in it.
function quoted(text) {
  return /^[\w@%+=:,.\/-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

// --- choosing ----------------------------------------------------------------------------------------

const bounds = new Map(); // name -> value that must be kept
let rule = "knee";

const RULES = [
  ["knee", "the best compromise (knee point)"],
  ...objectives.map((o) => [`best ${o.name}`, `the best ${o.name}`]),
  ["one-se", `the smallest within one standard error of the best ${quality}`],
];

function keeps(trial) {
  return [...bounds].every(([name, bound]) => better(name) * (value(trial, name) - bound) <= 1e-12 * Math.abs(bound));
}

function least(options, key) {
  return options.reduce((best, one) => (key(one) < key(best) ? one : best));
}

function knee(options) {
  const ranges = objectives.map(({ name }) => {
    const all = options.map((t) => better(name) * value(t, name));
    return [name, Math.min(...all), Math.max(...all) - Math.min(...all) || 1];
  });
  const away = (t) => Math.hypot(...ranges.map(([name, low, span]) => (better(name) * value(t, name) - low) / span));
  const first = objectives[0].name;
  const nearest = Math.min(...options.map(away));
  return least(options.filter((t) => away(t) < nearest + 1e-9), (t) => better(first) * value(t, first));
}

function pick() {
  const options = front.filter(keeps);
  if (!options.length) return [null, ""];
  if (rule === "knee") return [knee(options), "nearest to the best of every objective at once, each scaled over those that keep the bounds"];
  const name = rule === "one-se" ? quality : rule.slice(5);
  const best = least(options, (t) => better(name) * value(t, name));
  if (rule !== "one-se") return [best, `the best ${name} of ${options.length}`];
  const error = facts.errors[best.number];
  if (!error) return [best, `the best ${name}: its standard error is not known, so nothing smaller is as good (${facts.commands.repeat})`];
  const cost = names.find((n) => kinds.get(n)?.kind !== "quality") ?? "params";
  const near = options.filter((t) => better(name) * (value(t, name) - value(best, name)) <= error.error);
  return [least(near, (t) => value(t, cost)), `the smallest by ${cost} within one standard error (${number(error.error)}, ${error.source}) of the best ${name}, ${number(value(best, name))} of trial ${best.number}`];
}

function update() {
  const [found, why] = pick();
  const left = front.filter(keeps).length;
  $("left").textContent = left ? `${left} of ${front.length} networks keep them` : "no network of the front keeps these bounds";
  if (found) take(found.number, why);
  else markTable();
}

function take(number_, why) {
  chosen = number_;
  const trial = trials.get(chosen);
  $("chosen-title").textContent = `Trial ${chosen}`;
  $("why").textContent = why + (facts.doubtful.includes(chosen) ? `. Its lead over the next cheaper network is within two standard errors: it may be chance` : "");
  const rows = names.flatMap((name) => [element("dt", name), element("dd", written(trial, name))]);
  rows.push(element("dt", "epochs"), element("dd", `the best was ${trial.kept ?? "?"} of ${trial.epochs ?? "?"}`));
  if (trial.checkpoint) rows.push(element("dt", "weights"), element("dd", trial.checkpoint));
  $("values").replaceChildren(...rows);
  const place = trial.checkpoint ?? `${facts.folder}/trained/${chosen}.safetensors`;
  const make = (name) => facts.commands[name].replace("NUMBER", chosen).replace("CHECKPOINT", () => quoted(place));
  $("commands").replaceChildren(
    command(make("train"), "train it in full, and have it reported on test pictures"),
    command(make("export"), "export it"),
    command(make("predict"), "classify pictures with it"),
  );
  for (const view of views.values()) {
    try { view.signal("chosen", chosen).runAsync(); } catch { /* this chart has no chosen trial */ }
  }
  markTable();
  showModel();
}

function makeWishes() {
  for (const [name, label] of RULES) {
    const input = element("input", "", { type: "radio", name: "rule", value: name, ...(name === rule ? { checked: "" } : {}) });
    input.addEventListener("change", () => { rule = name; update(); });
    $("rules").append(element("label", [input, ` ${label}`]));
  }
  for (const name of names) makeBound(name);
  $("reset").addEventListener("click", () => {
    bounds.clear();
    for (const input of document.querySelectorAll(".bound input")) { input.value = input.max; input.dispatchEvent(new Event("input")); }
    update();
  });
}

function makeBound(name) {
  // Each step is a network's value, from the strictest to no bound at all.
  const steps = [...new Set(front.map((t) => value(t, name)))].sort((a, b) => better(name) * (a - b));
  if (steps.length < 2) return;
  const id = `bound-${names.indexOf(name)}`;
  const word = better(name) < 0 ? "at least" : "at most";
  const input = element("input", "", { type: "range", id, min: 0, max: steps.length - 1, step: 1, value: steps.length - 1 });
  const output = element("output", "any", { for: id });
  const label = element("label", `${name}, ${word}`, { for: id });
  input.addEventListener("input", () => {
    const step = Number(input.value);
    const isAny = step === steps.length - 1;
    if (isAny) bounds.delete(name); else bounds.set(name, steps[step]);
    output.textContent = isAny ? "any" : number(steps[step]);
    input.setAttribute("aria-valuetext", isAny ? `any ${name}` : `${word} ${number(steps[step])}`);
    update();
  });
  input.setAttribute("aria-valuetext", `any ${name}`);
  $("bounds").append(element("div", [label, output, input], { class: "bound" }));
}

// --- the front ---------------------------------------------------------------------------------------

let sorted = names.find((n) => kinds.get(n)?.kind !== "quality") ?? names[0];

function makeTable() {
  const head = element("tr");
  head.append(element("th", "trial", { scope: "col" }));
  for (const name of names) {
    const button = element("button", name, { type: "button", "aria-label": `Sort by ${name}` });
    button.addEventListener("click", () => {
      sorted = name;
      makeTable();
      markTable();
      // The table is a new one: whoever sorts with a keyboard goes on from the same column.
      document.querySelectorAll("#front-table thead button")[names.indexOf(name)].focus();
    });
    head.append(element("th", button, { scope: "col", "aria-sort": sorted === name ? (better(name) < 0 ? "descending" : "ascending") : "none" }));
  }
  head.append(element("th", "runs", { scope: "col" }), element("th", "take", { scope: "col" }));
  const rows = [...front].sort((a, b) => better(sorted) * (value(a, sorted) - value(b, sorted))).map((trial) => {
    const button = element("button", "take", { type: "button", "aria-label": `Take trial ${trial.number}` });
    button.addEventListener("click", () => take(trial.number, "taken by hand"));
    const cells = names.map((name) => {
      const spread = trial.spread?.[name];
      return element("td", number(value(trial, name)) + (spread === undefined ? "" : ` ± ${number(spread)}`));
    });
    const star = trial.number === facts.knee ? " ★" : "";
    const row = element("tr", [element("th", `${trial.number}${star}`, { scope: "row" }), ...cells, element("td", `${trial.runs ?? 1}`), element("td", button)]);
    row.dataset.number = trial.number;
    return row;
  });
  const table = $("front-table");
  table.replaceChildren(table.querySelector("caption"), element("thead", head), element("tbody", rows));
}

function markTable() {
  for (const row of document.querySelectorAll("#front-table tbody tr")) {
    const trial = trials.get(Number(row.dataset.number));
    row.classList.toggle("chosen", trial.number === chosen);
    row.classList.toggle("out", !keeps(trial));
    if (trial.number === chosen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

function axisOf(name) {
  const axis = facts.axes.find((one) => one.name === name);
  return {
    field: axis.field, title: axis.title, type: "quantitative",
    scale: axis.scale === "log" ? { type: "log", nice: true } : { zero: false, nice: true }, axis: { labelExpr: facts.labels, tickCount: 6 },
  };
}

function frontSpec() {
  const spec = structuredClone(charts.front);
  const x = axisOf($("axis-x").value), y = axisOf($("axis-y").value);
  const valid = `isValid(datum.${x.field}) && isValid(datum.${y.field})`;
  for (const layer of spec.layer) {
    layer.encoding.x = { ...x };
    if (layer.name === "refused") {
      layer.transform[1] = { filter: `isValid(datum.${x.field}) && !isValid(datum.${y.field})` };
      continue;
    }
    layer.transform[0] = { filter: layer.name === "spread" ? `${valid} && isValid(datum.${y.field}low)` : valid };
    layer.encoding.y = { ...y, field: layer.name === "spread" ? `${y.field}low` : y.field };
    if (layer.name === "spread") layer.encoding.y2 = { field: `${y.field}high` };
  }
  return spec;
}

// --- one network -------------------------------------------------------------------------------------

const HUES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999"];

function showModel() {
  const model = facts.models[chosen];
  $("model").hidden = !model;
  if (!model) return;
  $("model-title").textContent = `Trial ${chosen}: the network`;
  showRows(model);
  const has = Boolean(model.confusion);
  $("answers").hidden = !has;
  $("no-answers").hidden = has;
  $("no-answers").textContent = has ? "" : "It was not run on the validation pictures: its weights or the pictures were not at hand, or the report was asked for without them.";
  if (has) showAnswers(model);
}

function showRows(model) {
  const scale = $("scale").value;
  const most = Math.max(...model.rows.map((row) => row[scale] || 0), 1);
  const modules = [...new Set(Object.values(facts.models).flatMap((m) => m.rows.map((r) => r.module)))];
  const total = model.rows.reduce((sum, row) => sum + (row[scale] || 0), 0) || 1;
  $("rows").replaceChildren(...model.rows.map((row) => {
    const argumentsText = Object.values(row.arguments).map((v) => (v === null ? "null" : Array.isArray(v) ? `[${v}]` : String(v))).join(", ");
    const label = `${row.n > 1 ? `${row.n} × ` : ""}${row.module}`;
    const from = row.from?.length ? ` from ${row.from.join(", ")}` : "";
    const bar = element("div", "", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * (row[scale] || 0)) / most}%`;
    bar.style.background = HUES[modules.indexOf(row.module) % HUES.length];
    const out = Array.isArray(row.out[0]) ? row.out.map((s) => s.join("×")).join(" + ") : row.out.join("×");
    return element("li", [
      element("span", [`${label} `, element("span", `[${argumentsText}]${from}`, { class: "detail" })], { class: "row", title: `[${argumentsText}]${from}` }), bar,
      element("span", `${number(row[scale] || 0)} (${Math.round((100 * (row[scale] || 0)) / total)} %), out ${out}`, { class: "detail" }),
    ]);
  }));
}

function showAnswers(model) {
  const classes = facts.data.classes, matrix = model.confusion;
  const taken = classes.map((_, j) => matrix.reduce((sum, row) => sum + row[j], 0));
  const truth = matrix.map((row) => row.reduce((a, b) => a + b, 0));
  const ratio = (a, b) => (b ? (a / b).toFixed(3) : "–");
  fill($("classes"), ["class", "precision", "recall", "F1", "pictures"], classes.map((name, i) =>
    rowOf([name, ratio(matrix[i][i], taken[i]), ratio(matrix[i][i], truth[i]), ratio(2 * matrix[i][i], taken[i] + truth[i]), String(truth[i])])));
  showConfusion(classes, matrix, truth);
  $("mistakes").replaceChildren(...(model.mistakes.length ? model.mistakes.map((one) => element("figure", [
    element("img", "", { src: one.picture, alt: `${one.name}: a ${one.truth}, taken for ${one.answer}` }),
    element("figcaption", `${one.truth}, taken for ${one.answer} with ${Math.round(100 * one.probability)} %`, { title: one.name }),
  ])) : [element("p", "None: every validation picture was classified right.")]));
}

function showConfusion(classes, matrix, truth) {
  // Of many classes only those pairs are shown that are confused most.
  if (classes.length > 20) {
    const pairs = matrix.flatMap((row, i) => row.map((n, j) => [n, i, j])).filter(([n, i, j]) => i !== j && n).sort((a, b) => b[0] - a[0]).slice(0, 20);
    fill($("confusion"), ["truth", "taken for", "pictures"], pairs.map(([n, i, j]) => rowOf([classes[i], classes[j], `${n} of ${truth[i]}`])));
    return;
  }
  const rows = matrix.map((row, i) => {
    const cells = row.map((n, j) => {
      const cell = element("td", n ? String(n) : "·", { class: i === j ? "right" : undefined, title: `${classes[i]} taken for ${classes[j]}: ${n} of ${truth[i]}` });
      const share = truth[i] ? n / truth[i] : 0;
      if (n) cell.style.background = `color-mix(in srgb, var(${i === j ? "--accent" : "--chosen"}) ${Math.round(10 + 50 * share)}%, transparent)`;
      return cell;
    });
    return element("tr", [element("th", classes[i], { scope: "row" }), ...cells]);
  });
  fill($("confusion"), ["truth ↓, answer →", ...classes], rows);
}

// --- the rest ----------------------------------------------------------------------------------------

function showSummary() {
  $("title").textContent = facts.name;
  const said = Object.entries(facts.counts).filter(([, n]) => n).map(([state, n]) => `${n.toLocaleString("en")} ${state}`);
  const running = facts.running ? `; ${facts.running} still running, so this is how it stood at ${facts.made}` : "";
  $("summary").textContent = `${said.join(", ") || "No trial yet"}${running}. Objectives: ${objectives.map((o) => `${o.name} (${o.meaning})`).join(", ")}.` + (facts.limits.length ? ` Limits: ${facts.limits.join(", ")}.` : "");
  if (facts.notes.length) { $("notes").hidden = false; $("notes").textContent = `Note: ${facts.notes.join("; ")}.`; }
  $("footer").textContent = `Validation pictures chose among these networks, so their values flatter them a little; the test pictures were never used. Made by archtuna ${facts.version} on ${facts.made}.`;
}

function showRefused() {
  const stopped = facts.trials.filter((t) => t.state === "stopped");
  const rows = [
    ...facts.refused.map((one) => ["refused before training", one]),
    ...facts.failed.map((one) => ["failed", one]),
    ...(stopped.length ? [["stopped early", { count: stopped.length, numbers: stopped.map((t) => t.number).slice(0, 20), example: stopped[0].reason ?? "" }]] : []),
  ].map(([what, one]) => rowOf([what, String(one.count), one.example, one.numbers.join(", ") + (one.count > one.numbers.length ? ", …" : "")], "td", ["", "", "words", "words"]));
  if (!rows.length) rows.push(rowOf(["nothing", "0", "", ""]));
  fill($("refused"), ["what", "trials", "why (an example)", "which"], rows, ["", "", "words", "words"]);
}

function showData() {
  const data = facts.data, parts = data.parts;
  if (parts) {
    const heads = Object.keys(parts);
    const sum = (all) => all.reduce((a, b) => a + b, 0);
    const rows = data.classes.slice(0, 200).map((name, i) => rowOf([name, ...heads.map((h) => number(parts[h][i]))]));
    rows.push(rowOf(["all", ...heads.map((h) => number(sum(parts[h])))], "th"));
    fill($("parts"), ["class", ...heads], rows);
  }
  const made = [
    ["pictures", `${data.source} (fingerprint ${data.fingerprint})`],
    ["split", parts ? `by class and content, seed ${data.split_seed}; copies of a picture lie in one part` : "the pictures were not at hand"],
    ["trained on", data.fraction < 1 ? `a stratified share of ${data.fraction} of the training pictures` : "all training pictures"],
    ...(data.broken ? [["left out", `${data.broken} broken files`]] : []),
    ["search began", facts.began ?? "not yet"],
    ["versions", Object.entries(facts.versions).map(([name, v]) => `${name} ${v}`).join(", ")],
  ];
  $("made").replaceChildren(...made.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  $("again").replaceChildren(command(facts.commands.search, "search again with the same"));
}

// --- charts ------------------------------------------------------------------------------------------

function config() {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
  const texts = { labelColor: ink, titleColor: ink };
  return {
    background: "transparent", font: "system-ui, sans-serif", view: { stroke: null }, text: { color: ink },
    axis: { ...texts, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12 },
    legend: texts, header: texts, title: { color: ink },
  };
}

function fitted(name, spec, place) {
  const room = place.clientWidth - 90;
  // Parallel coordinates that are too narrow cannot be read: these are moved sideways instead.
  const least = name === "parallel" ? spec.width : 200;
  if (typeof spec.width === "number") spec.width = Math.max(least, Math.min(Math.max(spec.width, 1000), room));
  const names = place.clientWidth < 600 ? 130 : 230;
  for (const panel of spec.vconcat ?? []) {
    panel.width = Math.max(90, Math.min(600, place.clientWidth - names - 60));
    for (const layer of panel.layer) Object.assign(layer.encoding.y.axis, { labelLimit: names, minExtent: names });
  }
  return spec;
}

async function draw(name, spec) {
  const place = $(`chart-${name}`);
  if (!spec) {
    place.replaceChildren(element("p", "There is not enough yet to draw this.", { class: "note" }));
    return;
  }
  const many = facts.trials.length > 1500;
  const result = await vegaEmbed(place, fitted(name, structuredClone(spec), place), { renderer: many ? "canvas" : "svg", actions: false, config: config() });
  views.set(name, result.view);
  try { await result.view.signal("chosen", chosen ?? -1).runAsync(); } catch { /* this chart has no chosen trial */ }
  if (name === "front") result.view.addEventListener("click", (_, item) => {
    const number_ = item?.datum?.number;
    if (facts.front.includes(number_)) take(number_, "taken by hand");
  });
}

async function drawAll() {
  await draw("front", charts.front && frontSpec());
  for (const name of ["hypervolume", "hypervolume-time", "curves", "time", "importance", "parallel"]) await draw(name, charts[name]);
  document.documentElement.dataset.drawn = "yes";
}

function makeAxes() {
  const costs = objectives.filter((o) => o.kind === "cost").map((o) => o.name);
  const x = costs[0] ?? names.find((n) => n !== quality) ?? quality;
  for (const [id, first] of [["axis-x", x], ["axis-y", quality]]) {
    for (const name of names) $(id).append(element("option", name, { value: name, ...(name === first ? { selected: "" } : {}) }));
    $(id).addEventListener("change", () => draw("front", frontSpec()));
  }
  for (const [name, label] of [["macs", "multiply-accumulates"], ["params", "parameters"]]) $("scale").append(element("option", label, { value: name }));
  $("scale").addEventListener("change", () => showRows(facts.models[chosen]));
}

showSummary();
showRefused();
showData();
makeAxes();
$("importance-note").textContent = facts.importance.length
  ? "By how much the share of explained variance falls when a decision's values are shuffled among trials that a random forest has not seen; lines are one standard deviation over four folds. Where little is explained, the order says little."
  : "There are too few complete trials to say (12 are needed), or nothing to decide.";
$("progress-note").textContent = facts.progress.orders
  ? "The hypervolume is the share of the box between the worst and the ideal values that the front dominates. In grey: the very same trials in random order, with the range of nine out of ten orders. A search that learns is above it. "
  : "";
if (front.length) {
  makeWishes();
  makeTable();
  update();
} else {
  $("choosing").hidden = true;
  $("model").hidden = true;
  $("empty").hidden = false;
  $("empty").textContent = facts.running ? "No network was evaluated in full yet. Ask for the report again in a while." : "None: no network was evaluated in full. What was refused or failed, and why, stands below.";
}
await drawAll();
let width = document.documentElement.clientWidth;
addEventListener("resize", () => {
  if (document.documentElement.clientWidth === width) return;
  width = document.documentElement.clientWidth;
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
