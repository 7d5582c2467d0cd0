/** A port that the test plays the peer of, and small makers of state. */
import type { Port } from "../src/ports/port.ts";
import type { CommandName, Incoming, MessageState, Outgoing } from "../src/ports/protocol.ts";

export class ScriptedPort implements Port {
  readonly sent: Outgoing[] = [];
  readonly buffers: (readonly ArrayBuffer[])[] = [];
  broken = false;
  #listener: ((message: Incoming) => void) | undefined;

  send(message: Outgoing, buffers: readonly ArrayBuffer[] = []): void {
    if (this.broken) throw new Error("the comm is closed");
    this.sent.push(message);
    this.buffers.push(buffers);
  }

  listen(listener: (message: Incoming) => void): () => void {
    this.#listener = listener;
    return () => (this.#listener = undefined);
  }

  location(): { origin: string; base_url: string } {
    return { origin: "https://hub.example", base_url: "/user/ada/" };
  }

  emit(message: Incoming): void {
    this.#listener?.(message);
  }

  /** Commands of that name, oldest first. */
  named(cmd: CommandName): Outgoing[] {
    return this.sent.filter((message) => message.cmd === cmd);
  }

  ack(message: Outgoing | undefined, value: unknown = null): void {
    if (message === undefined) throw new Error("nothing was sent");
    this.emit({ kind: "ack", id: message.id, ok: true, value });
  }

  refuse(message: Outgoing | undefined, code: string, text: string): void {
    if (message === undefined) throw new Error("nothing was sent");
    this.emit({ kind: "ack", id: message.id, ok: false, error: { code, message: text } });
  }
}

export function message(key: string, more: Partial<MessageState> = {}): MessageState {
  return { key, id: key, sender: "Ben", text: key, time: 0, mine: false, private: false, to: [], ...more };
}

/** Let everything that is ready run. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}
