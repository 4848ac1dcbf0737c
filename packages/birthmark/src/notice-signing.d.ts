import { type KeyObject } from 'node:crypto';
import type { Bytes } from '@birthmark/device-sdk/core';
import type { NoticeInput, Store } from '@birthmark/est-server';
import { type Outbox } from '@birthmark/fleet-revocation';
/** The secret of the heartbeat chains, kept beside the store. Losing it costs the heartbeats of old notices, nothing else. */
export declare function heartbeatSecret(file: string): Bytes;
/** SubjectPublicKeyInfo of the notice key, DER. */
export declare function noticeSpki(key: KeyObject): Bytes;
/** Signs notices with a P-256 key. `next` is the number that the next notice will have. */
export declare function noticeSigner(key: KeyObject, secret: Bytes, fleet: string, next: number): (input: NoticeInput) => Promise<Bytes>;
/** The number of the newest notice, 0 before the first. Numbers are dense from 1, so doubling and halving finds the end. */
export declare function newestNotice(store: Store, fleet: string): Promise<number>;
/** The store's outbox as the publisher takes it. */
export declare function outboxOf(store: Store, fleet: string, now: () => number): Outbox;
