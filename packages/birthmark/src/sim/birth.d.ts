import { type NodeKeyStore, type Store } from '@birthmark/device-sdk/node';
import { type DeviceKey, type Station } from '@birthmark/factory-line';
export interface BornDevice {
    serial: string;
    groups: string[];
    keys: NodeKeyStore;
    store: Store;
}
/** The birth key of a device's own key store, for the station's request. */
export declare function birthKeyOf(keys: NodeKeyStore): Promise<DeviceKey>;
export declare function bearDevice(station: Station, serial: string, groups: string[]): Promise<BornDevice>;
