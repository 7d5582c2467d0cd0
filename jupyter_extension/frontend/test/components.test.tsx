import assert from "node:assert/strict";
import { test } from "node:test";
import { render } from "preact-render-to-string";
import { Panel, type View } from "../src/components/Panel.tsx";
import { qrPath } from "../src/components/QrCode.tsx";
import { PanelModel } from "../src/models/panel.ts";
import { roundTripText, sizeText, spanText } from "../src/models/units.ts";
import type { PanelState, TransferPartState, TransferState } from "../src/ports/protocol.ts";
import { ROOM, XSS, hostile } from "../dev/states.ts";
import { ScriptedPort } from "./fixtures.ts";

function html(state: PanelState, view: View = "all"): string {
  const port = new ScriptedPort();
  const panel = new PanelModel(port);
  port.emit({ kind: "snapshot", seq: 1, state });
  try {
    return render(<Panel model={panel} view={view} />);
  } finally {
    panel.dispose();
  }
}

test("hostile text adds no tag and no attribute anywhere", () => {
  // Scripts and handlers are a browser test's matter; here the skeleton must be the same whatever the text is.
  const skeleton = (markup: string): string => markup.replace(/="[^"]*"/g, '=""').replace(/>[^<]*/g, ">");
  for (const view of ["room", "chat", "files", "data"] as const) {
    const harmless = skeleton(html(hostile("harmless"), view));
    for (const payload of XSS) assert.equal(skeleton(html(hostile(payload), view)), harmless);
  }
});

test("shortcuts of JupyterLab stay away from what is typed", () => {
  assert.match(html(ROOM), /^<section[^>]* data-lm-suppress-shortcuts="true"/);
});

test("tabs, the log and progress are what they are for assistive technology too", () => {
  const all = html(ROOM);
  assert.equal(all.match(/role="tab"/g)?.length, 4);
  assert.equal(all.match(/aria-selected="true"/g)?.length, 1);
  assert.match(all, /role="tabpanel"/);
  assert.match(html(ROOM, "chat"), /role="log" aria-live="polite"/);
  assert.match(html(ROOM, "files"), /<progress[^>]*aria-label="Progress of checkpoints"/);
  for (const view of ["room", "chat", "files", "data"] as const) {
    for (const [button] of html(ROOM, view).matchAll(/<button.*?<\/button>/gs)) {
      const named = /aria-label="[^"]+"/.test(button) || button.replace(/<[^>]*>/g, "").trim() !== "";
      assert.ok(named, button);
    }
  }
});

test("a transfer says who paused it, and offers what can be done about it", () => {
  const paused = ROOM.transfers.find(({ state }) => state === "paused") as TransferState;
  const [part] = paused.parts as [TransferPartState];
  const shown = (here: boolean, there: boolean): string => {
    const parts = [{ ...part, name: "Ben", paused_here: here, paused_there: there, resumed_bytes: 0 }];
    return html({ ...ROOM, transfers: [{ ...paused, paused_here: here, parts }] }, "files");
  };
  assert.match(shown(true, false), />3\.5 GB \/ 6\.3 GB · paused by you</);
  assert.match(shown(false, true), / · paused by Ben</);
  assert.match(shown(true, true), / · paused by you and Ben</);
  for (const here of [true, false]) {
    assert.equal(shown(here, true).includes(`aria-label="Resume ${paused.name}"`), here);
    assert.equal(shown(here, true).includes(`aria-label="Pause ${paused.name}"`), !here);
  }
  assert.match(shown(true, false), /<progress[^>]*aria-label="Progress of simulation.h5, paused"/);
});

test("what was there before is told, and only what can be tried again offers it", () => {
  const files = html(ROOM, "files");
  assert.ok(files.includes("paused by you and Ben · 1.2 GB was there already"));
  assert.ok(files.includes('aria-label="Try again: photos-of-the-lab"'));
  assert.ok(!files.includes('aria-label="Try again: old.zip"'));
  assert.equal(files.match(/aria-label="Cancel /g)?.length, 3);
});

test("a path tells its transport, and WebRTC its engine and lanes", () => {
  const room = html(ROOM, "room").replace(/<[^>]*>/g, "|");
  for (const badge of ["|direct WebRTC (aiortc × 4)|", "|direct TCP|", "|relayed|"]) assert.ok(room.includes(badge), badge);
  assert.match(html(ROOM, "room"), /title="Straight from kernel to kernel; 2 lanes; also there: relayed"/);
  assert.match(html(ROOM, "room"), /title="Straight from peer to peer; 4 lanes; engine aiortc; also there: relayed"/);
});

test("shares have what it takes to fetch them, and own ones to take them back", () => {
  const data = html(ROOM, "data");
  assert.ok(data.includes("version 3, newer than yours"));
  assert.ok(data.includes("3 people have all of it"));
  assert.deepEqual([...data.matchAll(/aria-label="Unshare (.*?)"/g)].map((match) => match[1]), ["baseline"]);
  assert.deepEqual([...data.matchAll(/aria-label="Fetch (?!a part)(.*?)"/g)].map((m) => m[1]), ["prices", "model", "config"]);
  assert.deepEqual([...data.matchAll(/aria-label="Fetch a part of (.*?)"/g)].map((m) => m[1]), ["prices", "model"]);
  assert.ok(!html({ ...ROOM, shares: [] }, "data").includes("Fetch"));
});

test("the invite is on screen while one is alone, and a click away later", () => {
  const words = "olive-harbor-tundra-quill";
  assert.ok(html({ ...ROOM, peers: [] }, "room").includes(words));
  assert.ok(!html(ROOM, "room").includes(words));
});

test("a part that is shown alone has no tabs, and without a room it is the lobby", () => {
  assert.ok(!html(ROOM, "chat").includes("tablist"));
  assert.ok(html({ ...ROOM, room: null, invite: null, peers: [] }, "chat").includes("Create room"));
});

test("a QR code keeps its quiet zone and every dark module", () => {
  assert.equal(qrPath(["101", "011"]), "M4 4h1v1h-1zM6 4h1v1h-1zM5 5h2v1h-2z");
});

test("units read well", () => {
  assert.deepEqual([0, 999, 1000, 64_000_000, 999_950].map(sizeText), ["0 B", "999 B", "1.0 kB", "64.0 MB", "1.0 MB"]);
  assert.deepEqual([0.2, 59, 150, 3900].map(spanText), ["1 s", "59 s", "3 min", "1 h 5 min"]);
  assert.deepEqual([0.0004, 0.023, 1.24].map(roundTripText), ["0.4 ms", "23 ms", "1.2 s"]);
});
