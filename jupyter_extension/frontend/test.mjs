/** Bundles every test/*.test.ts(x) and runs them under node:test (`npm test`). */
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = await mkdtemp(join(here, "dist-test-"));
try {
  const tests = (await readdir(join(here, "test"))).filter((name) => /\.test\.tsx?$/.test(name));
  await build({
    absWorkingDir: here,
    entryPoints: tests.map((name) => join("test", name)),
    outdir: out,
    bundle: true,
    format: "esm",
    platform: "node",
    target: ["node20"],
    jsx: "automatic",
    jsxImportSource: "preact",
    packages: "external",
    sourcemap: "inline",
    outExtension: { ".js": ".mjs" },
    logLevel: "warning",
  });
  const files = (await readdir(out)).map((name) => join(out, name));
  // A test that fails leaves its model's timers behind: it must not hang the run.
  const options = ["--enable-source-maps", "--test", "--test-force-exit", "--test-timeout=30000"];
  const run = spawnSync(process.execPath, [...options, ...files], { stdio: "inherit", cwd: here, timeout: 120_000 });
  process.exitCode = run.status ?? 1;
} finally {
  await rm(out, { recursive: true, force: true });
}
