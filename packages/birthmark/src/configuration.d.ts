import { type KeyObject } from 'node:crypto';
import { type Bytes } from '@birthmark/device-sdk/core';
import type { ServiceRole } from '@birthmark/fleet-revocation/broker';
/** In every certificate that `birthmark dev` makes, so that `serve` and people know it. */
export declare const developmentOrganization = "Birthmark development, not for production";
export interface Settings {
    fleet: string;
    /** Folder of the store and the admin socket. */
    state: string;
    development: boolean;
    est: {
        host: string;
        port: number;
        certificate: string;
        key: string;
    };
    mqtt: MqttSettings;
    /** DER certificates. */
    birthAnchors: Bytes[];
    serverAnchors: Bytes[];
    issuer: {
        certificates: Bytes[];
        key: string;
    };
    noticeKey: KeyObject;
    /** Seconds an operational certificate lives. */
    lifetimeSeconds: number;
    logLevel: 'debug' | 'info' | 'warn' | 'error';
}
export type MqttSettings = {
    kind: 'embedded';
    host: string;
    port: number;
    certificate: string;
    key: string;
    /** Service certificates under the server's anchors that the broker admits, by common name. */
    services: {
        [commonName: string]: ServiceRole;
    };
} | {
    kind: 'external';
    url: string;
    anchors: string;
    certificate: string | null;
    key: string | null;
};
/** Reads and judges a configuration. Throws `configuration` with file, line and what is expected there. */
export declare function readConfiguration(file: string): Settings;
