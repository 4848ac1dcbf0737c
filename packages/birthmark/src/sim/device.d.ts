import { type Identity, type IdentityOptions, type NodeKeyStore, type Store } from '@birthmark/device-sdk/node';
import type { DeviceFolder } from '../device-folder.ts';
export interface SimDevice {
    serial: string;
    groups: string[];
    identity: Identity;
    enroll(): Promise<void>;
    /** Resolves when the broker has accepted the session; rejects with the broker's reason when it has not. */
    connect(): Promise<void>;
    /** Sends one value; false when there is no session to send it on. */
    measure(): Promise<boolean>;
    /** `performance.now()` of the moment the session ended without our doing; null while none was. */
    cutAt: number | null;
    connected(): boolean;
    /** Measurements that went out; each carries its number. */
    measured: number;
    /** Those that the broker has acknowledged. */
    sent: number;
    close(): Promise<void>;
}
export interface SimDeviceOptions {
    serial: string;
    groups: string[];
    keys: NodeKeyStore;
    store: Store;
    target: DeviceFolder;
    secret?: IdentityOptions['secret'];
    onCut?: (device: SimDevice) => void;
    onRevoked?: (by: 'notice' | 'server') => void;
}
export declare function createSimDevice(options: SimDeviceOptions): SimDevice;
