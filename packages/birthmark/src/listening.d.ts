import { type Bytes, type Membership } from '@birthmark/device-sdk/core';
import type { PublishBus, Status } from '@birthmark/fleet-revocation';
import { type EmbeddedBroker } from '@birthmark/fleet-revocation/broker';
import type { Ports } from './compose.ts';
import type { Settings } from './configuration.ts';
export interface OpenBroker {
    /** Null with an external one. */
    broker: EmbeddedBroker | null;
    bus: PublishBus;
    url: string;
    close(): Promise<void>;
}
export declare function openBroker(settings: Settings, deviceAnchors: Bytes[], status: (membership: Membership, issuerKeyId: Bytes | null) => Status, { clock, log }: Ports): Promise<OpenBroker>;
/** Runs `open`; what commonly stands in the way of listening is said in words. */
export declare function named<T>(which: 'est' | 'mqtt', host: string, port: number, open: () => Promise<T>): Promise<T>;
/** What devices write into a URL: the host listened on, or, when that is "every interface", the certificate's first name. */
export declare function reachableName(host: string, certificate: string): string;
