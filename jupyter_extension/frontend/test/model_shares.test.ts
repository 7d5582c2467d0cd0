import assert from "node:assert/strict";
import { test } from "node:test";
import { PanelModel } from "../src/models/panel.ts";
import { choices, rowsOf } from "../src/models/shares.ts";
import { TabsModel } from "../src/models/tabs.ts";
import type { ShareState } from "../src/ports/protocol.ts";
import { MAX_PART_COLUMNS, MAX_SHARES } from "../src/ports/protocol.ts";
import { ROOM } from "../dev/states.ts";
import { ScriptedPort, settle } from "./fixtures.ts";

const PRICES = ROOM.shares.find(({ name }) => name === "prices") as ShareState;

function open(): { port: ScriptedPort; panel: PanelModel } {
  const port = new ScriptedPort();
  const panel = new PanelModel(port);
  port.emit({ kind: "snapshot", seq: 1, state: ROOM });
  return { port, panel };
}

test("fetching names the share and its owner, and once is enough", async () => {
  const { port, panel } = open();
  const first = panel.shares.fetchAll(PRICES);
  const second = panel.shares.fetchAll(PRICES);
  const [sent, ...more] = port.named("fetch_share");
  assert.deepEqual(more, []);
  assert.deepEqual(
    [sent?.["share"], sent?.["owner"], sent?.["columns"], sent?.["rows"]],
    ["prices", "Ben", null, null],
  );
  assert.equal(panel.shares.of(PRICES).asking.value, true);
  port.ack(sent, { transfer: "8" });
  await Promise.all([first, second]);
  assert.equal(panel.shares.of(PRICES).asking.value, false);
  assert.equal(panel.shares.transfer(PRICES)?.name, "model"); // number 8 of the state
  panel.dispose();
});

test("a part has the ticked columns in the table's order, and the rows as Python counts them", async () => {
  const { port, panel } = open();
  const fetch = panel.shares.of(PRICES);
  for (const name of ["close", "day", "open", "open"]) fetch.toggle(name);
  fetch.first.value = " 10 ";
  fetch.end.value = "20";
  const running = panel.shares.fetchPart(PRICES);
  const [sent] = port.named("fetch_share");
  assert.deepEqual([sent?.["columns"], sent?.["rows"]], [["day", "close"], [10, 20]]);
  port.refuse(sent, "UsageError", "There is no column 'day'.");
  await running;
  assert.equal(fetch.problem.value, "There is no column 'day'.");
  assert.equal(panel.problem.value, ""); // it is said where it was asked
  panel.dispose();
});

test("rows are whole numbers in order, or are not sent", () => {
  assert.equal(rowsOf("", " "), null);
  assert.deepEqual(rowsOf("", "5"), [0, 5]);
  assert.deepEqual(rowsOf("5", ""), [5, null]);
  assert.deepEqual(rowsOf("0", "1"), [0, 1]);
  for (const [first, end] of [["5", "5"], ["6", "5"], ["-1", "5"], ["1.5", ""], ["1e3", ""], ["", "0"], ["x", ""]] as const) {
    assert.equal(rowsOf(first, end), undefined, `${first} to ${end}`);
  }
  assert.equal(rowsOf("", "9007199254740993"), undefined);
  const { port, panel } = open();
  panel.shares.of(PRICES).first.value = "a";
  void panel.shares.fetchPart(PRICES);
  assert.deepEqual(port.named("fetch_share"), []);
  assert.notEqual(panel.shares.of(PRICES).problem.value, "");
  panel.dispose();
});

test("columns whose names were cut, or that have one name, are not chosen by it", () => {
  const { offered, more } = choices({ ...PRICES, columns: ["a", "a", "long na…"] });
  assert.deepEqual(offered, [{ name: "a", cut: false }, { name: "long na…", cut: true }]);
  assert.equal(more, false);
  assert.equal(choices({ ...PRICES, columns: Array.from({ length: MAX_PART_COLUMNS }, (_, n) => `${n}`) }).more, true);
});

test("what was chosen stays while the share does, and is forgotten with it", async () => {
  const { port, panel } = open();
  panel.shares.of(PRICES).toggle("day");
  port.emit({ kind: "patch", seq: 2, changes: { shares: [{ ...PRICES, version: 4 }] } });
  assert.deepEqual([...panel.shares.of(PRICES).columns.value], ["day"]);
  port.emit({ kind: "patch", seq: 3, changes: { shares: [] } });
  await settle();
  assert.deepEqual([...panel.shares.of(PRICES).columns.value], []);
  panel.dispose();
});

test("shares that there is no room for are not passed over in silence", () => {
  const { port, panel } = open();
  assert.equal(panel.shares.more.value, false);
  const many = Array.from({ length: MAX_SHARES }, (_, index) => ({ ...PRICES, key: `${index}` }));
  port.emit({ kind: "patch", seq: 2, changes: { shares: many } });
  assert.equal(panel.shares.more.value, true);
  panel.dispose();
});

test("somebody else's share under the same key is another one", () => {
  const { panel } = open();
  panel.shares.of(PRICES).toggle("day");
  assert.deepEqual([...panel.shares.of({ ...PRICES, owner: "Chiara" }).columns.value], []);
  panel.dispose();
});

test("a new share and a newer version of one are news, one's own are not", () => {
  const { port, panel } = open();
  const tabs = new TabsModel(panel.room);
  const { shares } = ROOM;
  assert.equal(tabs.unread.data.value, 0);
  port.emit({ kind: "patch", seq: 2, changes: { shares: [...shares, { ...PRICES, key: "new", name: "new" }] } });
  assert.equal(tabs.unread.data.value, 1);
  port.emit({ kind: "patch", seq: 3, changes: { shares: shares.map((one) => ({ ...one, version: 9 })) } });
  assert.equal(tabs.unread.data.value, 1 + shares.filter(({ mine }) => !mine).length);
  tabs.dispose();
  panel.dispose();
});
