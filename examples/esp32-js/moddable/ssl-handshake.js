// Takes the place of Moddable's `ssl/handshake`, which manifest_tls.json gives another name: an EC key proves itself, and the server's proof is asked for.
import { ecHandshake } from 'birthmark'
import moddable from 'birthmark/handshake'

export default ecHandshake(moddable)
