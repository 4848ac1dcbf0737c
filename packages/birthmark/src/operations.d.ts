import type { Listener, Registry, Revocation, Store } from '@birthmark/est-server';
import type { Clock, Publisher, RuleSet } from '@birthmark/fleet-revocation';
import type { EmbeddedBroker } from '@birthmark/fleet-revocation/broker';
import type { Administration } from './administration.ts';
import type { Settings } from './configuration.ts';
export interface OperationParts {
    settings: Settings;
    store: Store;
    registry: Registry;
    revocation: Revocation;
    rules: RuleSet;
    listener: Listener;
    publisher: Publisher;
    broker: EmbeddedBroker | null;
    clock: Clock;
    urls: {
        est: string;
        mqtt: string;
    };
}
export declare function operationsOf(parts: OperationParts): Administration;
