import type { Administration } from './administration.ts';
export declare const socketName = "admin.sock";
export interface AdminSocket {
    path: string;
    close(): Promise<void>;
}
/**
 * Throws `already_running` when another server answers on the same folder, and `path_too_long`. Opened first, it keeps a second server
 * off the store; until `administration` gives something, requests are told to wait.
 */
export declare function openAdminSocket(state: string, administration: () => Administration | null, onError: (error: unknown) => void): Promise<AdminSocket>;
export declare function checkSocketPath(path: string): void;
