// Numbers, times and lengths as texts; elements with text.

export function number(value, digits) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (digits === undefined) {
    if (Number.isInteger(value)) return value.toLocaleString("en");
    digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 4;
  }
  if (value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits) return value.toExponential(1);
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString("en-GB");
}

// A length in metres in the unit that reads best.
export function length(metres, digits = 3) {
  const size = Math.abs(metres);
  const [unit, factor] = size >= 1e-3 ? ["mm", 1e3] : size >= 0.95e-6 ? ["µm", 1e6] : ["nm", 1e9];
  return `${Number((metres * factor).toPrecision(digits))} ${unit}`;
}

// 1, 2 or 5 times a power of ten, at most `most`.
export function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].find((step) => step * power <= most) * power;
}

export function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  if (className) element.className = className;
  return element;
}

export const SIGNS = ["●", "▲", "■", "◆", "○"];
export const SEVERITIES = ["no alarm", "minor", "major", "invalid", "no answer"];

// A colour of the style sheet.
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
