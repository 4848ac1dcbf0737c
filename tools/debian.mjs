// The Debian packages whose programs the tests talk to. Root gets them installed, anybody else gets told what to install.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

export const debianPackages = [
  'certmonger',
  'chromium-headless-shell',
  'curl',
  'dbus',
  'default-jdk-headless',
  'duktape',
  'g++',
  'gcc-multilib',
  'libbcpkix-java',
  'libbctls-java',
  'libengine-pkcs11-openssl',
  'libstrongswan-extra-plugins',
  'libstrongswan-standard-plugins',
  'libtpm2-pkcs11-1',
  'libtpm2-pkcs11-tools',
  'libtss2-tcti-swtpm0',
  'libtss2-tcti-tabrmd0',
  'make',
  'mosquitto',
  'mosquitto-clients',
  'nats-server',
  'nginx-light',
  'opensc',
  'openssl',
  'postgresql',
  'python3',
  'python3-cbor2',
  'rabbitmq-server',
  'scep',
  'softhsm2',
  'strongswan-pki',
  'swtpm',
  'systemd',
  'tpm2-abrmd',
  'tpm2-openssl',
  'tpm2-tools',
]

function missingPackages() {
  return debianPackages.filter(
    name => !spawnSync('dpkg', ['-s', name], { encoding: 'utf8' }).stdout?.includes('install ok installed'),
  )
}

function isDebian() {
  try {
    return /^ID(_LIKE)?=.*debian/m.test(readFileSync('/etc/os-release', 'utf8'))
  } catch {
    return false
  }
}

/** Makes the packages available where it may. Returns the names that are still missing. */
export function ensureDebianPackages() {
  if (!isDebian()) {
    process.stdout.write(`Not a Debian machine: tests that need ${debianPackages.join(', ')} run where those programs are found.\n`)
    return []
  }
  const missing = missingPackages()
  if (missing.length === 0) return []
  if (process.getuid() !== 0) {
    process.stdout.write(`Missing Debian packages: ${missing.join(' ')}\nnext: sudo apt-get install -y ${missing.join(' ')}\n`)
    return missing
  }
  process.stdout.write(`Installing Debian packages: ${missing.join(' ')}\n`)
  // policy-rc.d would be the clean way to keep services from starting; the tests use ports of their own, so a started service does no harm.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  for (const args of [
    ['update', '-qq'],
    ['install', '-y', '-qq', '--no-install-recommends', ...missing],
  ]) {
    const run = spawnSync('apt-get', args, { env, stdio: ['ignore', 'ignore', 'inherit'] })
    if (run.status !== 0) process.stdout.write(`apt-get ${args[0]} failed (${run.status})\n`)
  }
  return missingPackages()
}
