import { type Bytes } from '@birthmark/device-sdk/core';
export interface DeviceFolder {
    fleet: string;
    /** `https://host:port` */
    est: string;
    /** `mqtts://host:port` */
    mqtt: string;
    /** DER roots of the server's TLS certificates. */
    serverAnchors: Bytes[];
    /** DER roots of the manufacturers. */
    birthAnchors: Bytes[];
    /** DER root of the issued certificates. */
    operationalAnchors: Bytes[];
    /** DER SubjectPublicKeyInfo of the notice signer. */
    noticeKey: Bytes;
}
export declare const deviceFolderFiles: {
    server: string;
    birth: string;
    operational: string;
    notice: string;
    fleet: string;
};
export declare function writeDeviceFolder(folder: string, content: DeviceFolder): void;
export declare function readDeviceFolder(folder: string): DeviceFolder;
