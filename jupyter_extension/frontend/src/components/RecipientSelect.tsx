import type { Signal } from "@preact/signals";
import { useId } from "preact/hooks";
import type { RoomModel } from "../models/room.ts";
import { text } from "../text.ts";

/** Everybody, or one person. Peers are chosen by id: names are only unique for the moment. */
export function RecipientSelect({ room, recipient }: { room: RoomModel; recipient: Signal<string | null> }) {
  const id = useId();
  const peers = room.present.value;
  const chosen = peers.some((peer) => peer.id === recipient.value) ? recipient.value : null;
  return (
    <span class="p2pnb-recipient">
      <label for={id}>{text.to}</label>
      <select
        id={id}
        class="p2pnb-input"
        value={chosen ?? ""}
        onChange={(event) => (recipient.value = event.currentTarget.value || null)}
      >
        <option value="">{text.everybody}</option>
        {peers.map((peer) => (
          <option key={peer.id} value={peer.id}>
            {peer.name}
          </option>
        ))}
      </select>
    </span>
  );
}
