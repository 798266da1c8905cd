// The canvas with the image: zoom, pan, scale bar, colour bar, path, line.

import { lookUp, paint, percentiles } from "./contrast.js";
import { colour, length, number, roundLength } from "./format.js";

const BAR = 74; // room for the colour bar, CSS pixels
const STEP = 1.25;

export class View {
  constructor(canvas, onCursor, onLine) {
    Object.assign(this, { canvas, onCursor, onLine, image: null, colours: null, limits: null, byHand: null });
    Object.assign(this, { percent: [1, 99], places: [], showPath: true, lining: false, line: null, onDrawn: null, changed: null });
    this.buffer = document.createElement("canvas");
    this.fit();
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.#listen();
  }

  fit() {
    this.fitted = true;
    this.draw();
  }

  // Show an image of which these tiles have changed (null: all).
  show(image, tiles) {
    const before = this.seen;
    if (this.image?.id === image.id && before && image.origin && before.origin && before.pixel === image.pixel) {
      // the canvas has grown: what was in the middle stays there
      this.x += (before.origin[0] - image.origin[0]) / image.pixel;
      this.y += (before.origin[1] - image.origin[1]) / image.pixel;
      if (this.line) {
        const moved = [(before.origin[0] - image.origin[0]) / image.pixel, (before.origin[1] - image.origin[1]) / image.pixel];
        this.line = this.line.map(([x, y]) => [x + moved[0], y + moved[1]]);
      }
    } else if (this.image?.id !== image.id) {
      this.fitted = true;
      this.line = null;
      this.onLine();
    }
    this.seen = { origin: image.origin, pixel: image.pixel };
    // images that come between two refreshes of the screen are painted once
    if (tiles === null || this.image !== image) this.changed = null;
    else for (const tile of tiles) this.changed?.add(tile);
    this.image = image;
    this.draw();
  }

  clear() {
    Object.assign(this, { image: null, seen: null, line: null });
    this.draw();
  }

  // Paint to the buffer what has changed: everything where colours, limits or the image are others.
  #paint() {
    const { image, changed } = this, { offset, step } = image.header;
    const key = [offset, step, this.colours.id, this.byHand].join(), again = this.key === key && this.painted === image;
    if (again && changed?.size === 0) return;
    const limits = this.byHand ?? percentiles(image, ...this.percent);
    // a change of the limits that no eye sees would repaint everything with every image
    const same = this.key === key && (this.byHand || this.#close(limits));
    if (!same) {
      Object.assign(this, { limits, key });
      this.table = lookUp(image.header, this.colours.table, limits);
    }
    paint(this.buffer, image, this.table, same && again && changed ? [...changed] : null);
    Object.assign(this, { painted: image, changed: new Set() });
  }

