import { useId } from "preact/hooks";
import type { PanelModel } from "../models/panel.ts";
import type { RoomState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { PeerRow } from "./PeerRow.tsx";

/** Who is in the room, oneself first. */
export function PeerList({ model, me }: { readonly model: PanelModel; readonly me: RoomState }) {
  const id = useId();
  const peers = model.room.peers.value;
  return (
    <section class="p2pnb-section" aria-labelledby={id}>
      <div class="p2pnb-section-head">
        <h3 id={id}>{text.people}</h3>
        <span class="p2pnb-hint">{text.here(peers.filter((peer) => peer.state === "here").length)}</span>
      </div>
      <ul class="p2pnb-list">
        <li class="p2pnb-peer">
          <span class="p2pnb-avatar p2pnb-mine" aria-hidden="true">
            {initial(me.name)}
          </span>
          <span class="p2pnb-peer-name">
            <bdi class="p2pnb-name">{me.name}</bdi> <span class="p2pnb-hint">{text.you}</span>
          </span>
        </li>
        {peers.map((peer) => (
          <PeerRow key={peer.id} model={model} peer={peer} />
        ))}
      </ul>
      {peers.length === 0 && <p class="p2pnb-empty">{text.alone}</p>}
    </section>
  );
}

/** The first character a person would call one. */
export function initial(name: string): string {
  return [...name.trim()][0]?.toLocaleUpperCase() ?? "?";
}
