// The order of version numbers as firmware teams write them: by numbers and not by letters (2.10 is behind 2.9), what follows a hyphen comes
// before the release (2.3-rc1 before 2.3), `v` in front and a build after `+` mean nothing, and missing places are zeros. Total and
// transitive for any text, so that a filter never depends on the order of its rows. After semver.org 2.0.0, 11, which this widens.

/** Negative, zero or positive as `a` is before, level with, or behind `b`. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [parts(a), parts(b)]
  const release = comparePlaces(left.release, right.release, '0')
  if (release !== 0) return release
  if (left.before === null || right.before === null) return Number(left.before === null) - Number(right.before === null)
  return comparePlaces(left.before, right.before, '')
}

function parts(text: string): { release: string[]; before: string[] | null } {
  const [plain] = text.replace(/^v(?=\d)/i, '').split('+', 1)
  const hyphen = plain.indexOf('-')
  const release = hyphen < 0 ? plain : plain.slice(0, hyphen)
  return { release: places(release), before: hyphen < 0 ? null : places(plain.slice(hyphen + 1)) }
}

/** Digits and other letters apart, so that rc10 is behind rc9. */
function places(text: string): string[] {
  return text.split('.').flatMap(place => place.match(/\d+|\D+/g) ?? [''])
}

function comparePlaces(a: string[], b: string[], missing: string): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const order = comparePlace(a[i] ?? missing, b[i] ?? missing)
    if (order !== 0) return order
  }
  return 0
}

/** Nothing before numbers, numbers before words. */
function comparePlace(a: string, b: string): number {
  const kind = (place: string) => (place === '' ? 0 : /^\d/.test(place) ? 1 : 2)
  if (kind(a) !== kind(b)) return kind(a) - kind(b)
  if (kind(a) !== 1) return a < b ? -1 : a > b ? 1 : 0
  // Without leading zeros the longer number is the larger one, of any length.
  const [x, y] = [a.replace(/^0+(?=\d)/, ''), b.replace(/^0+(?=\d)/, '')]
  return x.length - y.length || (x < y ? -1 : x > y ? 1 : 0)
}
