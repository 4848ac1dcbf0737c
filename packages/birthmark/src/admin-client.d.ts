import type { Administration } from './administration.ts';
export declare function administrationOf(state: string): Administration;
