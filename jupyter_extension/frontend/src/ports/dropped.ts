/** Files and folders as browsers hand them over: from a drop or from a file input. */
import type { UploadFile } from "./port.ts";

/** Whether files are being dragged (and not, say, a notebook cell). */
export function hasFiles(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

/** All files of a drop; folders are walked. Must be called while the event is being handled. */
export async function droppedFiles(event: DragEvent): Promise<UploadFile[]> {
  const items = [...(event.dataTransfer?.items ?? [])].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry());
  if (entries.some((entry) => entry === null)) {
    return [...(event.dataTransfer?.files ?? [])].map((file) => ({ path: file.name, blob: file }));
  }
  const files: UploadFile[] = [];
  for (const entry of entries) if (entry !== null) await walk(entry, "", files);
  return files;
}

export function pickedFiles(input: HTMLInputElement): UploadFile[] {
  return [...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, blob: file }));
}

async function walk(entry: FileSystemEntry, parent: string, files: UploadFile[]): Promise<void> {
  const path = parent + entry.name;
  if (entry.isFile) {
    const blob = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    files.push({ path, blob });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const read = (): Promise<FileSystemEntry[]> => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  // A reader hands out a folder in parts (Chromium: 100 entries), an empty one being the end.
  for (let part = await read(); part.length > 0; part = await read()) {
    for (const child of part) await walk(child, `${path}/`, files);
  }
}
