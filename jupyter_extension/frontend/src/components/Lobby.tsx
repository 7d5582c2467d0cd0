import { useId } from "preact/hooks";
import type { LobbyAction, LobbyModel } from "../models/lobby.ts";
import { text } from "../text.ts";
import { Notice } from "./Notice.tsx";

/** Create a room, or join one. */
export function Lobby({ lobby }: { readonly lobby: LobbyModel }) {
  const id = useId();
  const doing = lobby.doing.value;
  const submit = (action: LobbyAction) => (event: Event) => {
    event.preventDefault();
    void lobby[action]();
  };
  return (
    <section class="p2pnb-lobby" aria-label={text.title}>
      <p class="p2pnb-lead">{text.lobbyLead}</p>
      <div class="p2pnb-field">
        <label for={`${id}-name`}>{text.yourName}</label>
        <input
          id={`${id}-name`}
          class="p2pnb-input"
          maxLength={64}
          autocomplete="off"
          dir="auto"
          placeholder={text.namePlaceholder}
          value={lobby.name.value}
          onInput={(event) => (lobby.name.value = event.currentTarget.value)}
        />
      </div>
      <div class="p2pnb-choices">
        <form class="p2pnb-choice" onSubmit={submit("create")}>
          <p>{text.createLead}</p>
          <button type="submit" class="p2pnb-button p2pnb-primary" disabled={doing !== null}>
            {doing === "create" ? text.creating : text.create}
          </button>
          <Failure lobby={lobby} action="create" />
        </form>
        <span class="p2pnb-or" aria-hidden="true">
          {text.or}
        </span>
        <form class="p2pnb-choice" onSubmit={submit("join")}>
          <p>{text.joinLead}</p>
          <label class="p2pnb-sr" for={`${id}-invite`}>
            {text.inviteField}
          </label>
          <div class="p2pnb-row">
            <input
              id={`${id}-invite`}
              class="p2pnb-input p2pnb-mono"
              autocomplete="off"
              autocapitalize="none"
              spellcheck={false}
              placeholder={text.inviteField}
              value={lobby.invite.value}
              onInput={(event) => (lobby.invite.value = event.currentTarget.value)}
            />
            <button type="submit" class="p2pnb-button" disabled={doing !== null}>
              {doing === "join" ? text.joining : text.join}
            </button>
          </div>
          <Failure lobby={lobby} action="join" />
        </form>
      </div>
    </section>
  );
}

function Failure({ lobby, action }: { readonly lobby: LobbyModel; readonly action: LobbyAction }) {
  const failed = lobby.failed.value;
  return failed?.action === action ? <Notice level="error">{failed.message}</Notice> : null;
}
