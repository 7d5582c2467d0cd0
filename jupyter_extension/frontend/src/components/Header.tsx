import type { PanelModel } from "../models/panel.ts";
import { text } from "../text.ts";
import { ConfirmButton } from "./ConfirmButton.tsx";
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
          {room.state !== "closed" && (
            <ConfirmButton
              key={room.id} // the room that was asked about
              icon="leave"
              label={text.leave}
              ask={text.leaveAsk}
              yes={text.leaveYes}
              no={text.leaveNo}
              onConfirm={() => void model.run("leave", {})}
            />
          )}
        </>
      )}
    </header>
  );
}
