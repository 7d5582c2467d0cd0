/** States to look at. */
import type { ItemState, MessageState, PanelState, PreviewState } from "../src/ports/protocol.ts";

const NOW = Date.now() / 1000;
const none: PreviewState = { summary: "", columns: [], rows: [], text: "", more_columns: 0 };

export const LOBBY: PanelState = {
  room: null,
  invite: null,
  peers: [],
  messages: [],
  transfers: [],
  offers: [],
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
      words: ["amber", "lantern", "orbit", "willow"], verified: true, owner: false,
    },
    {
      id: "11aa", name: "Ben (2)", kind: "browser", state: "here", path: "relay", paths: ["relay"], rtt: 0.184,
      words: ["cedar", "violet", "summit", "puzzle"], verified: false, owner: false,
    },
    {
      id: "77ef", name: "gpu-worker", kind: "script", state: "here", path: "tcp", paths: ["tcp", "relay"], rtt: 0.0004,
      words: ["frost", "meadow", "anchor", "velvet"], verified: false, owner: false,
    },
    {
      id: "3be0", name: "Chiara", kind: "kernel", state: "away", path: null, paths: [], rtt: null,
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
      rate: 0, eta: null, error: "", parts: [{ name: "Ben", state: "done", progress: 1, error: "" }],
    },
    {
      id: "2", name: "checkpoints", kind: "folder", direction: "out", size_bytes: 2_140_000_000, state: "moving",
      progress: 0.42, rate: 84_000_000, eta: 15, error: "",
      parts: [
        { name: "Ben", state: "moving", progress: 0.61, error: "" },
        { name: "Ben (2)", state: "declined", progress: 0, error: "" },
        { name: "gpu-worker", state: "moving", progress: 0.42, error: "" },
      ],
    },
    {
      id: "3", name: "whiteboard.jpg", kind: "file", direction: "in", size_bytes: 3_800_000, state: "moving", progress: 0.8,
      rate: 410_000, eta: 2, error: "", parts: [{ name: "Ben (2)", state: "moving", progress: 0.8, error: "" }],
    },
    {
      id: "4", name: "old.zip", kind: "file", direction: "in", size_bytes: 910_000_000, state: "failed", progress: 0.3,
      rate: 0, eta: null, error: "Chiara left the room before the work was done. Ask for it again when they are back.",
      parts: [{ name: "Chiara", state: "failed", progress: 0.3, error: "" }],
    },
    {
      id: "5", name: "weights", kind: "object", direction: "out", size_bytes: 128_000_000, state: "moving", progress: 0.7,
      rate: 212_000_000, eta: 1, error: "", parts: [{ name: "Ben", state: "moving", progress: 0.7, error: "" }],
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
