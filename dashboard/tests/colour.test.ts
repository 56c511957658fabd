import { describe, expect, it } from "vitest";
import { HUES, hueOf, PALETTE, runColour } from "../src/lib/colour";

type Rgb = [number, number, number];

const BACKGROUND = { light: "#ffffff", dark: "#14171a" };

/** Machado, Oliveira, Fernandes (2009), severity 1.0, on linear RGB. https://doi.org/10.1109/TVCG.2009.113 */
const VISION: Record<string, number[]> = {
  normal: [1, 0, 0, 0, 1, 0, 0, 0, 1],
  protanopia: [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
  deuteranopia: [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
  tritanopia: [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039],
};

function linear(hex: string): Rgb {
  return [1, 3, 5].map((at) => {
    const value = parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  }) as Rgb;
}

function seen([r, g, b]: Rgb, m: number[]): Rgb {
  const row = (i: number) => Math.min(1, Math.max(0, m[i]! * r + m[i + 1]! * g + m[i + 2]! * b));
  return [row(0), row(3), row(6)];
}

/** OKLab, in which equal distances look equally different. https://bottosson.github.io/posts/oklab/ */
function oklab([r, g, b]: Rgb): Rgb {
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function distance(a: Rgb, b: Rgb): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

function contrast(a: Rgb, b: Rgb): number {
  const [x, y] = [a, b].map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) as [number, number];
  return Math.max(x, y) / Math.min(x, y);
}

describe.each(["light", "dark"] as const)("the %s palette", (theme) => {
  it("has ten hues that stand out from the background", () => {
    expect(PALETTE[theme]).toHaveLength(HUES);
    for (const hex of PALETTE[theme]) {
      expect(contrast(linear(hex), linear(BACKGROUND[theme])), hex).toBeGreaterThanOrEqual(3);
    }
  });
  it.each(Object.entries(VISION))("keeps its hues apart under %s vision", (_, matrix) => {
    const colours = PALETTE[theme].map((hex) => oklab(seen(linear(hex), matrix)));
    colours.forEach((a, i) =>
      colours.slice(i + 1).forEach((b, j) => {
        expect(distance(a, b), `${PALETTE[theme][i]} ${PALETTE[theme][i + 1 + j]}`).toBeGreaterThan(0.07);
      }),
    );
  });
});

describe("a run's colour", () => {
  it("is the same every time, and comes from the theme's palette", () => {
    expect(runColour("k3v9x2abqmtz", "light")).toBe(runColour("k3v9x2abqmtz", "light"));
    expect(PALETTE.dark).toContain(runColour("k3v9x2abqmtz", "dark"));
  });
  it("does not change between releases", () => {
    expect(["k3v9x2abqmtz", "a", "", "run-1", "run-2", "é"].map(hueOf)).toMatchInlineSnapshot(`
      [
        6,
        2,
        5,
        9,
        4,
        8,
      ]
    `);
  });
  it("spreads ids that differ in their last characters evenly", () => {
    const counts = new Array<number>(HUES).fill(0);
    for (let i = 0; i < 5000; i++) counts[hueOf(`run-${i}`)]! += 1;
    expect(Math.min(...counts)).toBeGreaterThan(350);
    expect(Math.max(...counts)).toBeLessThan(650);
  });
});
