import { useSignal } from "@preact/signals";
import type { PanelModel } from "../models/panel.ts";
import type { RoomState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { Icon } from "./Icon.tsx";

/** Which room this is, who I am in it, and how it stands. */
export function Header({ model }: { readonly model: PanelModel }) {
  const room = model.room.room.value;
  return (
    <header class="p2pnb-header">
      <span class="p2pnb-title">{text.title}</span>
      {room === null ? (
        <span class="p2pnb-hint">{text.noRoom}</span>
      ) : (
        <>
          <code class="p2pnb-room-id">{room.id}</code>
          <span class={`p2pnb-state p2pnb-state-${room.state}`} role="status">
            {text.roomState[room.state]}
          </span>
          {room.locked && <Icon name="lock" />}
          <bdi class="p2pnb-me p2pnb-hint p2pnb-clip">{text.me(room.name)}</bdi>
          {room.state !== "closed" && <LeaveButton model={model} room={room} />}
        </>
      )}
    </header>
  );
}

function LeaveButton({ model, room }: { readonly model: PanelModel; readonly room: RoomState }) {
  const asking = useSignal<string | null>(null); // the room that was asked about
  if (asking.value !== room.id) {
    return (
      <button type="button" class="p2pnb-button p2pnb-quiet" onClick={() => (asking.value = room.id)}>
        <Icon name="leave" />
        {text.leave}
      </button>
    );
  }
  const answer = (yes: boolean): void => {
    asking.value = null;
    if (yes) void model.run("leave", {});
  };
  return (
    <span
      class="p2pnb-row p2pnb-confirm"
      role="group"
      aria-label={text.leaveAsk}
      onKeyDown={(event) => event.key === "Escape" && answer(false)}
    >
      <span class="p2pnb-hint">{text.leaveAsk}</span>
      <button type="button" class="p2pnb-button p2pnb-danger" onClick={() => answer(true)}>
        {text.leaveYes}
      </button>
      <button type="button" class="p2pnb-button" ref={(button) => button?.focus()} onClick={() => answer(false)}>
        {text.leaveNo}
      </button>
    </span>
  );
}
