import assert from "node:assert/strict";
import { test } from "node:test";
import { PanelModel } from "../src/models/panel.ts";
import { MAX_SEPARATE, PIECE_BYTES, WINDOW, groups } from "../src/models/uploads.ts";
import type { UploadFile } from "../src/ports/port.ts";
import { MAX_PIECE_BYTES } from "../src/ports/protocol.ts";
import { ScriptedPort } from "./fixtures.ts";

const file = (path: string, size = 0): UploadFile => ({ path, blob: new Blob([new Uint8Array(size).fill(7)]) });
/** Blobs are read by the platform, outside of our turns. */
const idle = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
};

test("pieces are small enough for a Jupyter server and only a few are under way", async () => {
  assert.ok(PIECE_BYTES <= MAX_PIECE_BYTES);
  const port = new ScriptedPort();
  const panel = new PanelModel(port);
  const size = 10 * PIECE_BYTES + 1;
  panel.uploads.add([file("big.bin", size)]);
  await idle();
  assert.equal(port.named("upload_piece").length, 0);
  port.ack(port.named("upload_begin")[0]);
  let most = 0;
  for (let done = 0; done < 11; done++) {
    await idle();
    most = Math.max(most, port.named("upload_piece").length - done);
    port.ack(port.named("upload_piece")[done]);
  }
  await idle();
  assert.equal(most, WINDOW);
  assert.deepEqual(
    port.named("upload_piece").map((piece) => piece["offset"]),
    Array.from({ length: 11 }, (_, index) => index * PIECE_BYTES),
  );
  const bytes = port.buffers.flat().reduce((sum, buffer) => sum + buffer.byteLength, 0);
  assert.equal(bytes, size);
  port.ack(port.named("upload_end")[0], { transfer: "t" });
  await idle();
  assert.deepEqual(panel.uploads.uploads.value, []);
  panel.dispose();
});

test("a refused piece ends the upload with its reason, and the kernel is told", async () => {
  const port = new ScriptedPort();
  const panel = new PanelModel(port);
  panel.uploads.add([file("a", 3)]);
  port.ack(port.named("upload_begin")[0]);
  await idle();
  port.refuse(port.named("upload_piece")[0], "DiskFullError", "no space left");
  await idle();
  const [upload] = panel.uploads.uploads.value;
  assert.equal(upload?.state.value, "failed");
  assert.equal(upload?.error.value, "no space left");
  assert.equal(port.named("upload_abort").length, 1);
  assert.equal(port.named("upload_end").length, 0);
  panel.dispose();
});

test("a cancelled upload stops, and the next one goes on", async () => {
  const port = new ScriptedPort();
  const panel = new PanelModel(port);
  panel.uploads.add([file("a", 3), file("b", 3)]);
  port.ack(port.named("upload_begin")[0]);
  await idle();
  const [first] = panel.uploads.uploads.value;
  panel.uploads.cancel(first!);
  port.ack(port.named("upload_piece")[0]);
  await idle();
  assert.equal(port.named("upload_abort").length, 1);
  assert.deepEqual(port.named("upload_end"), []);
  assert.deepEqual(port.named("upload_begin")[1]?.["files"], [["b", 3]]);
  panel.dispose();
});

test("folders go as one, loose files each by itself, very many loose files together", () => {
  const cut = (paths: string[]): string[][] => groups(paths.map((path) => file(path))).map((g) => g.map((f) => f.path));
  assert.deepEqual(cut(["a", "x/1", "b", "y/1", "x/z/2"]), [["x/1", "x/z/2"], ["y/1"], ["a"], ["b"]]);
  const many = Array.from({ length: MAX_SEPARATE + 1 }, (_, index) => `f${index}`);
  assert.deepEqual(cut(many), [many]);
});

test("a port whose peer is in the page takes the files itself", async () => {
  const port = new ScriptedPort();
  const taken: string[] = [];
  Object.assign(port, { sendFiles: async (files: UploadFile[]) => void taken.push(...files.map(({ path }) => path)) });
  const panel = new PanelModel(port);
  panel.uploads.add([file("a")]);
  await idle();
  assert.deepEqual(taken, ["a"]);
  assert.deepEqual(port.sent, []);
  assert.deepEqual(panel.uploads.uploads.value, []);
  panel.dispose();
});
