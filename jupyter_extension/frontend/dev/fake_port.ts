/** A room that exists in this page only, to look at the panel and to test it in a browser. */
import type { Port } from "../src/ports/port.ts";
import type { Incoming, MessageState, Outgoing, PanelState } from "../src/ports/protocol.ts";

export interface FakeOptions {
  /** Answers to commands never come: a kernel that runs a cell. */
  readonly busy?: boolean;
}

export class FakePort implements Port {
  readonly sent: Outgoing[] = [];
  readonly #listeners = new Set<(message: Incoming) => void>();
  readonly #options: FakeOptions;
  #state: PanelState;
  #seq = 0;

  constructor(state: PanelState, options: FakeOptions = {}) {
    this.#state = state;
    this.#options = options;
  }

  send(message: Outgoing): void {
    this.sent.push(message);
    if (message.cmd === "snapshot") {
      this.#emit({ kind: "snapshot", seq: this.#seq, state: this.#state });
    } else if (this.#options.busy) {
      return;
    }
    setTimeout(() => this.#answer(message), 30);
  }

  listen(listener: (message: Incoming) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  location(): null {
    return null;
  }

  /** Change parts of the state, as the peer would. */
  patch(changes: Partial<PanelState>): void {
    this.#state = { ...this.#state, ...changes };
    this.#emit({ kind: "patch", seq: ++this.#seq, changes });
  }

  /** Somebody says something. */
  say(message: Partial<MessageState>): void {
    const id = String(Math.random());
    const time = Date.now() / 1000;
    const whole = { key: id, id, sender: "Ben", text: "", time, mine: false, private: false, to: [], ...message };
    this.#state = { ...this.#state, messages: [...this.#state.messages, whole] };
    this.#emit({ kind: "patch", seq: ++this.#seq, changes: {}, appends: { messages: [whole] } });
  }

  #answer(message: Outgoing): void {
    if (message.cmd === "join") {
      this.#refuse(message, "WrongCodeError", "The secret words of this invite are not the room's. Ask for the invite again.");
      return;
    }
    if (message.cmd === "chat") {
      this.say({ sender: this.#state.room?.name ?? "", text: String(message["text"]), mine: true });
    }
    if (message.cmd === "verify") {
      this.patch({
        peers: this.#state.peers.map((peer) =>
          peer.id === message["peer"] ? { ...peer, verified: message["value"] === true } : peer,
        ),
      });
    }
    if (message.cmd === "pause" || message.cmd === "resume") {
      const paused = message.cmd === "pause";
      const state = paused ? "paused" : "moving";
      this.patch({
        transfers: this.#state.transfers.map((transfer) =>
          transfer.id !== message["transfer"]
            ? transfer
            : {
                ...transfer,
                state,
                paused_here: paused,
                parts: transfer.parts.map((part) => ({ ...part, state, paused_here: paused, paused_there: false })),
              },
        ),
      });
    }
    if (message.cmd === "unshare") {
      this.patch({ shares: this.#state.shares.filter((share) => share.key !== message["share"]) });
    }
    const value = {
      fetch_share: { transfer: "8" },
      retry: { transfer: "9" },
      sync: { unknown: [] },
      upload_end: { transfer: "9" },
    }[message.cmd as string] ?? null;
    this.#emit({ kind: "ack", id: message.id, ok: true, value });
  }

  #refuse(message: Outgoing, code: string, text: string): void {
    this.#emit({ kind: "ack", id: message.id, ok: false, error: { code, message: text } });
  }

  #emit(message: Incoming): void {
    for (const listener of this.#listeners) listener(message);
  }
}
