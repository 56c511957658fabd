import { afterEach, describe, expect, it, vi } from "vitest";
import * as api from "../src/lib/api";

const ref = { workspace: "lab", project: "digits", id: "k3v9" };

function answer(status: number, body: unknown) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const fetch = vi.fn(async (_url: string, _options: RequestInit) => new Response(text, { status }));
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

afterEach(() => vi.unstubAllGlobals());

describe("addresses of files", () => {
  it("encode every segment and keep the slashes between them", () => {
    expect(api.runFileUrl(ref, "media/a b/ü?#%.png")).toBe(
      "/api/v1/runs/lab/digits/k3v9/files/media/a%20b/%C3%BC%3F%23%25.png",
    );
    expect(api.artifactFileUrl("lab", "digits", "model", "v3", "x/y.bin")).toBe(
      "/api/v1/artifacts/lab/digits/model/v3/files/x/y.bin",
    );
  });
  it.each(["../../../me", "a/../b", "./a", "/etc/passwd", "a//b", ""])("are refused for %s", (path) => {
    expect(api.runFileUrl(ref, path)).toBeNull();
  });
  it("cannot name another scheme or host", () => {
    expect(api.runFileUrl(ref, "javascript:alert(1)")).toMatch(/^\/api\/v1\/runs\//);
  });
});

describe("series", () => {
  it("ask for a window only when there is one", () => {
    expect(api.seriesPath(ref, "train/loss&x", 800, null)).toBe(
      "/runs/lab/digits/k3v9/series?metric=train%2Floss%26x&points=800",
    );
    expect(api.seriesPath(ref, "a", 200, { from: -5, to: 10 })).toMatch(/&from=-5&to=10$/);
  });
});

describe("requests", () => {
  it("carry the header against forged requests exactly when they change something", async () => {
    const fetch = answer(200, { user: { name: "ada", is_admin: false } });
    await api.signIn("fl_key");
    expect(fetch.mock.calls[0]![1].headers).toMatchObject({ "X-Flightlog": "1" });
    expect(fetch.mock.calls[0]![1].body).toBe('{"api_key":"fl_key"}');
    await api.getMe();
    expect(fetch.mock.calls[1]![1].headers).not.toHaveProperty("X-Flightlog");
  });
  it("tell a refusal from a server that does not answer", async () => {
    answer(401, { error: "bad_key", detail: "No such key." });
    await expect(api.signIn("x")).rejects.toMatchObject({ name: "Refused", status: 401, code: "bad_key" });
    answer(502, "<html>");
    await expect(api.getMe()).rejects.toBeInstanceOf(api.Unreachable);
    answer(200, "<html>a captive portal</html>");
    await expect(api.getMe()).rejects.toBeInstanceOf(api.Unreachable);
    vi.stubGlobal("fetch", async () => Promise.reject(new TypeError("Failed to fetch")));
    await expect(api.getMe()).rejects.toBeInstanceOf(api.Unreachable);
  });
  it("report a refusal without a body of ours too", async () => {
    answer(404, "not json");
    await expect(api.getRun(ref)).rejects.toMatchObject({ status: 404, code: "unknown" });
  });
});
