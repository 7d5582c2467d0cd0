import type { PanelModel } from "../models/panel.ts";
import { text } from "../text.ts";
import { InviteCard } from "./InviteCard.tsx";
import { Lobby } from "./Lobby.tsx";
import { Notice } from "./Notice.tsx";
import { PeerList } from "./PeerList.tsx";

export function RoomTab({ model }: { readonly model: PanelModel }) {
  const room = model.room.room.value;
  if (room === null) return <Lobby lobby={model.lobby} />;
  if (room.state === "closed") {
    return (
      <>
        <Notice level="info">{text.closed}</Notice>
        <Lobby lobby={model.lobby} />
      </>
    );
  }
  return (
    <>
      {room.locked && (
        <Notice level="warning" icon="lock">
          <span>{text.locked}</span>
          <button type="button" class="p2pnb-button" onClick={() => void model.run("unlock", {})}>
            {text.unlock}
          </button>
        </Notice>
      )}
      <InviteCard room={model.room} />
      <PeerList model={model} me={room} />
    </>
  );
}
