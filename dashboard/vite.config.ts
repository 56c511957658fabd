import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte({ configFile: false })],
  build: {
    outDir: "../server/flightlog_server/static",
    emptyOutDir: true,
    // The server's content policy allows no data: URLs but for images, so every asset stays a file.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 400,
  },
  server: {
    // `npm run dev` beside a `flightlog server` on its default port.
    proxy: { "/api": "http://127.0.0.1:8080" },
  },
});
