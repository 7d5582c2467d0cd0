import { useId } from "preact/hooks";
import type { PanelModel } from "../models/panel.ts";
import { text } from "../text.ts";
import { Icon } from "./Icon.tsx";
import { MessageList } from "./MessageList.tsx";
import { RecipientSelect } from "./RecipientSelect.tsx";

export function ChatTab({ model }: { readonly model: PanelModel }) {
  return (
    <div class="p2pnb-chat">
      <MessageList model={model} />
      {model.room.open.value && <Composer model={model} />}
    </div>
  );
}

function Composer({ model }: { readonly model: PanelModel }) {
  const id = useId();
  const { chat } = model;
  const send = (event: Event): void => {
    event.preventDefault();
    chat.submit();
  };
  const keyDown = (event: KeyboardEvent): void => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  };
  return (
    <form class="p2pnb-composer" onSubmit={send}>
      <label class="p2pnb-sr" for={id}>
        {text.message}
      </label>
      <textarea
        id={id}
        class="p2pnb-input"
        rows={Math.min(6, chat.draft.value.split("\n").length)}
        dir="auto"
        placeholder={text.messagePlaceholder}
        title={text.enterHint}
        value={chat.draft.value}
        onInput={(event) => (chat.draft.value = event.currentTarget.value)}
        onKeyDown={keyDown}
      />
      <div class="p2pnb-composer-foot">
        <RecipientSelect room={model.room} recipient={chat.recipient} />
        <span class="p2pnb-hint p2pnb-enter-hint">{text.enterHint}</span>
        <button type="submit" class="p2pnb-button p2pnb-primary" disabled={chat.draft.value.trim() === ""}>
          <Icon name="send" />
          {text.send}
        </button>
      </div>
    </form>
  );
}
