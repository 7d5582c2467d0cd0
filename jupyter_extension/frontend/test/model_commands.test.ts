import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { CommandFailed, SLOW_MS, SYNC_MS } from "../src/models/commands.ts";
import { PanelModel } from "../src/models/panel.ts";
import { ROOM } from "../dev/states.ts";
import { ScriptedPort, settle } from "./fixtures.ts";

function open(): { port: ScriptedPort; panel: PanelModel } {
  const port = new ScriptedPort();
  const panel = new PanelModel(port);
  panel.refresh();
  port.emit({ kind: "snapshot", seq: 1, state: ROOM });
  for (const message of [...port.sent]) port.ack(message);
  return { port, panel };
}

test("a view that appears reports where the browser is and asks for everything", () => {
  const { port, panel } = open();
  assert.deepEqual(port.sent.map(({ cmd }) => cmd), ["location", "snapshot"]);
  assert.equal(port.sent[0]?.["base_url"], "/user/ada/");
  assert.ok(panel.ready.value);
  panel.dispose();
});

test("ids are integers that two pages will not share", () => {
  const first = open();
  const second = open();
  const ids = [...first.port.sent, ...second.port.sent].map(({ id }) => id);
  assert.ok(ids.every((id) => Number.isSafeInteger(id)));
  assert.equal(new Set(ids).size, ids.length);
  first.panel.dispose();
  second.panel.dispose();
});

test("a kernel that does not answer is called busy after two seconds, until it answers", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const { port, panel } = open();
  void panel.run("unlock", {});
  context.mock.timers.tick(SLOW_MS - 1);
  assert.equal(panel.busy.value, false);
  context.mock.timers.tick(1);
  assert.equal(panel.busy.value, true);
  port.ack(port.named("unlock")[0]);
  assert.equal(panel.busy.value, false);
  panel.dispose();
});

test("a room that takes long to join is not a busy kernel", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const { port, panel } = open();
  panel.lobby.invite.value = "7kq2m-a-b-c-d";
  void panel.lobby.join();
  context.mock.timers.tick(SLOW_MS / 2);
  port.emit({ kind: "started", id: port.named("join")[0]?.id ?? 0 });
  context.mock.timers.tick(SLOW_MS * 4);
  assert.equal(panel.busy.value, false);
  assert.equal(panel.lobby.doing.value, "join");
  panel.dispose();
});

test("what is asked in the background never calls the kernel busy", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const { port, panel } = open();
  context.mock.timers.tick(SYNC_MS + SLOW_MS);
  assert.equal(port.named("sync").length, 1);
  assert.equal(panel.busy.value, false);
  panel.dispose();
});

test("an answer that got lost is asked for, and a command that got lost is given up", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const { port, panel } = open();
  panel.chat.draft.value = "hello";
  panel.chat.submit();
  const chat = port.named("chat")[0];
  context.mock.timers.tick(SYNC_MS);
  const sync = port.named("sync")[0];
  assert.deepEqual(sync?.["ids"], [chat?.id]);
  assert.equal(sync?.["seq"], 1);
  port.ack(sync, { unknown: [chat?.id] });
  await settle();
  assert.match(panel.chat.pending.value[0]?.error ?? "", /did not reach the kernel/);
  panel.dispose();
});

test("a question without an answer is not piled up, but asked again in the end", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const { port, panel } = open();
  for (let round = 0; round < 5; round++) context.mock.timers.tick(SYNC_MS);
  assert.equal(port.named("sync").length, 2);
  panel.dispose();
});

test("a gap in the patches asks for one snapshot", async () => {
  const { port, panel } = open();
  await settle();
  port.emit({ kind: "patch", seq: 3, changes: {} });
  port.emit({ kind: "patch", seq: 4, changes: {} });
  assert.equal(port.named("snapshot").length, 2); // the first was the view's
  panel.dispose();
});

test("a refusal is told in its own words", async () => {
  const { port, panel } = open();
  const running = panel.run("unlock", {});
  port.refuse(port.named("unlock")[0], "UsageError", "Only the owner can unlock the room.");
  await running;
  assert.equal(panel.problem.value, "Only the owner can unlock the room.");
  panel.dispose();
});

test("a comm that is gone fails the command at once", async () => {
  const { port, panel } = open();
  port.broken = true;
  await panel.run("unlock", {});
  assert.match(panel.problem.value, /comm is closed/);
  panel.dispose();
});

test("a panel that is closed gives up what is under way", async () => {
  const { panel } = open();
  const running = panel.run("unlock", {});
  panel.dispose();
  await running;
  assert.notEqual(panel.problem.value, "");
  assert.ok(new CommandFailed({ code: "Lost", message: "x" }) instanceof Error);
  mock.reset();
});
