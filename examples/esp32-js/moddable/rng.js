// Takes the place of Moddable's `rng`, whose numbers follow from a seed and start over with every call: TLS makes its secrets of what comes from here.
import { moddableRng } from 'birthmark'
import entropy from 'entropy'

const rng = moddableRng({ entropy })

export default { get: length => rng.random(length).buffer, init() {} }
