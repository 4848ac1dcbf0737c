import type { BornDevice } from '../sim/birth.ts';
/**
 * Puts a birth certificate and its key, as PEM files, into `folder`. The serial number is the certificate's. Throws `usage` for files that
 * are not what they should be; nothing is written then.
 */
export declare function bornFromFiles(certificateFile: string, keyFile: string, folder: string): BornDevice;
