import assert from "node:assert/strict";
import { test } from "node:test";
import { RoomModel } from "../src/models/room.ts";
import { MAX_MESSAGES } from "../src/ports/protocol.ts";
import { ROOM } from "../dev/states.ts";
import { message } from "./fixtures.ts";

test("patches are taken in order and repeated ones are ignored", () => {
  const room = new RoomModel();
  assert.ok(room.receive({ kind: "snapshot", seq: 4, state: ROOM }));
  assert.ok(room.receive({ kind: "patch", seq: 5, changes: { peers: [] } }));
  assert.deepEqual(room.peers.value, []);
  assert.ok(room.receive({ kind: "patch", seq: 5, changes: { messages: [] } }));
  assert.notDeepEqual(room.messages.value, []);
  assert.equal(room.seq.value, 5);
});

test("a gap asks for a snapshot and changes nothing", () => {
  const room = new RoomModel();
  assert.equal(room.receive({ kind: "patch", seq: 1, changes: { peers: [] } }), false);
  room.receive({ kind: "snapshot", seq: 4, state: ROOM });
  assert.equal(room.receive({ kind: "patch", seq: 6, changes: { room: null } }), false);
  assert.equal(room.room.value?.id, ROOM.room?.id);
  room.receive({ kind: "snapshot", seq: 6, state: { ...ROOM, room: null } });
  assert.equal(room.room.value, null);
});

test("a slice can become null, and those not named stay", () => {
  const room = new RoomModel();
  room.receive({ kind: "snapshot", seq: 1, state: ROOM });
  room.receive({ kind: "patch", seq: 2, changes: { invite: null } });
  assert.equal(room.invite.value, null);
  assert.equal(room.peers.value.length, ROOM.peers.length);
});

test("what is appended goes to the end, and the oldest go beyond the limit", () => {
  const room = new RoomModel();
  const many = Array.from({ length: MAX_MESSAGES }, (_, index) => message(`old ${index}`));
  room.receive({ kind: "snapshot", seq: 1, state: { ...ROOM, messages: many } });
  room.receive({ kind: "patch", seq: 2, changes: {}, appends: { messages: [message("new")] } });
  assert.equal(room.messages.value.length, MAX_MESSAGES);
  assert.equal(room.messages.value.at(-1)?.key, "new");
  assert.equal(room.messages.value[0]?.key, "old 1");
});
