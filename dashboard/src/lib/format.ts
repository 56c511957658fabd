/** How numbers, sizes, durations and times read. Pure: the current time is always an argument. */

import type { Json } from "./types";

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

function trimZeros(text: string): string {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function exponential(value: number, digits: number): string {
  const [mantissa = "", exponent = ""] = value.toExponential(digits - 1).split("e");
  return `${trimZeros(mantissa)}e${exponent.replace("+", "")}`;
}

/** A number in at most four significant digits; integers below 100,000 stay whole. */
export function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "Infinity" : "-Infinity";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 100_000) return String(value);
  if (size < 1e-4 || size >= 1e7) return exponential(value, 4);
  if (size >= 10_000) return `${trimZeros((value / 1000).toPrecision(4))}k`;
  return trimZeros(value.toPrecision(4));
}

/** A step or a count: 950, 12.5k, 1.25M. */
export function formatCount(value: number): string {
  const size = Math.abs(value);
  if (size < 10_000) return trimZeros(value.toFixed(2));
  for (const [unit, suffix] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (size >= unit) return `${trimZeros((value / unit).toPrecision(4))}${suffix}`;
  }
  return String(value);
}

/** Every digit, grouped: what a hover shows where formatCount shortened. */
export function formatExact(value: number): string {
  return Number.isFinite(value)
    ? value.toLocaleString("en-US", { maximumFractionDigits: 17 })
    : String(value);
}

/** Labels for the ticks of one axis: as many decimals as the distance between them needs. */
export function formatTicks(ticks: number[], distance: number): string[] {
  const largest = Math.max(...ticks.map(Math.abs), distance);
  const say = (number: (tick: number) => string) => ticks.map((tick) => (tick === 0 ? "0" : number(tick)));
  if (largest >= 1e7 || largest < 1e-3) {
    const digits = Math.floor(Math.log10(largest)) + 1 + decimalsOf(distance);
    return say((tick) => exponential(tick, Math.max(1, Math.min(digits, 12))));
  }
  if (largest >= 10_000) {
    const decimals = decimalsOf(distance / 1000);
    return say((tick) => `${(tick / 1000).toFixed(decimals)}k`);
  }
  return say((tick) => tick.toFixed(decimalsOf(distance)));
}

/** How many decimals a number needs: 0.25 needs two, 100 none. */
function decimalsOf(value: number): number {
  const [mantissa = "", exponent = "0"] = value.toExponential(3).split("e");
  const digits = trimZeros(mantissa).replace("-", "").replace(".", "").length;
  return Math.max(0, digits - 1 - Number(exponent));
}

/** Bytes in decimal units, as disks and networks count them. */
export function formatSize(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let size = bytes;
  let unit = "B";
  for (const next of units) {
    // 999.95 would print as "1000", so it moves up one unit already.
    if (size < 999.5) break;
    size /= 1000;
    unit = next;
  }
  return `${trimZeros(size.toPrecision(3))} ${unit}`;
}

/** Seconds as "12 s", "3 m 05 s", "1 h 04 m", "2 d 03 h". */
export function formatDuration(seconds: number): string {
  const total = Math.max(0, seconds);
  if (total < 10 && total % 1 !== 0) return `${trimZeros(total.toFixed(1))} s`;
  const whole = Math.floor(total);
  const two = (part: number) => String(Math.floor(part)).padStart(2, "0");
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} m ${two(whole % MINUTE)} s`;
  if (whole < DAY) return `${Math.floor(whole / HOUR)} h ${two((whole % HOUR) / MINUTE)} m`;
  return `${Math.floor(whole / DAY)} d ${two((whole % DAY) / HOUR)} h`;
}

/** How long ago `then` was. Clocks differ: what lies slightly in the future counts as now. */
export function formatAgo(then: number, now: number): string {
  const seconds = now - then;
  if (seconds < 10) return "just now";
  if (seconds < MINUTE) return `${Math.floor(seconds)} s ago`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min ago`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h ago`;
  if (seconds < 30 * DAY) return plural(Math.floor(seconds / DAY), "day") + " ago";
  if (seconds < 365 * DAY) return plural(Math.floor(seconds / (30 * DAY)), "month") + " ago";
  return plural(Math.floor(seconds / (365 * DAY)), "year") + " ago";
}

/** The reader's own local time, to the second. */
export function formatTime(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (part: number) => String(part).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function plural(count: number, noun: string): string {
  return `${formatExact(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** A value of a config or a summary on one line. NaN and the infinities come as the texts that say so. */
export function formatValue(value: Json | undefined): string {
  if (value === undefined) return "";
  if (value === null) return "null";
  if (typeof value === "number") return formatNumber(value);
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}
