/**
 * Shows the panel without a kernel. Query: state=room|lobby|alone|local|locked|closed|busy|xss, tab=room|chat|files|data,
 * theme=light|dark|plain, view=all|room|chat|files|data, payload=<index into the corpus>.
 */
import { render } from "preact";
import { Panel, type View } from "../src/components/Panel.tsx";
import { PanelModel } from "../src/models/panel.ts";
import type { PanelState } from "../src/ports/protocol.ts";
import { FakePort } from "./fake_port.ts";
import { LOBBY, ROOM, XSS, hostile } from "./states.ts";

const query = new URLSearchParams(location.search);
const theme = query.get("theme") ?? "light";
document.body.dataset["theme"] = theme;
if (theme !== "plain") document.body.dataset["jpThemeLight"] = String(theme === "light");

const states: Record<string, () => PanelState> = {
  room: () => ROOM,
  busy: () => ROOM,
  lobby: () => LOBBY,
  alone: () => ({ ...ROOM, peers: [], messages: [], offers: [], shares: [], items: [], transfers: [] }),
  local: () => ({ ...ROOM, peers: [], invite: ROOM.invite && { ...ROOM.invite, local_only: true } }),
  locked: () => ({ ...ROOM, room: ROOM.room && { ...ROOM.room, locked: true, state: "reconnecting" } }),
  closed: () => ({ ...ROOM, room: ROOM.room && { ...ROOM.room, state: "closed" }, invite: null, peers: [] }),
  xss: () => hostile(XSS[Number(query.get("payload") ?? 0)] ?? ""),
};
const name = query.get("state") ?? "room";
const port = new FakePort((states[name] ?? states["room"])!(), { busy: name === "busy" });
const model = new PanelModel(port);
const root = document.getElementById("root")!;
render(<Panel model={model} view={(query.get("view") ?? "all") as View} />, root);
model.refresh();
const tab = query.get("tab");
if (tab !== null) setTimeout(() => root.querySelector<HTMLElement>(`[data-tab="${tab}"]`)?.click(), 20);
Object.assign(window, { port, model, corpus: XSS });
