// Lamps, figures, alarms, log and the table of all records.

import { clock, make, number, SEVERITIES, SIGNS } from "./format.js";
import { CLUSTER, FIGURES, LAMPS, WIDE_FIGURES } from "./names.js";

// A record that only has no value yet is no trouble.
const trouble = (reading) => (reading[2].startsWith("UDF") ? 0 : reading[1]);
const unit = (reading, entry) => (reading[4] && reading[4] !== "1" ? reading[4] : entry?.unit ?? "");

export function drawLamps(list, records) {
  list.replaceChildren(...LAMPS.filter(([name]) => records[name]).map(([name, word]) => {
    const [value] = records[name], severity = trouble(records[name]);
    return make("li", `${SIGNS[severity]} ${word}: ${value ?? "–"}`, `sev${severity}`);
  }));
}

function figure([name, title, digits], records, entries, wide) {
  const reading = records[name], box = make("div", "", wide ? "wide" : "");
  const value = make("dd", number(reading[0], digits), reading[1] && reading[1] < 4 ? `sev${reading[1]}` : "");
  const told = typeof reading[0] === "number" ? unit(reading, entries[name]) : "";
  if (told && reading[0] !== null) value.append(" ", make("small", told));
  box.append(make("dt", title), value);
  box.title = `${name}: ${entries[name]?.about ?? ""}`;
  return box;
}

export function drawFigures(list, records, entries) {
  const there = ([name]) => records[name] && records[name][0] !== "" && records[name][0] !== null;
  list.replaceChildren(...[...FIGURES, ...CLUSTER].filter(there).map((one) => figure(one, records, entries, false)),
    ...WIDE_FIGURES.filter(there).map((one) => figure(one, records, entries, true)));
}

export function drawAlarms(list, title, records, entries) {
  const found = Object.entries(records).filter(([, reading]) => trouble(reading) > 0 && reading[1] < 4)
    .sort(([, a], [, b]) => b[1] - a[1] || b[3] - a[3]);
  title.textContent = found.length ? `${found.length} of ${Object.keys(records).length} records` : "none";
  list.replaceChildren(...found.slice(0, 60).map(([name, reading]) => {
    const item = make("li"), text = make("p");
    item.append(make("span", `${SIGNS[reading[1]]} ${SEVERITIES[reading[1]]}`, `sev${reading[1]}`), text);
    text.append(`${entries[name]?.about ?? name}: ${number(reading[0])} ${typeof reading[0] === "number" ? unit(reading, entries[name]) : ""}`,
      make("small", `${name}, since ${clock(reading[3])}`));
    return item;
  }));
}

export function drawLog(list, events, entries) {
  list.replaceChildren(...events.slice(-200).reverse().map((event) => {
    const item = make("li"), text = make("p"), time = make("time", clock(event.time_s));
    text.append(make("span", `${SIGNS[event.severity]} `, `sev${event.severity}`),
      event.record ? `${entries[event.record]?.about ?? event.record}: ` : "", event.text);
    text.title = event.record;
    item.append(time, text);
    return item;
  }));
}

// Rows of the table; `onName` is called with a record that is chosen.
export function drawRecords(body, records, entries, wanted, onName) {
  const words = wanted.toLowerCase();
  const names = Object.keys(entries).filter((name) => records[name] &&
    `${name} ${entries[name].about} ${entries[name].group}`.toLowerCase().includes(words)).sort();
  body.replaceChildren(...names.map((name) => {
    const row = make("tr"), cell = make("td"), [value] = records[name], severity = trouble(records[name]);
    if (entries[name].number) {
      const button = make("button", name);
      button.title = "Show its trend";
      button.addEventListener("click", () => onName(name));
      cell.append(button);
    } else cell.textContent = name;
    const shown = `${number(value)} ${typeof value === "number" ? unit(records[name], entries[name]) : ""}`;
    row.append(cell, make("td", severity ? `${SIGNS[severity]} ${shown}` : shown, severity ? `sev${severity}` : ""), make("td", entries[name].about));
    return row;
  }));
}
