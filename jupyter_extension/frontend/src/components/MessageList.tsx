import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { PendingMessage } from "../models/chat.ts";
import type { PanelModel } from "../models/panel.ts";
import { clockText, isoTime } from "../models/units.ts";
import type { MessageState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { initial } from "./PeerList.tsx";

const NEAR_PX = 24;
const GROUP_S = 5 * 60;

/** The log. It follows new messages only while its end is in view: who reads back is left where they are. */
export function MessageList({ model }: { readonly model: PanelModel }) {
  const messages = model.room.messages.value;
  const pending = model.chat.pending.value.filter((message) => !arrived(message, messages.at(-1)));
  const log = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const behind = useSignal(false);
  const toEnd = (): void => {
    if (log.current !== null) log.current.scrollTop = log.current.scrollHeight;
  };
  const last = messages.at(-1)?.key;
  useLayoutEffect(() => {
    if (following.current || messages.at(-1)?.mine) toEnd();
    else behind.value = true;
  }, [last, pending.length]);
  const scrolled = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = log.current as HTMLDivElement;
    following.current = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    if (following.current) behind.value = false;
  };
  return (
    <div class="p2pnb-log-frame">
      <div
        ref={log}
        class="p2pnb-log"
        role="log"
        aria-live="polite"
        aria-label={text.chatLog}
        tabIndex={0}
        onScroll={scrolled}
      >
        {messages.length + pending.length === 0 && <p class="p2pnb-empty">{text.chatEmpty}</p>}
        {messages.map((message, index) => (
          <Message key={message.key} message={message} continued={continues(message, messages[index - 1])} />
        ))}
        {pending.map((message) => (
          <Pending key={`pending ${message.key}`} model={model} message={message} />
        ))}
      </div>
      {behind.value && (
        <button type="button" class="p2pnb-button p2pnb-to-end" onClick={toEnd}>
          {text.newMessages}
        </button>
      )}
    </div>
  );
}

function Message({ message, continued }: { readonly message: MessageState; readonly continued: boolean }) {
  return (
    <article class={`p2pnb-message${message.mine ? " p2pnb-mine" : ""}${continued ? " p2pnb-continued" : ""}`}>
      <span class="p2pnb-avatar" aria-hidden="true">
        {initial(message.sender)}
      </span>
      <header class={continued ? "p2pnb-sr" : undefined}>
        <bdi class="p2pnb-name">{message.sender}</bdi>
        <time class="p2pnb-hint" dateTime={isoTime(message.time)}>
          {clockText(message.time)}
        </time>
        {message.private && (
          <span class="p2pnb-badge p2pnb-private">
            {message.to.length > 0 ? text.privateTo(message.to.join(", ")) : text.private}
          </span>
        )}
      </header>
      <p class="p2pnb-text" dir="auto">
        {message.text}
      </p>
    </article>
  );
}

function Pending({ model, message }: { readonly model: PanelModel; readonly message: PendingMessage }) {
  const { chat } = model;
  return (
    <article class="p2pnb-message p2pnb-mine p2pnb-pending">
      <span class="p2pnb-avatar" aria-hidden="true">
        {initial(model.room.room.value?.name ?? "")}
      </span>
      <p class="p2pnb-text" dir="auto">
        {message.text}
      </p>
      {message.error === "" ? (
        <p class="p2pnb-hint">{model.busy.value ? text.busy : text.sending}</p>
      ) : (
        <p class="p2pnb-failed" role="alert">
          {text.notSent(message.error)}
          <button type="button" class="p2pnb-button" onClick={() => chat.retry(message)}>
            {text.retry}
          </button>
          <button type="button" class="p2pnb-button p2pnb-quiet" onClick={() => chat.discard(message)}>
            {text.discard}
          </button>
        </p>
      )}
    </article>
  );
}

/** The room has it already, and the kernel's answer is about to come: once is enough. */
function arrived(pending: PendingMessage, last: MessageState | undefined): boolean {
  return pending.error === "" && last !== undefined && last.mine && last.text === pending.text;
}

/** Messages of one person within a short while stand under one name. */
function continues(message: MessageState, before: MessageState | undefined): boolean {
  return (
    before !== undefined &&
    before.sender === message.sender &&
    before.mine === message.mine &&
    before.private === message.private &&
    before.to.join("\n") === message.to.join("\n") &&
    message.time - before.time < GROUP_S
  );
}
