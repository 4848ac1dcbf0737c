import type { DeviceFolder } from '../device-folder.ts';
export interface Observer {
    /** Number of the newest measurement of a device; 0 before the first. */
    last(serial: string): number;
    /** Measurements of a device that never arrived, or arrived twice or out of order. */
    gaps(serial: string): number;
    received(): number;
    /** Notices heard. */
    notices(): number;
    close(): Promise<void>;
}
/** Connects with the state folder's observer certificate. */
export declare function createObserver(target: DeviceFolder, folder: string): Promise<Observer>;
