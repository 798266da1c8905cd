// The page: its state, and who draws what.

import { loadColours, lookUp, paint, percentiles } from "./contrast.js";
import { drawAccounting } from "./accounting.js";
import { length, make, number } from "./format.js";
import { LiveImage, readHeader } from "./image.js";
import { Link } from "./link.js";
import { drawAlarms, drawFigures, drawLamps, drawLog, drawRecords } from "./lists.js";
import { ZERO_IS_NONE } from "./names.js";
import { drawProfile } from "./profile.js";
import { drawTimeline } from "./timeline.js";
import { Trends } from "./trends.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const state = { iocs: [], ioc: null, image: "", images: new Map(), records: {}, events: [], places: [], entries: {}, held: false, linked: "" };
const [maps, entries] = await Promise.all([loadColours(), fetch("api/records").then((answer) => answer.json())]);
state.entries = entries;
const view = new View($("canvas"), showCursor, () => drawProfile($("profile"), view));
const trends = new Trends($("charts"), entries);
const link = new Link(takeFigures, takeImage, takeState);

// ---- the link

function takeState(why) {
  state.linked = why;
  if (!why) {
    state.images.clear(); // the server sends complete images to a new connection
    Object.assign(state, { records: {}, events: [], places: [] });
    if (state.ioc) choose(state.ioc, state.image);
  }
  showWaits();
}

function choose(ioc, image) {
  if (ioc !== state.ioc) {
    Object.assign(state, { records: {}, events: [], places: [] });
    state.images.clear();
    view.clear();
    trends.load(ioc);
  }
  Object.assign(state, { ioc, image });
  const there = Object.keys(here()?.images ?? {});
  if (!there.includes(state.image)) state.image = there[0] ?? "";
  const lesser = there.filter((name) => name !== state.image);
  link.send({ ask: "show", ioc, images: state.image ? [state.image, ...lesser].slice(0, 16) : [] });
  const known = state.images.get(state.image);
  if (known?.header) view.show(known, null); else view.clear();
  showTabs();
  showWaits();
}

// The value of a record for a trend: the agent's SSIM is 0 before it has one.
function shown(name) {
  const value = state.records[name]?.[0];
  return value === 0 && ZERO_IS_NONE.includes(name) ? null : value;
}

const here = () => state.iocs.find((one) => one.ioc === state.ioc);

function takeFigures(told) {
  if (told.iocs) {
    const before = JSON.stringify(Object.keys(here()?.images ?? {}));
    state.iocs = told.iocs;
    if (!state.ioc) choose(told.iocs[0].ioc, "");
    else if (before !== JSON.stringify(Object.keys(here()?.images ?? {}))) choose(state.ioc, state.image);
    showTabs();
  }
  if (told.ioc !== state.ioc) return;
  Object.assign(state.records, told.records ?? {});
  for (const event of told.events ?? []) {
    if (event.replaces) {
      state.events = state.events.filter((one) => one.record !== event.record || one.number < event.replaces);
    }
    state.events.push(event);
  }
  state.events.splice(0, state.events.length - 1000);
  if (told.places) {
    state.places = [...state.places.filter(([number]) => number >= told.first_place), ...told.places];
    view.places = state.places.sort((a, b) => a[3] - b[3]); // batches may overtake one another
  }
  state.now = told.now;
  trends.append(told.now, Object.fromEntries(trends.names.map((name) => [name, shown(name)])));
  if (told.events) drawLog($("log"), state.events, entries);
  if (told.records) showRecordsSoon();
  showWaits();
}

async function takeImage(buffer) {
  const [header, packed] = readHeader(buffer), name = header.image;
  if (header.ioc !== state.ioc) return;
  if (!state.images.has(name)) state.images.set(name, new LiveImage());
  const image = state.images.get(name);
  const tiles = await image.apply(header, packed).catch(() => false);
  if (tiles === false) { link.send({ ask: "drawn", image: name, again: true }); return; }
  const done = () => link.send({ ask: "drawn", image: name });
  if (name !== state.image) { showSmall(name, image); done(); return; }
  if (state.held) { state.missed = true; done(); return; }
  view.show(image, tiles);
  drawProfile($("profile"), view);
  showSmall(name, image);
  showAbout();
  showWaits();
  if (document.hidden) done(); else requestAnimationFrame(done);
}

view.onDrawn = (header) => document.dispatchEvent(new CustomEvent("drawn", { detail: { header, at: performance.timeOrigin + performance.now() } }));

