import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { PanelModel } from "../models/panel.ts";
import { droppedFiles, hasFiles, pickedFiles } from "../ports/dropped.ts";
import { text } from "../text.ts";
import { Icon } from "./Icon.tsx";
import { Notice } from "./Notice.tsx";
import { RecipientSelect } from "./RecipientSelect.tsx";

/** Files from this browser: dropped or picked. */
export function DropZone({ model }: { readonly model: PanelModel }) {
  const over = useSignal(false);
  const { uploads } = model;
  const drag = (event: DragEvent): void => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would take the file for the notebook
    over.value = true;
  };
  const drop = (event: DragEvent): void => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    over.value = false;
    droppedFiles(event).then(
      (files) => uploads.add(files),
      () => (uploads.problem.value = text.unreadable),
    );
  };
  return (
    <div
      class={`p2pnb-drop${over.value ? " p2pnb-over" : ""}`}
      onDragEnter={drag}
      onDragOver={drag}
      onDragLeave={() => (over.value = false)}
      onDrop={drop}
    >
      <Icon name="upload" />
      <span class="p2pnb-drop-text">{over.value ? text.dropHere : text.drop}</span>
      <span class="p2pnb-row p2pnb-drop-buttons">
        <Picker model={model} />
        <Picker model={model} folder />
      </span>
      <RecipientSelect room={model.room} recipient={uploads.recipient} />
      {uploads.problem.value !== "" && (
        <Notice level="error" onDismiss={() => (uploads.problem.value = "")}>
          {uploads.problem.value}
        </Notice>
      )}
    </div>
  );
}

function Picker({ model, folder = false }: { readonly model: PanelModel; readonly folder?: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        {...(folder ? { webkitdirectory: true } : {})}
        onChange={(event) => {
          model.uploads.add(pickedFiles(event.currentTarget));
          event.currentTarget.value = ""; // the same file can be chosen again
        }}
      />
      <button type="button" class="p2pnb-button" onClick={() => input.current?.click()}>
        {folder ? text.chooseFolder : text.chooseFiles}
      </button>
    </>
  );
}
