/** States to look at. */
import type { ItemState, MessageState, PanelState, PreviewState, ShareState, TransferPartState } from "../src/ports/protocol.ts";

const NOW = Date.now() / 1000;
const none: PreviewState = { summary: "", columns: [], rows: [], text: "", more_columns: 0 };

export const LOBBY: PanelState = {
  room: null,
  invite: null,
  peers: [],
  messages: [],
  transfers: [],
  offers: [],
  shares: [],
  items: [],
  notices: [],
};

function qr(side = 33): string[] {
  let seed = 7;
  const rows = Array.from({ length: side }, () =>
    Array.from({ length: side }, () => ((seed = (seed * 1103515245 + 12345) % 2 ** 31) >> 16) & 1),
  );
  for (const [top, left] of [[0, 0], [0, side - 7], [side - 7, 0]] as const) {
    for (let y = -1; y < 8; y++) {
      for (let x = -1; x < 8; x++) {
        const row = rows[top + y];
        if (row?.[left + x] === undefined) continue;
        const ring = Math.max(Math.abs(y - 3), Math.abs(x - 3));
        row[left + x] = ring === 3 || ring <= 1 ? 1 : 0;
      }
    }
  }
  return rows.map((row) => row.join(""));
}

const prices: PreviewState = {
  summary: "1,000,000 rows × 8 columns",
  columns: [
    { name: "day", type: "datetime64[ns]" },
    { name: "symbol", type: "category" },
    { name: "open", type: "float64" },
    { name: "close", type: "float64" },
    { name: "volume", type: "int64" },
  ],
  rows: [
    ["2026-01-02", "ACME", "101.25", "102.10", "1204000"],
    ["2026-01-02", "INITECH", "12.01", "11.87", "88210"],
    ["2026-01-05", "ACME", "102.10", "99.75", "1911300"],
    ["2026-01-05", "INITECH", "11.90", "12.44", "120034"],
  ],
  text: "",
  more_columns: 3,
};

const say = (index: number, sender: string, text: string, more: Partial<MessageState> = {}): MessageState => ({
  key: String(index),
  id: String(index),
  sender,
  text,
  time: NOW - 3600 + index * 200,
  mine: sender === "Ada",
  private: false,
  to: [],
  ...more,
});

const item = (key: string, more: Partial<ItemState>): ItemState => ({
  key,
  name: key,
  sender: "Ben",
  time: NOW - 900,
  size_bytes: 1000,
  kind: "object",
  type: "",
  preview: none,
  path: "",
  code: `.inbox["${key}"]`,
  ...more,
});

const part = (name: string, more: Partial<TransferPartState> = {}): TransferPartState => ({
  name,
  state: "moving",
  progress: 0,
  paused_here: false,
  paused_there: false,
  resumed_bytes: 0,
  error: "",
  ...more,
});

const share = (name: string, more: Partial<ShareState> = {}): ShareState => ({
  key: name,
  name,
  owner: "Ben",
  mine: false,
  version: 1,
  newer: false,
  type: "pandas.DataFrame",
  size_bytes: 64_000_000,
  time: NOW - 1800,
  sliceable: true,
  holders: ["Ben"],
  preview: none,
  columns: [],
  code: `.inbox["${name}"]`,
  ...more,
});