// ---- what is shown

function showWaits() {
  const told = here(), box = $("waits");
  $("link").textContent = state.linked ? "○ not connected" : "● live";
  $("link").className = state.linked ? "sev4" : "sev0";
  const image = told?.images?.[state.image] ?? "";
  const text = state.linked || (told ? told.waits_for || (told.connected && image ? `${state.image}: ${image}` : "") : "asking the server");
  box.hidden = !text;
  box.textContent = text;
  const number = view.image?.header?.number;
  $("nothing").textContent = view.image?.header ? (number === 0 ? "no frame has been stitched yet" : "") : text || "waiting for the first image";
}

function showTabs() {
  const several = state.iocs.length > 1;
  $("iocs").replaceChildren(...(several ? state.iocs : []).map((one) => {
    const tab = make("button", `${one.connected ? "●" : "○"} ${one.ioc}`);
    tab.setAttribute("aria-pressed", one.ioc === state.ioc);
    tab.addEventListener("click", () => choose(one.ioc, ""));
    return tab;
  }));
  document.title = state.ioc ? `${state.ioc} ptychostream` : "ptychostream";
  const names = Object.keys(here()?.images ?? {});
  if ($("images").dataset.names !== [state.ioc, ...names].join()) {
    $("images").dataset.names = [state.ioc, ...names].join();
    $("images").replaceChildren(...names.map((name) => {
      const tab = make("button"), small = make("canvas");
      Object.assign(small, { width: 60, height: 60 });
      tab.append(small, name);
      tab.dataset.image = name;
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => choose(state.ioc, name));
      return tab;
    }));
  }
  for (const tab of $("images").children) tab.setAttribute("aria-selected", tab.dataset.image === state.image);
}

const scratch = document.createElement("canvas");
function showSmall(name, image) {
  const small = [...$("images").children].find((tab) => tab.dataset.image === name)?.firstChild;
  const now = performance.now();
  if (!small || !image.header || (small.drawn && now - small.drawn < 900)) return;
  small.drawn = now;
  paint(scratch, image, lookUp(image.header, maps[$("colours").value], percentiles(image, 1, 99)), null);
  const context = small.getContext("2d"), most = Math.max(scratch.width, scratch.height), k = 60 / most;
  context.clearRect(0, 0, 60, 60);
  context.drawImage(scratch, 30 - (k * scratch.width) / 2, 30 - (k * scratch.height) / 2, k * scratch.width, k * scratch.height);
}

// Lists and charts are made anew at most twice a second, so that images do not wait for them.
function showRecordsSoon() {
  const wait = (state.shownAt ?? 0) + 500 - performance.now();
  if (wait <= 0) showRecords(); else state.showing ??= setTimeout(showRecords, wait);
}

function showRecords() {
  clearTimeout(state.showing);
  Object.assign(state, { showing: null, shownAt: performance.now() });
  drawLamps($("lamps"), state.records);
  drawFigures($("figures"), state.records, entries);
  drawAccounting($("law"), state.records, entries);
  drawAlarms($("alarms"), $("count"), state.records, entries);
  drawTimeline($("timeline"), state.events, state.records, state.now ?? Date.now() / 1000);
  if ($("all").firstElementChild.open) drawRecords($("records"), state.records, entries, $("search").value, (name) => trends.add(name));
}

function showAbout() {
  const { header, attributes } = view.image, scan = attributes.ScanID ? `scan ${attributes.ScanID}, ` : "";
  const frames = attributes.FramesStitched !== undefined ? `${number(attributes.FramesStitched)} frames, ` : "";
  const reduced = header.reduced > 1 ? `, every ${header.reduced}th pixel` : "";
  $("about").textContent = `${scan}${frames}${header.width} × ${header.height} pixels${reduced}${state.held ? ", held" : ""}`;
}

function showCursor(place) {
  const { image } = view;
  if (!place || !image?.header) { $("cursor").textContent = ""; return; }
  const column = Math.floor(place[0]), row = Math.floor(place[1]), value = image.value(column, row);
  const { origin, pixel } = image;
  const where = origin ? `x ${length(origin[0] + column * pixel, 4)}, y ${length(origin[1] + row * pixel, 4)}` : `column ${column}, row ${row}`;
  $("cursor").textContent = `${where}: ${value === null ? "no value" : `${number(value)} ${image.header.units}`}`;
}

// ---- what people do

