// Indices for a process that is not alone: drawn in blocks, so that two processes never draw the same one. A block is spent when it is
// leased; what a process leaves of its last one is never given out. A gap is harmless, an index used twice would revoke the wrong device.

/** 2^31 indices are enough for eight million starts; one write in 256 issuances is not noticed. */
export const idxBlockSize = 256

interface Block {
  next: number
  end: number
}

export interface IdxBlocks {
  reserve(fleet: string): Promise<number>
  /** What is left of the fleet's block lies too low for somebody: the next index comes from a fresh one. */
  drop(fleet: string): void
}

/** `lease` gives the first of `count` indices that nobody else is given; durable when it resolves. */
export function createIdxBlocks(lease: (fleet: string, count: number) => Promise<number>): IdxBlocks {
  const blocks = new Map<string, Block>()
  const leasing = new Map<string, Promise<void>>()

  async function renew(fleet: string): Promise<void> {
    const first = await lease(fleet, idxBlockSize)
    blocks.set(fleet, { next: first, end: first + idxBlockSize })
  }

  return {
    async reserve(fleet) {
      for (;;) {
        const block = blocks.get(fleet)
        if (block && block.next < block.end) return block.next++
        let under = leasing.get(fleet)
        if (under === undefined) {
          under = renew(fleet).finally(() => leasing.delete(fleet))
          leasing.set(fleet, under)
        }
        await under
      }
    },
    drop(fleet) {
      blocks.delete(fleet)
    },
  }
}
