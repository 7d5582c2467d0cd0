import assert from "node:assert/strict";
import { test } from "node:test";
import { PanelModel } from "../src/models/panel.ts";
import { TabsModel } from "../src/models/tabs.ts";
import { ROOM } from "../dev/states.ts";
import { ScriptedPort, message, settle } from "./fixtures.ts";

function open(): { port: ScriptedPort; panel: PanelModel } {
  const port = new ScriptedPort();
  const panel = new PanelModel(port);
  port.emit({ kind: "snapshot", seq: 1, state: { ...ROOM, messages: [message("before")], items: [], offers: [] } });
  return { port, panel };
}

test("a message is shown as under way until it is acknowledged", async () => {
  const { port, panel } = open();
  panel.chat.draft.value = "  hello  ";
  panel.chat.recipient.value = "9f2c";
  panel.chat.submit();
  assert.equal(panel.chat.draft.value, "");
  assert.deepEqual(panel.chat.pending.value.map(({ text, error }) => [text, error]), [["hello", ""]]);
  assert.deepEqual(port.named("chat")[0]?.["to"], ["9f2c"]);
  port.ack(port.named("chat")[0]);
  await settle();
  assert.deepEqual(panel.chat.pending.value, []);
  panel.dispose();
});

test("an empty draft is not sent", () => {
  const { port, panel } = open();
  panel.chat.draft.value = " \n ";
  panel.chat.submit();
  assert.equal(port.named("chat").length, 0);
  panel.dispose();
});

test("a message that was refused stays with its reason and can be sent again or dropped", async () => {
  const { port, panel } = open();
  panel.chat.draft.value = "hello";
  panel.chat.submit();
  port.refuse(port.named("chat")[0], "PeerGoneError", "that person left");
  await settle();
  const failed = panel.chat.pending.value[0];
  assert.equal(failed?.error, "that person left");
  panel.chat.retry(failed!);
  assert.equal(port.named("chat").length, 2);
  assert.equal(panel.chat.pending.value[0]?.error, "");
  panel.chat.discard(failed!);
  assert.deepEqual(panel.chat.pending.value, []);
  panel.dispose();
});

test("tabs count what came while they were not looked at; own messages and old ones are no news", () => {
  const { port, panel } = open();
  const tabs = new TabsModel(panel.room);
  const say = (seq: number, key: string, mine = false): void =>
    port.emit({ kind: "patch", seq, changes: {}, appends: { messages: [message(key, { mine })] } });
  assert.equal(tabs.unread.chat.value, 0);
  say(2, "one");
  say(3, "mine", true);
  say(4, "two");
  assert.equal(tabs.unread.chat.value, 2);
  tabs.active.value = "chat";
  assert.equal(tabs.unread.chat.value, 0);
  say(5, "three");
  assert.equal(tabs.unread.chat.value, 0);
  port.emit({ kind: "patch", seq: 6, changes: { offers: ROOM.offers } });
  assert.equal(tabs.unread.files.value, 1);
  assert.equal(tabs.unread.data.value, 1);
  tabs.dispose();
  say(7, "four");
  assert.equal(tabs.unread.chat.value, 0);
  panel.dispose();
});