function next(select) {
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event("change"));
}

function setColours() {
  view.colours = { table: maps[$("colours").value], id: $("colours").value };
  localStorage.setItem("colours", $("colours").value);
  view.draw();
}

function setContrast() {
  const chosen = $("contrast").value, byHand = chosen === "hand";
  $("tools").classList.toggle("by-hand", byHand);
  if (byHand) {
    if ($("low").value === "" && view.limits) [$("low").value, $("high").value] = view.limits.map((limit) => Number(limit.toPrecision(5)));
    const [low, high] = [Number($("low").value), Number($("high").value)];
    if (high > low) view.byHand = [low, high];
  } else {
    view.byHand = null;
    view.percent = chosen.split(",").map(Number);
  }
  view.key = null;
  view.draw();
}

const toggle = (id, on) => { $(id).setAttribute("aria-pressed", on); return on; };
const actions = {
  fit: () => view.fit(),
  freeze: () => {
    state.held = toggle("freeze", !state.held);
    if (state.held && view.image?.header) view.image = view.image.copy();
    if (!state.held && state.missed) choose(state.ioc, state.image);
    state.missed = false;
    if (view.image?.header) showAbout();
  },
  line: () => {
    view.lining = toggle("line", !view.lining);
    if (!view.lining) { view.line = null; drawProfile($("profile"), view); view.draw(); }
  },
  path: () => { view.showPath = toggle("path", !view.showPath); view.draw(); },
  png: () => $("canvas").toBlob((blob) => download(URL.createObjectURL(blob), "png")),
  hdf5: () => download(`api/image.h5?${new URLSearchParams({ ioc: state.ioc, image: state.image })}`, "h5"),
  theme: () => {
    const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    redraw();
  },
  help: () => ($("keys").open ? $("keys").close() : $("keys").showModal()),
  minutes: () => { toggle("day", false); toggle("minutes", true); trends.load(state.ioc, "minutes"); },
  day: () => { toggle("day", true); toggle("minutes", false); trends.load(state.ioc, "day"); },
};

function download(address, kind) {
  const anchor = make("a"), scan = view.image?.attributes?.ScanID ?? "";
  Object.assign(anchor, { href: address, download: `${`${state.ioc}${state.image} ${scan}`.trim().replace(/[^\w.+-]+/g, "_")}.${kind}` });
  anchor.click();
}

function redraw() {
  view.draw();
  trends.draw();
  drawProfile($("profile"), view);
  showRecords();
}

const KEYS = {
  "+": () => view.zoom(1.25), "=": () => view.zoom(1.25), "-": () => view.zoom(0.8), ArrowLeft: () => view.pan(-40, 0),
  ArrowRight: () => view.pan(40, 0), ArrowUp: () => view.pan(0, -40), ArrowDown: () => view.pan(0, 40), f: actions.fit, 0: actions.fit,
  1: () => view.exact(), c: () => next($("colours")), a: () => next($("contrast")), " ": actions.freeze, l: actions.line, t: actions.path,
  p: actions.png, h: actions.hdf5, d: actions.theme, "?": actions.help,
  i: () => { const names = Object.keys(here()?.images ?? {}); choose(state.ioc, names[(names.indexOf(state.image) + 1) % names.length] ?? ""); },
  n: () => { const all = state.iocs.map((one) => one.ioc); choose(all[(all.indexOf(state.ioc) + 1) % all.length], ""); },
};
document.addEventListener("keydown", (event) => {
  const busy = event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey;
  const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (busy || !act || ($("keys").open && event.key !== "?")) return;
  if (event.key.startsWith("Arrow") && event.target !== $("canvas")) return; // they scroll the page
  if (event.key === " " && event.target.matches("button, summary")) return;
  event.preventDefault();
  act();
});

for (const [id, act] of Object.entries(actions)) $(id).addEventListener("click", act);
for (const name of Object.keys(maps)) $("colours").append(make("option", name));
const wanted = localStorage.getItem("colours");
if (wanted in maps) $("colours").value = wanted;
const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
$("colours").addEventListener("change", setColours);
$("contrast").addEventListener("change", setContrast);
for (const id of ["low", "high"]) $(id).addEventListener("change", setContrast);
$("search").addEventListener("input", showRecords);
$("all").firstElementChild.addEventListener("toggle", showRecords);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
window.addEventListener("resize", redraw);
setColours();
document.documentElement.dataset.ready = Math.round(performance.now());
