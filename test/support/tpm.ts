// A TPM for a test: swtpm behind Debian's resource manager, on a bus of its own. A device's program is started within it.
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

const script = `
  cd "$1" || exit 1; shift
  # Free ports of this machine: swtpm wants two next to each other.
  for port in 24411 24421 24431 24441 24451; do
    swtpm socket --tpm2 --tpmstate dir=state --server type=tcp,port=$port,bindaddr=127.0.0.1 --ctrl type=tcp,port=$((port+1)),bindaddr=127.0.0.1 --flags not-need-init,startup-clear >swtpm.log 2>&1 &
    tpm=$!
    sleep 0.4
    kill -0 $tpm 2>/dev/null && break
  done
  tpm2-abrmd --allow-root --session --tcti=swtpm:host=127.0.0.1,port=$port >abrmd.log 2>&1 &
  manager=$!
  trap 'kill $manager $tpm 2>/dev/null' EXIT
  export TPM2_PKCS11_TCTI=tabrmd:bus_type=session TPM2TOOLS_TCTI=tabrmd:bus_type=session TPM2OPENSSL_TCTI=tabrmd:bus_type=session
  for try in 1 2 3 4 5 6 7 8 9 10; do sleep 0.3; tpm2_getcap properties-fixed >/dev/null 2>&1 && break; done
  eval "$TPM_PREPARED"
  "$@" <&3 & child=$!
  trap 'kill $child 2>/dev/null' TERM
  wait $child; code=$?
  exit $code`

/**
 * Starts `command` with a TPM that keeps its state in `folder`, so that the same TPM is there again for another start. `prepared`: shell commands run
 * before it.
 */
export function withTpm(folder: string, command: string[], { prepared = '', seconds = 50 } = {}) {
  mkdirSync(join(folder, 'state'), { recursive: true })
  return spawn('dbus-run-session', ['--', 'sh', '-c', `exec 3<&0; ${script}`, 'sh', folder, ...command], {
    env: { ...process.env, TPM_PREPARED: prepared },
    stdio: 'pipe',
    timeout: seconds * 1000,
  })
}

/** The PKCS #11 library of a TPM. */
export const tpmPkcs11 = (): string =>
  execFileSync('sh', ['-c', 'ls /usr/lib/*/pkcs11/libtpm2_pkcs11.so'], { encoding: 'utf8' }).trim()

/** For `prepared`: makes a token of the TPM. */
export const tpmToken = (label: string, pin: string): string => `
  mkdir store; export TPM2_PKCS11_STORE="$PWD/store"
  tpm2_ptool init --path store >setup.log 2>&1
  tpm2_ptool addtoken --pid=1 --sopin=sopin-1 --userpin='${pin}' --label='${label}' --path store >>setup.log 2>&1 || cat setup.log >&2`
