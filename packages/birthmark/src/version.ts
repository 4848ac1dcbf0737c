// What `birthmark --version` says.

export const VERSION = '0.1.0'
