import { type Bytes } from '@birthmark/device-sdk/core';
import { type Station } from '@birthmark/factory-line';
export declare const systemClock: {
    now: () => number;
};
export interface Line {
    station: Station;
    root: Bytes;
    organization: string;
}
export declare function createLine(folder: string, organization: string): Promise<void>;
/** Makes the line when there is none. True when it was made. A start that was cut off is completed. */
export declare function ensureLine(folder: string, organization: string): Promise<boolean>;
/** Opens the journal too: one process at a time. */
export declare function openLine(folder: string): Line;
/** A PKCS#10 request from a file, PEM or DER. */
export declare function csrOf(content: Bytes): Bytes;