  #close([low, high]) {
    const [l, h] = this.limits ?? [NaN, NaN], room = (h - l) / 100;
    return Math.abs(low - l) < room && Math.abs(high - h) < room;
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.#draw(); });
  }

  #draw() {
    const { canvas } = this, ratio = window.devicePixelRatio || 1;
    const { clientWidth: wide, clientHeight: high } = canvas;
    if (!wide || !high) return;
    const width = Math.round(wide * ratio), height = Math.round(high * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, wide, high);
    if (!this.image?.header || !this.colours) return;
    this.#paint();
    const area = wide - BAR, { width: w, height: h } = this.image.header;
    if (this.fitted) Object.assign(this, { scale: 0.97 * Math.min(area / w, high / h), x: w / 2, y: h / 2 });
    this.middle = [area / 2, high / 2];
    context.save();
    context.beginPath();
    context.rect(0, 0, area, high);
    context.clip();
    context.imageSmoothingEnabled = this.scale < 1;
    const [left, top] = this.toScreen(0, 0);
    context.drawImage(this.buffer, left, top, w * this.scale, h * this.scale);
    context.strokeStyle = colour("--line");
    context.strokeRect(left - 0.5, top - 0.5, w * this.scale + 1, h * this.scale + 1);
    if (this.showPath) this.#path(context);
    if (this.line) this.#line(context);
    this.#scaleBar(context, area, high);
    context.restore();
    this.#colourBar(context, wide, high);
    this.onDrawn?.(this.image.header);
  }

  toScreen(x, y) {
    return [this.middle[0] + (x - this.x) * this.scale, this.middle[1] + (y - this.y) * this.scale];
  }

  toImage(x, y) {
    return [this.x + (x - this.middle[0]) / this.scale, this.y + (y - this.middle[1]) / this.scale];
  }

  #path(context) {
    const { origin, pixel } = this.image;
    if (!origin || !this.places.length) return;
    const points = this.places.map(([, x, y]) => this.toScreen((x - origin[0]) / pixel + 0.5, (y - origin[1]) / pixel + 0.5));
    for (const [style, width] of [["rgba(0,0,0,.55)", 3], ["rgba(255,255,255,.85)", 1]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
    const [x, y] = points[points.length - 1];
    context.fillStyle = "#ff7a00";
    context.beginPath();
    context.arc(x, y, 5, 0, 7);
    context.fill();
    context.strokeStyle = "#fff";
    context.lineWidth = 1.5;
    context.stroke();
  }

  #line(context) {
    const [a, b] = this.line.map((point) => this.toScreen(...point));
    for (const [style, width] of [["#000", 4], ["#ffd400", 2]]) {
      context.strokeStyle = context.fillStyle = style;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...a);
      context.lineTo(...b);
      context.stroke();
    }
    for (const [x, y] of [a, b]) context.fillRect(x - 4, y - 4, 8, 8);
  }

  #scaleBar(context, wide, high) {
    const { pixel } = this.image, room = Math.min(180, wide / 3);
    const size = roundLength((pixel || 1) * room / this.scale), across = size / (pixel || 1) * this.scale;
    const text = pixel ? length(size) : `${number(size)} pixels`;
    context.font = "600 15px system-ui, sans-serif";
    context.fillStyle = "rgba(0,0,0,.6)";
    context.fillRect(12, high - 48, Math.max(across, context.measureText(text).width) + 20, 38);
    context.fillStyle = "#fff";
    context.fillRect(22, high - 20, across, 4);
    context.fillText(text, 22, high - 27);
  }

  #colourBar(context, wide, high) {
    if (!this.limits || !this.colours) return;
    const left = wide - BAR + 12, top = 30, tall = high - 60, { table } = this.colours;
    for (let k = 0; k < 256; k++) {
      const rgba = table[255 - k];
      context.fillStyle = `rgb(${rgba & 255},${(rgba >> 8) & 255},${(rgba >> 16) & 255})`;
      context.fillRect(left, top + (k * tall) / 256, 14, tall / 256 + 1);
    }
    context.fillStyle = colour("--ink");
    context.font = "13px system-ui, sans-serif";
    const [low, hi] = this.limits, digits = Math.max(0, Math.min(4, 2 - Math.floor(Math.log10(Math.abs(hi - low) || 1))));
    for (let k = 0; k <= 4; k++) {
      const text = number(low + ((hi - low) * (4 - k)) / 4, digits);
      context.fillText(text, left + 18, top + (k * tall) / 4 + 4);
    }
    context.fillText(this.image.header.units, left, top - 12);
  }

  zoom(factor, at = this.middle) {
    if (!this.image?.header) return;
    const [x, y] = this.toImage(...at);
    this.fitted = false;
    this.scale = Math.min(64, Math.max(0.02, this.scale * factor));
    this.x = x - (at[0] - this.middle[0]) / this.scale;
    this.y = y - (at[1] - this.middle[1]) / this.scale;
    this.draw();
  }

  exact() {
    this.fitted = false;
    this.scale = 1;
    this.draw();
  }

  pan(right, down) {
    this.fitted = false;
    this.x += right / this.scale;
    this.y += down / this.scale;
    this.draw();
  }

  #listen() {
    const { canvas } = this, fingers = new Map();
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? STEP : 1 / STEP, place(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.fit());
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.image?.header) return;
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, place(event));
      this.drawing = (this.lining || event.shiftKey) && fingers.size === 1;
      if (this.drawing) this.line = [this.toImage(...place(event)), this.toImage(...place(event))];
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.image?.header) return;
      const now = place(event), before = fingers.get(event.pointerId);
      this.onCursor(this.toImage(...now));
      if (!before) return;
      if (this.drawing) {
        this.line = [this.line[0], this.toImage(...now)];
        this.onLine();
        this.draw();
      } else if (fingers.size === 1) {
        this.pan(before[0] - now[0], before[1] - now[1]);
      } else if (fingers.size === 2) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
        this.zoom(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
      }
      fingers.set(event.pointerId, now);
    });
    const up = (event) => { fingers.delete(event.pointerId); this.drawing = false; };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => this.onCursor(null));
  }
}
