/**
 * Files from this browser to the peer, in acknowledged pieces.
 *
 * One upload at a time, `WINDOW` pieces of it under way: a Jupyter server closes a kernel's connection at
 * a message of 10 MiB, and whatever is under way waits in the memory of the kernel's connection.
 */
import { type Signal, signal } from "@preact/signals";
import type { Port, UploadFile } from "../ports/port.ts";
import { MAX_UPLOAD_FILES, type Recipients } from "../ports/protocol.ts";
import { text } from "../text.ts";
import type { CommandQueue } from "./commands.ts";

export const PIECE_BYTES = 512 * 1024;
export const WINDOW = 4;
/** More loose files than this go as one transfer. */
export const MAX_SEPARATE = 20;

export type UploadPhase = "waiting" | "moving" | "failed";

export class UploadModel {
  readonly id: number;
  readonly files: readonly UploadFile[];
  readonly to: Recipients;
  readonly size_bytes: number;
  readonly sent_bytes = signal(0);
  readonly state: Signal<UploadPhase> = signal("waiting");
  readonly error = signal("");
  cancelled = false;

  constructor(id: number, files: readonly UploadFile[], to: Recipients) {
    this.id = id;
    this.files = files;
    this.to = to;
    this.size_bytes = files.reduce((sum, file) => sum + file.blob.size, 0);
  }

  get name(): string {
    const first = this.files[0]?.path ?? "";
    const [top = "", ...rest] = first.split("/");
    if (rest.length > 0) return `${top}/`;
    return this.files.length > 1 ? text.filesCount(this.files.length) : first;
  }

  get kind(): "file" | "folder" {
    return this.files.length > 1 || (this.files[0]?.path.includes("/") ?? false) ? "folder" : "file";
  }
}

export class UploadsModel {
  readonly uploads = signal<readonly UploadModel[]>([]);
  /** Peer id, or null for everybody. */
  readonly recipient = signal<string | null>(null);
  readonly problem = signal("");
  readonly #commands: CommandQueue;
  readonly #port: Port;
  #next: number;
  #running = false;

  constructor(commands: CommandQueue, port: Port) {
    this.#commands = commands;
    this.#port = port;
    this.#next = Math.floor(Math.random() * 2 ** 28) * 2 ** 16; // another page's uploads must not be hit
  }

  /** Send files; those in folders go together, loose ones each by itself. */
  add(files: readonly UploadFile[]): void {
    this.problem.value = "";
    const to = this.recipient.value === null ? null : [this.recipient.value];
    const added = groups(files).map((group) => new UploadModel(this.#next++, group, to));
    const tooMany = added.find((upload) => upload.files.length > MAX_UPLOAD_FILES);
    if (tooMany !== undefined) {
      this.problem.value = text.tooManyFiles(tooMany.files.length, MAX_UPLOAD_FILES);
      return;
    }
    this.uploads.value = [...this.uploads.value, ...added];
    void this.#run();
  }

  cancel(upload: UploadModel): void {
    upload.cancelled = true;
    if (upload.state.value === "moving") {
      this.#commands.send("upload_abort", { upload: upload.id }).catch(() => undefined);
    }
    this.#remove(upload);
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      for (let upload = this.#waiting(); upload !== undefined; upload = this.#waiting()) await this.#send(upload);
    } finally {
      this.#running = false;
    }
  }

  async #send(upload: UploadModel): Promise<void> {
    upload.state.value = "moving";
    try {
      if (this.#port.sendFiles !== undefined) await this.#port.sendFiles(upload.files, upload.to);
      else await this.#sendPieces(upload);
      this.#remove(upload);
    } catch (error) {
      if (upload.cancelled) return;
      upload.error.value = (error as Error).message;
      upload.state.value = "failed";
      this.#commands.send("upload_abort", { upload: upload.id }).catch(() => undefined);
    }
  }

  async #sendPieces(upload: UploadModel): Promise<void> {
    const { id, to, files } = upload;
    await this.#commands.send("upload_begin", {
      upload: id,
      to,
      files: files.map(({ path, blob }) => [path, blob.size] as const),
    });
    const window = new Set<Promise<void>>();
    let failed: unknown;
    for (const { file, offset, blob } of pieces(files)) {
      while (window.size >= WINDOW) await Promise.race(window);
      if (upload.cancelled) return;
      if (failed !== undefined) break;
      const bytes = await blob.arrayBuffer(); // rejects if the file changed or vanished meanwhile
      const piece: Promise<void> = this.#commands
        .send("upload_piece", { upload: id, file, offset }, [bytes])
        .then(() => {
          upload.sent_bytes.value += bytes.byteLength;
        })
        .catch((error: unknown) => {
          failed ??= error;
        })
        .finally(() => window.delete(piece));
      window.add(piece);
    }
    await Promise.all(window);
    if (failed !== undefined) throw failed;
    if (!upload.cancelled) await this.#commands.send("upload_end", { upload: id });
  }

  #waiting(): UploadModel | undefined {
    return this.uploads.value.find((upload) => upload.state.value === "waiting");
  }

  #remove(upload: UploadModel): void {
    this.uploads.value = this.uploads.value.filter((other) => other !== upload);
  }
}

function* pieces(files: readonly UploadFile[]): Generator<{ file: number; offset: number; blob: Blob }> {
  for (const [file, { blob }] of files.entries()) {
    for (let offset = 0; offset < blob.size; offset += PIECE_BYTES) {
      yield { file, offset, blob: blob.slice(offset, offset + PIECE_BYTES) };
    }
  }
}

/** Cut what was chosen or dropped into transfers. */
export function groups(files: readonly UploadFile[]): UploadFile[][] {
  const folders = new Map<string, UploadFile[]>();
  const loose: UploadFile[] = [];
  for (const file of files) {
    const [top = "", ...rest] = file.path.split("/");
    if (rest.length === 0) loose.push(file);
    else if (folders.get(top)?.push(file) === undefined) folders.set(top, [file]);
  }
  const separate = loose.length > MAX_SEPARATE ? [loose] : loose.map((file) => [file]);
  return [...folders.values(), ...separate];
}
