import { useId } from "preact/hooks";
import type { PanelModel } from "../models/panel.ts";
import { roundTripText } from "../models/units.ts";
import type { PathKind, PeerKind, PeerState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { Icon, type IconName } from "./Icon.tsx";
import { initial } from "./PeerList.tsx";

const KIND_ICONS: Record<PeerKind, IconName> = { kernel: "notebook", script: "script", browser: "browser" };

export function PeerRow({ model, peer }: { readonly model: PanelModel; readonly peer: PeerState }) {
  return (
    <li class={`p2pnb-peer p2pnb-peer-${peer.state}`}>
      <span class="p2pnb-avatar" aria-hidden="true">
        {initial(peer.name)}
      </span>
      <span class="p2pnb-peer-name" title={peer.id}>
        <bdi class="p2pnb-name">{peer.name}</bdi>
        {peer.owner && <span class="p2pnb-hint">{text.owner}</span>}
        <span class="p2pnb-hint p2pnb-kind">
          <Icon name={KIND_ICONS[peer.kind]} />
          {text.kind[peer.kind]}
        </span>
      </span>
      <Connection peer={peer} />
      {peer.words.length > 0 && <Verification model={model} peer={peer} />}
    </li>
  );
}

function Connection({ peer }: { readonly peer: PeerState }) {
  const { path, rtt, state } = peer;
  const detail = path === null ? "" : pathDetail(peer, path);
  return (
    <span class="p2pnb-connection">
      {state === "here" && path !== null ? (
        <span class={`p2pnb-badge p2pnb-path-${path}`} title={detail}>
          <bdi>{path === "webrtc" ? text.pathBadge(text.path[path], peer.engine, peer.lanes[path] ?? 1) : text.path[path]}</bdi>
          <span class="p2pnb-sr">{detail}</span>
        </span>
      ) : (
        <span class="p2pnb-badge">{text.peerState[state]}</span>
      )}
      {state === "here" && rtt !== null && (
        <span class="p2pnb-hint p2pnb-rtt" title={text.rtt}>
          <span class="p2pnb-sr">{text.rtt} </span>
          {roundTripText(rtt)}
        </span>
      )}
    </span>
  );
}

/** What the badge has no room for; `path` carries now. */
function pathDetail(peer: PeerState, path: PathKind): string {
  const others = peer.paths.filter((other) => other !== path);
  return [
    text.pathHint[path],
    text.lanes(peer.lanes[path] ?? 1),
    path === "webrtc" && peer.engine !== "" ? text.engine(peer.engine) : "",
    others.length > 0 ? text.alsoStands(others.map((other) => text.path[other as PathKind] ?? other).join(", ")) : "",
  ]
    .filter(Boolean)
    .join("; ");
}

function Verification({ model, peer }: { readonly model: PanelModel; readonly peer: PeerState }) {
  const id = useId();
  return (
    <details class="p2pnb-verify" open={false}>
      <summary>
        {peer.verified ? <Icon name="shield" /> : null}
        {peer.verified ? text.verified : text.verification}
      </summary>
      <div class="p2pnb-verify-body" role="group" aria-labelledby={id}>
        <p class="p2pnb-words" aria-label={text.verification}>
          {peer.words.map((word, index) => (
            <code key={index}>{word}</code>
          ))}
        </p>
        <p id={id} class="p2pnb-hint">
          {text.verifyHint(peer.name)}
        </p>
        <button
          type="button"
          class="p2pnb-button p2pnb-toggle"
          aria-pressed={peer.verified}
          onClick={() => void model.run("verify", { peer: peer.id, value: !peer.verified })}
        >
          <Icon name="shield" />
          {peer.verified ? text.verified : text.markVerified}
        </button>
      </div>
    </details>
  );
}
