// The public face of the agent. Nothing inside the package imports this file.
export * from './agent.ts'
export * from './agent-interface.ts'
export * from './gateway-http.ts'
export * from './identity-slots.ts'
export * from './ports.ts'
export * from './readmission.ts'
export * from './schedule.ts'
export * from './time-trust.ts'
