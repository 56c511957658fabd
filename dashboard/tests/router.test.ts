import { describe, expect, it } from "vitest";
import { joinPath, keyFromFragment, parseRoute, projectPath, runPath, withQuery } from "../src/lib/router";

describe("parseRoute", () => {
  it("knows the screens", () => {
    expect(parseRoute("/")).toEqual({ screen: "projects", workspace: null });
    expect(parseRoute("/w/lab/")).toEqual({ screen: "projects", workspace: "lab" });
    expect(parseRoute("/w/lab/digits")).toEqual({ screen: "runs", workspace: "lab", project: "digits" });
    expect(parseRoute("/w/lab/digits/runs/k3v9")).toEqual({
      screen: "run",
      ref: { workspace: "lab", project: "digits", id: "k3v9" },
    });
  });
  it.each(["/x", "/w", "/w/a/b/c", "/w/a/b/runs", "/w/a/b/runs/c/d", "/w/%zz"])("has nothing at %s", (path) =>
    expect(parseRoute(path)).toEqual({ screen: "missing", path }),
  );
});

describe("addresses", () => {
  it("come back as they went, whatever the names hold", () => {
    const ref = { workspace: "a b", project: 'p?x=1#"<', id: "é/../x%2F" };
    expect(parseRoute(runPath(ref))).toEqual({ screen: "run", ref });
    expect(parseRoute(projectPath("ü", "a&b"))).toEqual({ screen: "runs", workspace: "ü", project: "a&b" });
  });
  it("cannot be climbed out of", () => {
    const path = joinPath("runs", "..", "..", "x");
    expect(new URL(path, "http://host/").pathname).toBe(path);
  });
});

describe("withQuery", () => {
  it("sets, replaces, repeats and removes", () => {
    expect(withQuery("", { q: "loss" })).toBe("?q=loss");
    expect(withQuery("?q=loss&from=1", { q: "acc" })).toBe("?from=1&q=acc");
    expect(withQuery("?q=loss", { q: "" })).toBe("");
    expect(withQuery("?fold=a", { fold: ["a", "b&c"] })).toBe("?fold=a&fold=b%26c");
    expect(withQuery("?from=1&to=2", { from: null, to: null })).toBe("");
  });
});

describe("keyFromFragment", () => {
  it("finds a key and nothing else", () => {
    expect(keyFromFragment("#key=fl_abc")).toBe("fl_abc");
    expect(keyFromFragment("#key=%20fl_abc%0A")).toBe("fl_abc");
    expect(keyFromFragment("#section")).toBeNull();
    expect(keyFromFragment("#key=")).toBeNull();
    expect(keyFromFragment("")).toBeNull();
  });
});
