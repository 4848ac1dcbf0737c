import { type Bytes } from '@birthmark/device-sdk/core';
import { type Authority } from '@birthmark/factory-line';
type RandomBytes = (length: number) => Bytes;
export interface TwoTier {
    root: Bytes;
    issuing: Authority;
}
/** A root and an issuing CA under `folder` (`root.pem`, `issuing.pem`, keys beside them), made when they are not there. */
export declare function ensureTwoTier(folder: string, organization: string, purpose: string, random: RandomBytes): Promise<TwoTier>;
/** `chain.pem` beside them: issuing CA, then root, as a configuration names it. */
export declare function writeChain(folder: string, { root, issuing }: TwoTier): void;
/** `server.pem` and `server.key.pem` in `folder` for `names` (DNS names and addresses), made anew when a name is missing. */
export declare function ensureServerCertificate(folder: string, names: string[], issuing: Authority, random: RandomBytes): Promise<void>;
/** `NAME.pem` and `NAME.key.pem`: a service that opens connections, such as one that watches the broker. */
export declare function ensureServiceCertificate(folder: string, name: string, issuing: Authority, random: RandomBytes): Promise<void>;
/** Network-order octets of an IP literal. */
export declare function addressOctets(address: string): Bytes;
export {};
