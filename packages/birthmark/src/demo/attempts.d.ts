export interface Stolen {
    serial: string;
    /** PEM: operational chain and key. */
    operational: {
        cert: string;
        key: string;
    };
    /** PEM: birth chain and key. */
    birth: {
        cert: string;
        key: string;
    };
    /** PEM anchors of the server. */
    ca: string[];
}
export type TlsVersion = 'TLSv1.2' | 'TLSv1.3';
/** HTTP status of an enrollment request over the given credentials; 0 when TLS did not come about. */
export declare function enrollStatus(est: string, stolen: Stolen, as: 'operational' | 'birth', session?: Buffer): Promise<{
    status: number;
    body: string;
}>;
/** The TLS session of a good connection, for later; null when the server gives none that could be resumed. */
export declare function savedSession(url: string, stolen: Stolen, maxVersion: TlsVersion): Promise<Buffer | null>;
export interface MqttVerdict {
    /** TLS resumed the saved session. */
    resumed: boolean;
    /** CONNACK with return code 0. */
    accepted: boolean;
}
/** MQTT 3.1.1 CONNECT with the stolen operational identity, over a saved TLS session where there is one. */
export declare function mqttVerdict(mqtt: string, stolen: Stolen, session?: Buffer, maxVersion?: TlsVersion): Promise<MqttVerdict>;
/** Whether EST resumed the saved session, and the status of a re-enrollment over it. */
export declare function estVerdict(est: string, stolen: Stolen, session: Buffer, maxVersion: TlsVersion): Promise<{
    resumed: boolean;
    status: number;
}>;
export declare function pemChain(certificates: Uint8Array[]): string;
