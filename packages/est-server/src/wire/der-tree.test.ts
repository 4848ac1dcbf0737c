import { encodeElement, encodeOid, OCTET_STRING, readWhole, SEQUENCE } from '@birthmark/device-sdk/core'
import { expect, test } from 'vitest'
import { derNode, encodeDer, oidBytes } from './der-tree.ts'

test('[X.690 8.1.3] a tree is written as the core writes it, at every size of a length', () => {
  for (const size of [0, 1, 127, 128, 255, 256, 65_535, 65_536, 70_000]) {
    const content = new Uint8Array(size).fill(7)
    const tree = encodeDer(derNode(SEQUENCE, [oidBytes('2a03'), derNode(0xa0, [derNode(OCTET_STRING, [content]), content])]))
    const inner = encodeElement(0xa0, [encodeElement(OCTET_STRING, [content]), content])
    expect(Buffer.compare(tree, encodeElement(SEQUENCE, [encodeOid('2a03'), inner]))).toBe(0)
    expect(readWhole(tree, SEQUENCE).end).toBe(tree.length)
  }
})