export const ROOM: PanelState = {
  room: {
    id: "7kq2mw4x",
    name: "Ada",
    state: "open",
    locked: false,
    hub: "https://hub.example/user/ada/",
    folder: "/home/ada/work/p2pnb-7kq2mw4x",
    expression: "room",
  },
  invite: {
    code: "7kq2mw4x-olive-harbor-tundra-quill",
    link: "https://hub.example/user/ada/p2pnb/join/7kq2mw4x#olive-harbor-tundra-quill",
    local_only: false,
    qr: qr(),
  },
  peers: [
    {
      id: "9f2c", name: "Ben", kind: "kernel", state: "here", path: "webrtc", paths: ["webrtc", "relay"], rtt: 0.023,
      lanes: { webrtc: 4, relay: 1 }, engine: "aiortc",
      words: ["amber", "lantern", "orbit", "willow"], verified: true, owner: false,
    },
    {
      id: "11aa", name: "Ben (2)", kind: "browser", state: "here", path: "relay", paths: ["relay"], rtt: 0.184,
      lanes: { relay: 1 }, engine: "",
      words: ["cedar", "violet", "summit", "puzzle"], verified: false, owner: false,
    },
    {
      id: "77ef", name: "gpu-worker", kind: "script", state: "here", path: "tcp", paths: ["tcp", "relay"], rtt: 0.0004,
      lanes: { tcp: 2, relay: 1 }, engine: "",
      words: ["frost", "meadow", "anchor", "velvet"], verified: false, owner: false,
    },
    {
      id: "3be0", name: "Chiara", kind: "kernel", state: "away", path: null, paths: [], rtt: null, lanes: {}, engine: "",
      words: [], verified: false, owner: false,
    },
  ],
  messages: [
    say(1, "Ben", "Morning! The cleaned prices are on their way."),
    say(2, "Ada", "Great, I'll run the model on them as soon as they are here."),
    say(3, "Ada", "df = room.receive(\"prices\")\ndf.describe()", { time: NOW - 3190 }),
    say(4, "gpu-worker", "epoch 12/40  loss 0.0312"),
    say(5, "Ben", "Do you want the raw folder as well? It's 2.1 GB", { private: true, to: ["Ada"] }),
    say(6, "Chiara", "مرحبا، سأنضم لاحقا"),
    say(7, "Ben (2)", "Photo of the whiteboard is in Files 📷"),
  ],
  transfers: [
    {
      id: "1", name: "results.parquet", kind: "file", direction: "out", size_bytes: 48_200_000, state: "done", progress: 1,
      rate: 0, eta: null, paused_here: false, retry: false, error: "", parts: [part("Ben", { state: "done", progress: 1 })],
    },
    {
      id: "2", name: "checkpoints", kind: "folder", direction: "out", size_bytes: 2_140_000_000, state: "moving",
      progress: 0.42, rate: 84_000_000, eta: 15, paused_here: false, retry: false, error: "",
      parts: [
        part("Ben", { progress: 0.61 }),
        part("Ben (2)", { state: "declined" }),
        part("gpu-worker", { state: "paused", progress: 0.42, paused_there: true }),
      ],
    },
    {
      id: "3", name: "whiteboard.jpg", kind: "file", direction: "in", size_bytes: 3_800_000, state: "moving", progress: 0.8,
      rate: 410_000, eta: 2, paused_here: false, retry: false, error: "", parts: [part("Ben (2)", { progress: 0.8 })],
    },
    {
      id: "4", name: "old.zip", kind: "file", direction: "in", size_bytes: 910_000_000, state: "failed", progress: 0.3,
      rate: 0, eta: null, paused_here: false, retry: false,
      error: "Chiara left the room before the work was done. Ask for it again when they are back.",
      parts: [part("Chiara", { state: "failed", progress: 0.3 })],
    },
    {
      id: "5", name: "weights", kind: "object", direction: "out", size_bytes: 128_000_000, state: "moving", progress: 0.7,
      rate: 212_000_000, eta: 1, paused_here: false, retry: false, error: "", parts: [part("Ben", { progress: 0.7 })],
    },
    {
      id: "6", name: "simulation.h5", kind: "file", direction: "in", size_bytes: 6_300_000_000, state: "paused",
      progress: 0.55, rate: 0, eta: null, paused_here: true, retry: false, error: "",
      parts: [part("Ben", { state: "paused", progress: 0.55, paused_here: true, paused_there: true, resumed_bytes: 1_200_000_000 })],
    },
    {
      id: "7", name: "photos-of-the-lab", kind: "folder", direction: "out", size_bytes: 740_000_000, state: "failed",
      progress: 0.7, rate: 0, eta: null, paused_here: false, retry: true,
      error: "Ben is gone: nothing was heard of them for 60 s.",
      parts: [part("Ben", { state: "failed", progress: 0.7 })],
    },
    {
      id: "8", name: "model", kind: "object", direction: "in", size_bytes: 614_400_000, state: "moving", progress: 0.3,
      rate: 180_000_000, eta: 3, paused_here: false, retry: false, error: "", parts: [part("gpu-worker", { progress: 0.3 })],
    },
  ],
  offers: [
    {
      id: "o1", sender: "Ben", name: "raw-2026", kind: "folder", type: "folder", size_bytes: 2_100_000_000, count: 412,
      preview: { ...none, summary: "412 files in 14 folders", text: "2026-01/a.csv\n2026-01/b.csv\n2026-02/a.csv\n…" },
    },
    {
      id: "o2", sender: "gpu-worker", name: "embeddings", kind: "object", type: "numpy.ndarray", size_bytes: 614_400_000,
      count: 1, preview: { ...none, summary: "float32, 200,000 × 768", text: "[[ 0.0213 -0.1180 ...  0.0442]\n ...]" },
    },
  ],
  shares: [
    share("baseline", {
      owner: "Ada", mine: true, version: 2, holders: ["Ada", "Ben"], size_bytes: 4_200_000, type: "polars.DataFrame",
      columns: ["day", "score"],
      preview: {
        ...none, summary: "52,000 rows × 2 columns", rows: [["2026-01-02", "0.91"], ["2026-01-05", "0.93"]],
        columns: [{ name: "day", type: "Date" }, { name: "score", type: "Float64" }],
      },
    }),
    share("prices", {
      version: 3, newer: true, holders: ["Ben", "gpu-worker", "Ben (2)"], preview: prices,
      columns: ["day", "symbol", "open", "close", "volume", "adjusted_close", "currency", "a column with a rather long na…"],
    }),
    share("model", {
      owner: "gpu-worker", type: "numpy.ndarray", size_bytes: 614_400_000, holders: ["gpu-worker"],
      preview: { ...none, summary: "200,000 × 768 of float32, 614 MB" },
    }),
    share("config", {
      key: "config (gpu-worker)", owner: "gpu-worker", type: "dict", size_bytes: 212, sliceable: false,
      preview: { ...none, summary: "4 entries", text: "{'lr': 0.0003, 'batch': 64}" },
    }),
  ],
  items: [
    item("prices", { type: "pandas.DataFrame", size_bytes: 64_000_000, preview: prices }),
    item("config", {
      sender: "gpu-worker", type: "dict", size_bytes: 212,
      preview: { ...none, summary: "4 entries", text: "{'lr': 0.0003, 'batch': 64, 'epochs': 40, 'seed': 7}" },
    }),
    item("notes.md", {
      kind: "file", type: "file", size_bytes: 4_210, path: "/home/ada/work/p2pnb-7kq2mw4x/notes.md",
    }),
    item("plots", {
      kind: "folder", type: "folder", size_bytes: 18_400_000, path: "/home/ada/work/p2pnb-7kq2mw4x/plots",
    }),
  ],
  notices: [],
};

