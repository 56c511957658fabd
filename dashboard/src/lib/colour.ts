/**
 * A run's colour, derived from its id so that it is the same everywhere and for ever.
 *
 * Ten hues, chosen to stay apart under protanopia, deuteranopia and tritanopia; lightness differs as well as hue, since that is
 * what is left when hue is not. Each theme has its own ten, 3 : 1 or more against its background (tests/colour.test.ts).
 */

export const HUES = 10;

export const PALETTE: { light: readonly string[]; dark: readonly string[] } = {
  // blue, orange, teal, red, violet, olive, pink, sky, brown, slate
  light: [
    "#5c6dff",
    "#ad6c05",
    "#627c7a",
    "#b1230a",
    "#5a47c3",
    "#9e9069",
    "#f84cb2",
    "#2c9fd1",
    "#6d5750",
    "#364565",
  ],
  dark: [
    "#317ef7",
    "#fe9306",
    "#1ad999",
    "#ee5755",
    "#9b94ad",
    "#f2e10d",
    "#fe9cfc",
    "#d4f0ff",
    "#b63e0b",
    "#666ea0",
  ],
};

/** FNV-1a, 32 bit: small, well spread over short ids, and the same in every browser. */
export function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) {
    value ^= byte;
    value = Math.imul(value, 0x01000193);
  }
  return value >>> 0;
}

export function hueOf(runId: string): number {
  // The low bits of FNV are its weakest; folding the high half in spreads ids that differ in one character.
  const value = hash(runId);
  return ((value >>> 16) ^ (value & 0xffff)) % HUES;
}

export function runColour(runId: string, theme: "light" | "dark"): string {
  return PALETTE[theme][hueOf(runId)] as string;
}
