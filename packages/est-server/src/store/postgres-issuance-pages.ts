// Issuances and notices from end to end in PostgreSQL: the reads of issuance-pages.ts.

import type { IssuancePages } from './issuance-pages.ts'
import type { Rows } from './postgres-rows.ts'
import { pageRowsMax } from './store.ts'

export function postgresIssuancePages(rows: Rows): IssuancePages {
  return {
    issuances: (after, limit) =>
      rows(
        'issuance-page',
        `SELECT i.key, i.state, i.issuer, i.serial, i.fleet, d.id AS "deviceId", i.idx, i.gids, i.spki_sha256 AS "spkiSha256",
           i.not_before AS "notBefore", i.not_after AS "notAfter", i.started_at AS "startedAt", i.der
         FROM issuances i JOIN devices d ON d.key = i.device WHERE i.key > $1 ORDER BY i.key LIMIT $2`,
        [after, Math.min(limit, pageRowsMax)],
      ),
    notices: (fleet, after, limit) =>
      rows(
        'notice-page',
        'SELECT seq, notice, sha256, previous_sha256 AS "previousSha256", at FROM notices WHERE fleet = $1 AND seq > $2 ORDER BY seq LIMIT $3',
        [fleet, after, Math.min(limit, pageRowsMax)],
      ),
  }
}
