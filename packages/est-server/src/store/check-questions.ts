// What no store may hold, as far as both drivers ask it in the same words. Each question names it and finds one.

export type CheckQuestion = readonly [what: string, sql: string]

export const checkQuestions: readonly CheckQuestion[] = [
  [
    'a group whose count is wrong',
    'SELECT name FROM groups g WHERE devices <> (SELECT count(*) FROM memberships m WHERE m.fleet = g.fleet AND m.gid = g.gid)',
  ],
  [
    'a closed group without its notice',
    'SELECT name FROM groups g WHERE bound IS NOT NULL AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.fleet = g.fleet AND n.seq = g.closed_seq)',
  ],
  [
    'a revocation without its notice',
    'SELECT seq FROM revoked_sets s WHERE NOT EXISTS (SELECT 1 FROM notices n WHERE n.fleet = s.fleet AND n.seq = s.seq)',
  ],
  [
    'listed certificates that nothing holds for revoked',
    'SELECT block FROM revoked_blocks b WHERE NOT EXISTS (SELECT 1 FROM revoked_indices r WHERE r.fleet = b.fleet AND r.block = b.block)',
  ],
  [
    'a spent secret without a certificate',
    `SELECT d.id FROM secrets s JOIN devices d ON d.key = s.device
     WHERE s.issued AND (SELECT count(*) FROM issuances i WHERE i.device = s.device AND i.secret = s.hash AND i.state = 'issued') <> 1`,
  ],
  [
    'certificates and audit records of issuance differ in number',
    `SELECT 1 WHERE (SELECT count(*) FROM issuances WHERE state = 'issued') <> (SELECT count(*) FROM audit WHERE kind = 'certificate_issued')`,
  ],
  [
    'a CRL whose number was not spent',
    'SELECT list FROM crls c WHERE number > coalesce((SELECT number FROM crl_numbers n WHERE n.issuer = c.issuer), 0)',
  ],
]
