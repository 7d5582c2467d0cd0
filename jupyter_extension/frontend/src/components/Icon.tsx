/** Line icons, drawn in the colour of the text around them. */

const PATHS = {
  copy: "M9 9h11v11H9z M5 15H4V4h11v1",
  check: "M4 12.5l5 5L20 6.5",
  cross: "M6 6l12 12 M18 6L6 18",
  lock: "M6 11h12v9H6z M8.5 11V7.5a3.5 3.5 0 0 1 7 0V11",
  shield: "M12 3l7 3v5.5c0 4.5-3 7.6-7 9.5-4-1.9-7-5-7-9.5V6z M9 12l2.2 2.2L15.2 10",
  file: "M6 3h8l4 4v14H6z M14 3v4h4",
  folder: "M3 6h6l2 2.5h10V19H3z",
  table: "M4 5h16v14H4z M4 10h16 M4 14.5h16 M10 5v14",
  send: "M4 12l16-7-6 15-3-6z",
  upload: "M12 16V5 M7.5 9.5L12 5l4.5 4.5 M5 19h14",
  up: "M12 19V6 M6.5 11.5L12 6l5.5 5.5",
  down: "M12 5v13 M6.5 12.5L12 18l5.5-5.5",
  pause: "M8 5.5v13 M16 5.5v13",
  resume: "M8 5.5l10 6.5-10 6.5z",
  again: "M18.5 14a7 7 0 1 1-1.6-7 M17.5 3v4.5H13",
  share: "M12 14V4 M8 7.5L12 3.5l4 4 M8 11H5v9h14v-9h-3",
  warning: "M12 4l9 16H3z M12 10v4.5 M12 17.2v.3",
  info: "M12 3.5a8.5 8.5 0 1 0 .01 0 M12 11v5.5 M12 7.6v.3",
  clock: "M12 3.5a8.5 8.5 0 1 0 .01 0 M12 7.5V12l3 2",
  leave: "M10 4H5v16h5 M14 8l4 4-4 4 M18 12H9",
  notebook: "M6 3h13v18H6z M9.5 3v18 M12.5 8h3.5 M12.5 11.5h3.5",
  script: "M4 5h16v14H4z M7.5 9.5l3 2.5-3 2.5 M12.5 15h4",
  browser: "M8 3h8v18H8z M11 18h2",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { readonly name: IconName }) {
  return (
    <svg class="p2pnb-icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
