// What the pages of `canal review` do: htmx fetches parts of pages, this joins them to the map and to the keyboard.
// Whatever comes from people (names of types, genes, comments) is set as text, never as markup.

"use strict";

const byId = (id) => document.getElementById(id);
const typing = () => /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName || "");

// Messages: what was done, and what went wrong.

let hiding = null;
function tell(text, wrong = false) {
  const box = byId("message");
  box.textContent = text;
  box.className = wrong ? "wrong" : "";
  clearTimeout(hiding);
  hiding = setTimeout(() => { box.textContent = ""; }, wrong ? 15000 : 5000);
}

// What a refused request says, whoever sent it.
async function reasonOf(answer) {
  const text = await answer.text();
  try { return JSON.parse(text).error || text; } catch { return text; }
}

document.addEventListener("htmx:responseError", (event) => {
  let text = event.detail.xhr.responseText;
  try { text = JSON.parse(text).error || text; } catch { /* no JSON: the text itself */ }
  // A part of the page that was waited for says itself why it does not come.
  const waiting = event.detail.target.querySelector?.(":scope > .waiting");
  if (waiting) {
    waiting.textContent = text;
    waiting.className = "warning";
  } else tell(text, true);
});
document.addEventListener("htmx:sendError", () => tell("The server does not answer. Start canal review again, and open its new link.", true));
document.addEventListener("told", (event) => tell(event.detail.value));

// Light and dark.

function switchTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("canal-review-theme", next); } catch { /* a browser that keeps nothing */ }
  document.dispatchEvent(new Event("theme"));
}

// Type-ahead: an input in a .ahead with data-source; what it offers comes from the server.

