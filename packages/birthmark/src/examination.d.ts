import { type Bytes } from '@birthmark/device-sdk/core';
export type Finding = {
    check: string;
    ok: true;
    detail: string;
} | {
    check: string;
    ok: false;
    detail: string;
    next: string;
};
export declare function examineClock(now: number): Finding;
/** A server's state folder on this machine. */
export declare function examineFolder(folder: string): Promise<Finding[]>;
/** Reaches an EST server as a device would, without a certificate of its own. */
export declare function examineServer(url: string, anchors: Bytes[]): AsyncGenerator<Finding>;
export declare function examineMqtt(url: string, anchors: Bytes[]): AsyncGenerator<Finding>;
/** A device's operational identity in files. */
export declare function examineIdentity(chain: Bytes[], key: Uint8Array | null, anchors: Bytes[]): Finding[];
