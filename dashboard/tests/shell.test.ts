import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { shellQuote } from "../src/lib/shell";

describe("shellQuote", () => {
  it.each(["lab", "a b", "it's", "$(touch x)", "`id`", "a;b", "-x", ""])(
    "keeps %j one word of a shell",
    (text) => {
      const said = execFileSync("sh", ["-c", `printf %s ${shellQuote(text)}`], { encoding: "utf8" });
      expect(said).toBe(text);
    },
  );
  it("leaves plain words plain", () => expect(shellQuote("team-1/x")).toBe("team-1/x"));
});
