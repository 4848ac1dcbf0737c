export interface DemoFigures {
    devices: number;
    enrollmentsPerSecond: number;
    cutP50Ms: number;
    cutP99Ms: number;
    cutMaxMs: number;
    noticeBytes: number;
    telemetryReceived: number;
}
/** Every claim the demo makes; it succeeds only if each was checked and true. */
export interface DemoClaims {
    /** All devices hold an operational certificate and an MQTT session. */
    allWorking: boolean;
    /** One notice revoked the group. */
    oneNotice: boolean;
    /** Every session of the revoked group ended. */
    revokedSessionsCut: boolean;
    /** Nothing of the revoked group reached the subscriber afterwards. */
    revokedSilent: boolean;
    /** Its operational certificates no longer open an MQTT session. */
    reconnectRefused: boolean;
    /** They do not renew themselves. */
    reenrollRefused: boolean;
    /** Its birth certificates do not enroll again. */
    birthEnrollRefused: boolean;
    /** The same attempts succeed for a device that is not revoked. */
    controlAdmitted: boolean;
    /** A saved TLS session does not get around it, at EST and at MQTT, with TLS 1.2 and 1.3. */
    resumptionRefused: boolean;
    /** No session of the other group ended. */
    neighboursConnected: boolean;
    /** What the other group sent before, during and after arrived without a gap. */
    neighboursUninterrupted: boolean;
}
export type FleetMessage = {
    kind: 'progress';
    text: string;
} | {
    kind: 'step';
    text: string;
    where?: string;
} | {
    kind: 'result';
    figures: DemoFigures;
    claims: DemoClaims;
}
/** After the result, while the demo stays up. */
 | {
    kind: 'pulse';
    connected: number;
    received: number;
} | {
    kind: 'failed';
    code: string;
    message: string;
    next: string;
};
