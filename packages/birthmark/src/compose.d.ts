import { type Log } from '@birthmark/est-server';
import { type Clock } from '@birthmark/fleet-revocation';
import { type AdminSocket } from './admin-socket.ts';
import type { Administration } from './administration.ts';
import type { Settings } from './configuration.ts';
import { type DeviceFolder } from './device-folder.ts';
export interface Ports {
    clock: Clock;
    random: (length: number) => Uint8Array;
    log: Log;
    /** The store stopped after a disk error, so nothing more can be promised: end the process. */
    onFatal: (error: Error) => void;
}
export interface Running {
    est: string;
    mqtt: string;
    administration: Administration;
    admin: AdminSocket;
    /** Also written to `device/` in the state folder. */
    device: DeviceFolder;
    close(): Promise<void>;
}
export declare function compose(settings: Settings, ports: Ports): Promise<Running>;
