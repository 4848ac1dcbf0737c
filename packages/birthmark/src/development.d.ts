import { type Settings } from './configuration.ts';
export interface Made {
    what: string;
    where: string;
    /** False: it was there from an earlier start. */
    fresh: boolean;
}
/** Throws `not_loopback` for any other interface: there is no password here. */
export declare function checkLoopback(host: string): void;
/** Makes what is missing under `folder` and returns the settings to compose. A start that was cut off is completed by the next. */
export declare function prepareDevelopment(options: {
    folder: string;
    host: string;
    estPort: number;
    mqttPort: number;
    lifetimeSeconds: number;
    random: (length: number) => Uint8Array;
}): Promise<{
    settings: Settings;
    made: Made[];
}>;
/** True when it was made. */
export declare function ensureNoticeKey(file: string): boolean;
