// Takes the place of Moddable's `ssl/cert`: the server's chain is validated by Birthmark's core.
export { ModdableCertificates as default } from 'birthmark'