function setUpAhead(box) {
  if (box.dataset.ready) return;
  box.dataset.ready = "yes";
  const input = box.querySelector("input"), list = box.querySelector("ul");
  let asked = 0, timer = null;

  const close = () => { list.replaceChildren(); input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
  const mark = (item) => {
    for (const one of list.children) one.setAttribute("aria-selected", String(one === item));
    if (item) { input.setAttribute("aria-activedescendant", item.id); item.scrollIntoView({ block: "nearest" }); }
  };
  const take = (item) => {
    input.value = item.dataset.name;
    close();
    input.dispatchEvent(new CustomEvent("taken", { bubbles: true }));
  };
  const ask = async () => {
    const mine = ++asked;
    const query = input.value.trim();
    if (!query) { close(); return; }
    const answer = await fetch(`${box.dataset.source}?q=${encodeURIComponent(query)}`);
    if (!answer.ok || mine !== asked) return; // a later one is under way
    const offers = await answer.json();
    if (document.activeElement !== input) return;
    list.replaceChildren(...offers.map((offer, k) => {
      const item = document.createElement("li");
      item.id = `${input.id}-${k}`;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", "false");
      item.dataset.name = offer.name;
      const name = document.createElement("span"), from = document.createElement("span");
      name.className = "name";
      name.textContent = offer.name;
      from.className = "from";
      from.textContent = offer.from || "";
      item.append(name, from);
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); take(item); });
      return item;
    }));
    input.setAttribute("aria-expanded", String(offers.length > 0));
  };
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 120); });
  input.addEventListener("blur", () => { asked++; close(); });
  input.addEventListener("keydown", (event) => {
    const items = [...list.children];
    const at = items.findIndex((item) => item.getAttribute("aria-selected") === "true");
    if (event.key === "ArrowDown" && items.length) mark(items[(at + 1) % items.length]);
    else if (event.key === "ArrowUp" && items.length) mark(items[(at - 1 + items.length) % items.length]);
    else if (event.key === "Enter" && at >= 0) take(items[at]);
    else if (event.key === "Escape" && items.length) close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function setUpAll(root) {
  for (const box of root.querySelectorAll(".ahead")) setUpAhead(box);
}

// The queue: which group is looked at.

function groupButtons() { return [...document.querySelectorAll("#queue button[data-group]")]; }
function currentGroup() { return byId("evidence")?.querySelector("[data-group]")?.dataset.group || ""; }

function markCurrent() {
  const current = currentGroup();
  for (const button of groupButtons()) button.setAttribute("aria-current", String(button.dataset.group === current));
}

function step(by) {
  const buttons = groupButtons();
  if (!buttons.length) return;
  const at = buttons.findIndex((button) => button.dataset.group === currentGroup());
  const next = buttons[Math.min(Math.max(at + by, 0), buttons.length - 1)];
  next.scrollIntoView({ block: "nearest" });
  next.click();
}

function open(group) {
  return htmx.ajax("GET", `/evidence?group=${encodeURIComponent(group)}`, { target: "#evidence", swap: "innerHTML" });
}

// The map.

let map = null;
let groups = []; // id of each group, by the code that the cells of the map have
let shown = { by: "type", names: [] };

async function bytes(address, options) {
  const answer = await fetch(address, options);
  if (!answer.ok) throw new Error(await reasonOf(answer));
  return answer.arrayBuffer();
}

// A body of the server: length of the head, the head as JSON, then arrays at multiples of four bytes.
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return [head, 4 + length + ((4 - ((4 + length) % 4)) % 4)];
}

// While the map is being drawn, how far that is.
async function tellProgress() {
  try {
    const { told } = await (await fetch("/map/progress")).json();
    if (told && !byId("map").dataset.ready) byId("map-note").textContent = told;
  } catch { /* the points say what is wrong */ }
}

async function loadPoints() {
  performance.mark("points-asked");
  const asking = setInterval(tellProgress, 1000);
  const buffer = await bytes("/map/points").finally(() => clearInterval(asking));
  const [head, start] = unpack(buffer);
  map.setPoints(new Float32Array(buffer, start, head.cells), new Float32Array(buffer, start + 4 * head.cells, head.cells));
  byId("map-note").textContent = head.note;
  byId("map-cells").textContent = `${head.cells.toLocaleString("en")} cells`;
}

async function colour(by) {
  const begun = performance.now();
  const buffer = await bytes(`/map/colours?by=${encodeURIComponent(by)}`);
  const [head, start] = unpack(buffer);
  map.setColours(new Uint16Array(buffer, start, head.cells), head.palette);
  shown = { by, names: head.names, title: head.title };
  byId("by").value = by.startsWith("gene:") ? "gene" : by;
  drawLegend(head);
  // A gene or a figure is looked at in all cells; types and the like beside the group that is open.
  const own = byId("map").dataset.own === "yes";
  if (head.range && !own) map.select(null);
  else if (!own) showGroup(currentGroup());
  map.drawNow();
  byId("map").dataset.colour = by;
  byId("map").dataset.milliseconds = String(Math.round(performance.now() - begun));
}

const MOST_IN_LEGEND = 60;
const SVG = "http://www.w3.org/2000/svg";
function swatch(hex) {
  const picture = document.createElementNS(SVG, "svg"), square = document.createElementNS(SVG, "rect");
  picture.setAttribute("viewBox", "0 0 10 10");
  picture.setAttribute("aria-hidden", "true");
  for (const [name, value] of [["width", 10], ["height", 10], ["rx", 2], ["fill", hex]]) square.setAttribute(name, value);
  picture.append(square);
  return picture;
}

function drawLegend(head) {
  const legend = byId("legend");
  const title = document.createElement("strong");
  title.className = "short";
  title.textContent = head.title;
  if (head.range) {
    // A bar of the whole scale between its ends.
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("class", "scale");
    picture.setAttribute("viewBox", "0 0 64 4");
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("aria-hidden", "true");
    picture.setAttribute("shape-rendering", "crispEdges");
    for (let k = 0; k < 64; k++) {
      const piece = document.createElementNS(SVG, "rect");
      const at = Math.floor((k / 63) * (head.palette.length - 1));
      for (const [name, value] of [["x", k], ["width", 1.1], ["height", 4], ["fill", head.palette[at]]]) piece.setAttribute(name, value);
      picture.append(piece);
    }
    const low = document.createElement("span"), high = document.createElement("span");
    low.textContent = head.range[0];
    high.textContent = head.range[1];
    legend.replaceChildren(title, low, picture, high);
    return;
  }
  const order = head.names.map((name, code) => code).sort((a, b) => head.counts[b] - head.counts[a]);
  const buttons = order.slice(0, MOST_IN_LEGEND).map((code) => {
    const name = head.names[code];
    const button = document.createElement("button");
    button.type = "button";
    button.title = `Select the cells of ${name}`;
    const label = document.createElement("span"), count = document.createElement("span");
    label.className = "short";
    label.textContent = name;
    count.className = "count";
    count.textContent = head.counts[code].toLocaleString("en");
    button.append(swatch(head.palette[code]), label, count);
    button.addEventListener("click", () => {
      const rows = [];
      for (let i = 0; i < map.count; i++) if (map.codes[i] === code) rows.push(i);
      select(Uint32Array.from(rows));
    });
    return button;
  });
  const rest = document.createElement("span");
  rest.className = "note";
  if (order.length > MOST_IN_LEGEND) rest.textContent = `and ${order.length - MOST_IN_LEGEND} more`;
  legend.replaceChildren(title, ...buttons, rest);
}

// Cells that a person chose, by a lasso or in the legend.

let choices = 0; // of what the map shows: a group whose cells come after somebody has chosen others is not shown

function select(rows) {
  const begun = performance.now();
  choices += 1;
  map.select(rows);
  map.drawNow();
  const bar = byId("selection");
  bar.hidden = !rows || !rows.length;
  byId("selected-cells").textContent = rows ? `${rows.length.toLocaleString("en")} cells selected` : "";
  byId("map").dataset.selected = String(rows ? rows.length : 0);
  byId("map").dataset.milliseconds = String(Math.round(performance.now() - begun));
  byId("map").dataset.own = rows && rows.length ? "yes" : "";
}

async function showGroup(group) {
  if (!map || !group || group === "selection" || !shown.names.length) return;
  const own = ++choices;
  try {
    const rows = new Uint32Array(await bytes(`/map/rows?group=${encodeURIComponent(group)}`));
    if (own !== choices) return;
    map.select(rows);
  } catch (error) { tell(error.message, true); }
  byId("selection").hidden = true;
  byId("map").dataset.own = "";
}

async function sendSelection(action, into) {
  const rows = map.rows();
  try {
    const address = `/select?action=${action}&into=${encodeURIComponent(into || "")}`;
    const answer = await fetch(address, { method: "POST", body: rows, headers: { "content-type": "application/octet-stream" } });
    if (!answer.ok) throw new Error(await reasonOf(answer));
    const done = await answer.json();
    if (action !== "look") byId("selection").hidden = true;
    await open(done.group);
    // Told once the new group is open: the one that it was taken from is no more.
    if (action !== "look") {
      htmx.trigger(document.body, "changed");
      tell(done.told);
    }
  } catch (error) { tell(error.message, true); }
}

function background() {
  return getComputedStyle(document.documentElement).getPropertyValue("--map").trim();
}

async function setUpMap() {
  map = new PointMap(byId("cells"), byId("lasso"));
  window.canalMap = map;
  map.setBackground(background());
  document.addEventListener("theme", () => map.setBackground(background()));
  map.onselect = select;
  map.onhover = (row) => {
    const tip = byId("tip");
    tip.hidden = row < 0;
    if (row >= 0) tip.textContent = `cell ${row + 1}: ${shown.names.length ? shown.names[map.codes[row]] : shown.title}`;
  };
  map.onpoint = async (row) => {
    if (row < 0) { select(null); return; }
    const answer = await fetch(`/map/group?row=${row}`);
    if (answer.ok) { const { group } = await answer.json(); if (group) open(group); else tell("This cell is in no group of the queue."); }
  };
  byId("by").addEventListener("change", (event) => { byId("gene").value = ""; colour(event.target.value).catch((error) => tell(error.message, true)); });
  const gene = () => {
    const name = byId("gene").value.trim();
    if (name) colour(`gene:${name}`).catch((error) => tell(error.message, true));
  };
  byId("gene").addEventListener("taken", gene);
  byId("gene-form").addEventListener("submit", (event) => { event.preventDefault(); gene(); });
  byId("split-selection").addEventListener("click", () => sendSelection("split"));
  byId("assign-selection").addEventListener("click", () => {
    const into = byId("assign-into").value.trim();
    if (into) sendSelection("assign", into); else byId("assign-into").focus();
  });
  byId("look-selection").addEventListener("click", () => sendSelection("look"));
  byId("clear-selection").addEventListener("click", () => { select(null); });
  byId("near").addEventListener("click", () => map.zoom(1.4));
  byId("far").addEventListener("click", () => map.zoom(1 / 1.4));
  byId("whole").addEventListener("click", () => map.fit());
  try {
    await loadPoints();
    await colour(byId("by").value);
    byId("map").dataset.ready = "yes";
    performance.mark("points-shown");
    showGroup(currentGroup());
  } catch (error) {
    byId("map-note").textContent = error.message;
    byId("map-note").className = "warning";
    byId("map").dataset.ready = "failed";
  }
}

// What changes when a part of the page was fetched.

// What was decided on a group that is no longer the open one is not shown in place of the one that is.
document.addEventListener("htmx:beforeSwap", (event) => {
  const asking = event.detail.requestConfig.elt;
  if (asking.id === "standing" && !asking.isConnected) event.detail.shouldSwap = false;
});

// htmx listens to what came only when it has settled. Until then the browser itself would send a form that somebody
// quick sends: the page would be left and nothing decided. So it listens at once. The event comes to each part that is new,
// also to one beside the target that was asked for; `detail.target` is that target alone.
document.addEventListener("htmx:afterSwap", (event) => htmx.process(event.target));

// Out of the field of the last decision, so that keys are keys again. At once: who is quick is in the next field when all
// has settled, and what is typed there must not become keys.
document.addEventListener("htmx:afterSwap", (event) => {
  const target = event.detail.target;
  if (target.id === "evidence" && target.contains(document.activeElement)) target.focus({ preventScroll: true });
});

document.addEventListener("htmx:afterSettle", (event) => {
  setUpAll(document);
  const target = event.detail.target;
  if (target.id === "queue") {
    markCurrent();
    // The first group is opened by itself, unless the address names one.
    if (!currentGroup() && !new URLSearchParams(location.search).get("group") && groupButtons().length) groupButtons()[0].click();
  }
  if (target.id === "evidence") {
    markCurrent();
    showGroup(currentGroup());
  }
});
// What somebody decided may change the colours.
document.addEventListener("changed", () => { if (map && /^(decision|group)$/.test(shown.by)) colour(shown.by); });
// A gene in the evidence colours the map; a suggested name fills the field.
document.addEventListener("click", (event) => {
  const taken = event.target.closest("[data-take]");
  if (taken && byId("name")) {
    byId("name").value = taken.dataset.take;
    byId("give-name").focus();
  }
  const gene = event.target.closest("[data-gene]");
  if (gene && map) {
    byId("gene").value = gene.dataset.gene;
    colour(`gene:${gene.dataset.gene}`).catch((error) => tell(error.message, true));
  }
});

// Keys. Each is written beside what it does, in the list that "?" opens.

const focusOn = (id) => () => { const field = byId(id); if (field) { field.focus(); field.select?.(); } };
const press = (id) => () => byId(id)?.click();
const KEYS = {
  j: () => step(1), k: () => step(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1),
  "/": focusOn("search"), n: focusOn("name"), m: focusOn("into"), c: focusOn("comment"), g: focusOn("gene"),
  r: press("reject"), d: press("doublet"), l: press("low-quality"), a: press("approve"), u: press("undo"),
  t: switchTheme, "?": () => byId("keys")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing()) { document.activeElement.blur(); return; }
  if (typing() || byId("keys")?.open) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

document.addEventListener("DOMContentLoaded", () => {
  setUpAll(document);
  byId("theme")?.addEventListener("click", switchTheme);
  byId("show-keys")?.addEventListener("click", () => byId("keys").showModal());
  if (byId("cells")) setUpMap();
  const wanted = new URLSearchParams(location.search).get("group");
  if (wanted && byId("evidence")) open(wanted);
});
