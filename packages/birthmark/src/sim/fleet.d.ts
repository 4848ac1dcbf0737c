import type { DeviceFolder } from '../device-folder.ts';
import type { BornDevice } from './birth.ts';
import { type SimDevice } from './device.ts';
export interface FleetCounts {
    devices: number;
    enrolled: number;
    connected: number;
    telemetry: number;
    /** Sessions that ended without our doing. */
    cut: number;
    revoked: number;
}
export type FleetEvent = {
    event: 'refused';
    device: string;
    code: string;
    message: string;
} | {
    event: 'cut';
    device: string;
} | {
    event: 'revoked';
    device: string;
    by: 'notice' | 'server';
};
export interface SimFleet {
    devices: SimDevice[];
    /** Enrolls and connects everybody. Devices that are refused are reported and left out. */
    start(): Promise<{
        enrollSeconds: number;
    }>;
    counts(): FleetCounts;
    close(): Promise<void>;
}
export declare function createSimFleet(options: {
    born: BornDevice[];
    target: DeviceFolder;
    intervalMs: number;
    onEvent: (event: FleetEvent) => void;
    onProgress: () => void;
}): SimFleet;
