/** Everything one widget (or one guest page) shows; its views share it. Owns the port's lifetime. */
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import type { Port } from "../ports/port.ts";
import type { CommandName, Commands, Incoming, NoticeState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { ChatModel } from "./chat.ts";
import { CommandQueue, SYNC_MS } from "./commands.ts";
import { LobbyModel } from "./lobby.ts";
import { RoomModel } from "./room.ts";
import { SharesModel } from "./shares.ts";
import { UploadsModel } from "./uploads.ts";

export class PanelModel {
  readonly room = new RoomModel();
  readonly lobby: LobbyModel;
  readonly chat: ChatModel;
  readonly uploads: UploadsModel;
  readonly shares: SharesModel;
  /** The last thing that went wrong and is shown nowhere else. */
  readonly problem = signal("");
  readonly ready: ReadonlySignal<boolean> = computed(() => this.room.seq.value !== null);
  readonly busy: ReadonlySignal<boolean>;
  /** The peer's notices that were not put away. */
  readonly notices: ReadonlySignal<readonly NoticeState[]> = computed(() =>
    this.room.notices.value.filter((notice) => !this.#dismissed.value.has(notice.id)),
  );
  readonly #dismissed = signal<ReadonlySet<number>>(new Set());
  readonly #commands: CommandQueue;
  readonly #port: Port;
  readonly #unlisten: () => void;
  readonly #timer: ReturnType<typeof setInterval>;
  #asking = false;
  #syncedAt = Number.NEGATIVE_INFINITY;
  #syncing = false;

  constructor(port: Port) {
    this.#port = port;
    this.#commands = new CommandQueue(port);
    this.busy = this.#commands.busy;
    this.lobby = new LobbyModel(this.#commands);
    this.chat = new ChatModel(this.#commands);
    this.uploads = new UploadsModel(this.#commands, port);
    this.shares = new SharesModel(this.#commands, this.room);
    this.#unlisten = port.listen((message) => this.#receive(message));
    this.#timer = setInterval(() => this.#sync(), SYNC_MS);
  }

  /** Ask for the whole state; a view does when it appears. */
  refresh(): void {
    const location = this.#port.location();
    if (location !== null) this.#commands.send("location", location).catch(() => undefined);
    this.#ask();
  }

  /** Run a command for which a failure is shown at the top of the panel. */
  async run<Name extends CommandName>(name: Name, args: Commands[Name]["args"]): Promise<void> {
    this.problem.value = "";
    try {
      await this.#commands.send(name, args);
    } catch (error) {
      this.problem.value = (error as Error).message;
    }
  }

  dismiss(notice: number): void {
    this.#dismissed.value = new Set([...this.#dismissed.value, notice]);
  }

  dispose(): void {
    clearInterval(this.#timer);
    this.#unlisten();
    this.shares.dispose();
    this.#commands.dispose(text.panelClosed);
  }

  #receive(message: Incoming): void {
    this.#commands.receive(message);
    if (!this.room.receive(message)) this.#ask();
  }

  #ask(): void {
    if (this.#asking) return;
    this.#asking = true;
    this.#commands
      .send("snapshot", {})
      .catch((error: Error) => {
        this.problem.value = error.message;
      })
      .finally(() => {
        this.#asking = false;
      });
  }

  /** Ask for answers and states that got lost on the way; one question at a time, unless that got lost too. */
  #sync(): void {
    const now = Date.now();
    if (this.#syncing && now - this.#syncedAt < 4 * SYNC_MS) return;
    this.#syncing = true;
    this.#syncedAt = now;
    this.#commands
      .send("sync", { seq: this.room.seq.value ?? -1, ids: this.#commands.overdue(now) })
      .then(({ unknown }) => this.#commands.lost(unknown, text.lost))
      .catch(() => undefined)
      .finally(() => {
        this.#syncing = false;
      });
  }
}
