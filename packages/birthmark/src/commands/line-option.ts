// The --dir of the commands of a line: where each looks unless told, and how one that names the next of them says so.

import { quoted } from './common.ts'

export const lineFolder = 'factory'

/** For the end of a command that is to be typed next; empty for the usual folder. */
export function atLine(folder: string): string {
  return folder === lineFolder ? '' : ` --dir ${quoted(folder)}`
}
