/**
 * Builds the panel: one ES module and one style sheet, because anywidget loads its front end from a
 * blob: URL, where neither chunks nor relative imports work.
 *
 *   node build.mjs            → ../../p2pnb/panel/static/panel.js, panel.css
 *   node build.mjs --watch    the same, again after every change
 *   node build.mjs --harness  → dist/harness.js, panel.css (dev/harness.html; not part of any package)
 */
import { copyFile, mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, context } from "esbuild";

// The module is sent with every widget instance and may be saved with the notebook.
const MAX_BYTES = 150_000;

// Their code is part of the bundle, so their notices go with it.
const BUNDLED = ["preact", "@preact/signals", "@preact/signals-core"];

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "..", "p2pnb", "panel", "static");

/** @type {import("esbuild").BuildOptions} */
const shared = {
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "none",
  logLevel: "info",
};

/** @type {import("esbuild").BuildOptions} */
const panel = {
  ...shared,
  // Both are named "panel"; esbuild keeps them apart by their extension.
  entryPoints: [
    { in: "src/panel.ts", out: "panel" },
    { in: "src/style.css", out: "panel" },
  ],
  minify: true,
};

if (process.argv.includes("--harness")) {
  await build({ ...shared, entryPoints: { harness: "dev/harness.tsx", panel: "src/style.css" }, outdir: "dist" });
  await copyFile(join(here, "dev", "harness.html"), join(here, "dist", "harness.html"));
} else if (process.argv.includes("--watch")) {
  const watching = await context({ ...panel, outdir: target });
  await watching.watch();
} else {
  // Built beside the target and renamed, so that a kernel which starts meanwhile never reads half a module.
  const fresh = `${target}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { recursive: true });
  await build({ ...panel, outdir: fresh });
  const { size } = await stat(join(fresh, "panel.js"));
  if (size > MAX_BYTES) {
    throw new Error(`panel.js has ${size} bytes; at most ${MAX_BYTES} may go with every widget`);
  }
  const notices = await Promise.all(
    BUNDLED.map(async (name) => `${name}\n\n${await readFile(join(here, "node_modules", name, "LICENSE"), "utf8")}`),
  );
  await writeFile(join(fresh, "THIRD-PARTY-LICENSES.txt"), notices.join(`\n${"-".repeat(80)}\n\n`));
  await mkdir(target, { recursive: true });
  for (const name of ["panel.js", "panel.css", "THIRD-PARTY-LICENSES.txt"]) await rename(join(fresh, name), join(target, name));
  await rm(fresh, { recursive: true, force: true });
}