export const XSS = [
  '<img src=x onerror="window.__pwned=1">',
  "<script>window.__pwned=1</script>",
  '"><svg onload=window.__pwned=1>',
  "javascript:window.__pwned=1",
  "</textarea><iframe srcdoc='<script>parent.__pwned=1</script>'>",
  "{{constructor.constructor('window.__pwned=1')()}}",
  "' onmouseover='window.__pwned=1' style='position:fixed;inset:0' x='",
  "data:text/html,<script>window.__pwned=1</script>",
];

/** The same state with hostile text in every place that is a peer's to fill. */
export function hostile(payload: string): PanelState {
  const dirty = <T>(value: T): T => {
    if (typeof value === "string") return payload as T;
    if (Array.isArray(value)) return value.map(dirty) as T;
    if (value === null || typeof value !== "object") return value;
    const fixed = new Set(["id", "key", "kind", "state", "path", "direction"]);
    const entries = Object.entries(value).map(([key, inner]) => [key, fixed.has(key) ? inner : dirty(inner)]);
    return Object.fromEntries(entries) as T;
  };
  const { room, invite, ...rest } = ROOM;
  return {
    ...dirty(rest),
    invite: invite === null ? null : { ...invite, code: payload, link: payload },
    room: room === null ? null : { ...room, name: payload, folder: payload, expression: payload },
    items: ROOM.items.map((entry) => ({ ...dirty(entry), path: entry.kind === "object" ? "" : payload })),
    notices: [{ id: 1, text: payload }],
  };
}
