import { describe, expect, it } from "vitest";
import * as format from "../src/lib/format";

describe("formatNumber", () => {
  it.each([
    [0, "0"],
    [42, "42"],
    [99999, "99999"],
    [0.123456, "0.1235"],
    [0.5, "0.5"],
    [-2.50001, "-2.5"],
    [1234.56, "1235"],
    [12345.6, "12.35k"],
    [123456, "123.5k"],
    [1.5e9, "1.5e9"],
    [0.00001234567, "1.235e-5"],
    [Number.NaN, "NaN"],
    [Number.NEGATIVE_INFINITY, "-Infinity"],
  ])("shows %f as %s", (value, text) => expect(format.formatNumber(value)).toBe(text));
});

describe("formatCount", () => {
  it.each([
    [950, "950"],
    [9999, "9999"],
    [12_500, "12.5k"],
    [199_999, "200k"],
    [1_250_000, "1.25M"],
    [3e9, "3G"],
  ])("shows %d as %s", (value, text) => expect(format.formatCount(value)).toBe(text));
});

describe("formatTicks", () => {
  it("gives quarters two decimals, so that no two labels are the same or wrong", () => {
    expect(format.formatTicks([0, 0.25, 0.5, 0.75], 0.25)).toEqual(["0", "0.25", "0.50", "0.75"]);
  });
  it("shortens thousands", () => {
    expect(format.formatTicks([0, 50_000, 100_000], 50_000)).toEqual(["0", "50k", "100k"]);
    expect(format.formatTicks([12_000, 12_500], 500)).toEqual(["12.0k", "12.5k"]);
  });
  it("tells close ticks far from zero apart", () => {
    const labels = format.formatTicks([1.2e9, 1.2001e9, 1.2002e9], 1e5);
    expect(new Set(labels).size).toBe(3);
  });
  it("uses exponents for tiny values", () => {
    expect(format.formatTicks([0, -5e-6, -1e-5], 5e-6)).toEqual(["0", "-5e-6", "-1e-5"]);
  });
});

describe("formatSize", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1 kB"],
    [999_999, "1 MB"],
    [123_456_789, "123 MB"],
    [5.5e9, "5.5 GB"],
  ])("shows %d bytes as %s", (bytes, text) => expect(format.formatSize(bytes)).toBe(text));
});

describe("formatDuration", () => {
  it.each([
    [0, "0 s"],
    [2.34, "2.3 s"],
    [59.9, "59 s"],
    [185, "3 m 05 s"],
    [3840, "1 h 04 m"],
    [2 * 86400 + 3 * 3600, "2 d 03 h"],
    [-5, "0 s"],
  ])("shows %d seconds as %s", (seconds, text) => expect(format.formatDuration(seconds)).toBe(text));
});

describe("formatAgo", () => {
  const now = 1_800_000_000;
  it.each([
    [-30, "just now"],
    [5, "just now"],
    [45, "45 s ago"],
    [200, "3 min ago"],
    [7300, "2 h ago"],
    [86400, "1 day ago"],
    [86400 * 45, "1 month ago"],
    [86400 * 800, "2 years ago"],
  ])("calls %d seconds %s", (seconds, text) => expect(format.formatAgo(now - seconds, now)).toBe(text));
});

describe("formatValue", () => {
  it("shows what a null stands for, and a plain null as null", () => {
    expect(format.formatValue("NaN")).toBe("NaN");
    expect(format.formatValue(null)).toBe("null");
  });
  it("leaves a string alone, and writes lists as JSON", () => {
    expect(format.formatValue("<b>")).toBe("<b>");
    expect(format.formatValue([1, "a"])).toBe('[1,"a"]');
  });
  it("is empty for what is not there", () => expect(format.formatValue(undefined)).toBe(""));
});
