import { text } from "../text.ts";

const QUIET_ZONE = 4; // modules, ISO/IEC 18004 §6.3.8

/** A QR code from rows of "0" and "1"; dark on white in every theme, because scanners expect that. */
export function QrCode({ rows }: { readonly rows: readonly string[] }) {
  const side = rows.length + 2 * QUIET_ZONE;
  return (
    <svg class="p2pnb-qr" viewBox={`0 0 ${side} ${side}`} role="img" aria-label={text.qr} shape-rendering="crispEdges">
      <rect class="p2pnb-qr-light" width={side} height={side} />
      <path class="p2pnb-qr-dark" d={qrPath(rows)} />
    </svg>
  );
}

/** One horizontal bar for each run of dark modules. */
export function qrPath(rows: readonly string[]): string {
  return rows
    .flatMap((row, y) =>
      [...row.matchAll(/1+/g)].map(
        ({ index, 0: run }) => `M${index + QUIET_ZONE} ${y + QUIET_ZONE}h${run.length}v1h-${run.length}z`,
      ),
    )
    .join("");
}
