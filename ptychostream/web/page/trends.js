// Trends: fetched once, then continued with what comes.

import { drawChart } from "./chart.js";
import { clock, make } from "./format.js";
import { TRENDS, ZERO_IS_NONE } from "./names.js";

const SPAN = { minutes: 900, day: 86400 };
const COLOURS = ["--s0", "--s1", "--s2"];

export class Trends {
  constructor(box, entries) {
    Object.assign(this, { box, entries, span: "minutes", charts: TRENDS.map((one) => [...one]), data: {}, ioc: "" });
    this.canvases = [];
    this.#build();
  }

  #build() {
    this.box.replaceChildren(...this.charts.map(([title]) => {
      const canvas = make("canvas");
      canvas.setAttribute("aria-label", title);
      return canvas;
    }));
    this.canvases = [...this.box.children];
  }

  get names() { return this.charts.flatMap(([, , records]) => records.map(([name]) => name)); }

  // One more chart, of any record.
  add(name) {
    const entry = this.entries[name];
    if (!entry?.number) return;
    this.charts = [...TRENDS, [entry.about, entry.unit, [[name, name]]]];
    this.#build();
    this.load(this.ioc);
  }

  async load(ioc, span = this.span) {
    Object.assign(this, { ioc, span });
    const query = new URLSearchParams({ ioc, records: this.names.join(), minutes: span === "day" ? "1" : "0" });
    try {
      const found = await (await fetch(`api/history?${query}`)).json();
      for (const name of ZERO_IS_NONE) found[name] = found[name]?.map((value) => value || null);
      if (ioc === this.ioc && span === this.span) this.data = found;
    } catch { return; } // the link says that the server is away
    this.draw();
  }

  // A second has passed.
  append(now, values) {
    const { time } = this.data;
    if (!time || this.span === "day" || (time.length && now - time[time.length - 1] < 0.9)) return;
    time.push(now);
    for (const name of this.names) (this.data[name] ??= []).push(typeof values[name] === "number" ? values[name] : null);
    while (time.length > SPAN.minutes) { time.shift(); for (const name of this.names) this.data[name].shift(); }
    this.draw();
  }

  draw() {
    const { time } = this.data;
    if (!time) return;
    const to = time[time.length - 1] ?? Date.now() / 1000;
    const from = Math.max(to - SPAN[this.span], Math.min(time[0] ?? to, to - 60));
    this.charts.forEach(([title, unit, records], k) => drawChart(this.canvases[k], {
      title, unit, range: [from, to], xText: clock, zero: true,
      series: records.map(([name, word], n) => ({ name: word, x: time, y: this.data[name] ?? [], colour: COLOURS[n] })),
    }));
  }
}
