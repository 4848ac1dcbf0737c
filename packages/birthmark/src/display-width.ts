// How many cells of a terminal a text takes: lines that are rewritten in place must not wrap. East Asian wide characters and emoji take two, marks
// that sit on the character before them none (UAX 11, UAX 44). For a terminal that sees it otherwise a line is a cell off, and no more.

const wide =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u
const none = /[\p{Mn}\p{Me}\p{Cf}]/u

function cellsOf(character: string): number {
  if (none.test(character)) return 0
  return wide.test(character) ? 2 : 1
}

/** As much of the start of a text as fits into so many cells; never half of a character. */
export function cutToWidth(text: string, cells: number): string {
  let left = cells
  let end = 0
  for (const character of text) {
    left -= cellsOf(character)
    if (left < 0) break
    end += character.length
  }
  return text.slice(0, end)
}
