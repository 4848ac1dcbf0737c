"""Another reader of docs/revocation-format.md, written from that page alone: cbor2 for CBOR, openssl for signatures, nothing of ours.

Reads the examples file named on the command line, checks what the page says can be checked, and prints what it read as one JSON object.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile

import cbor2


def examples(path):
    out = {}
    name = None
    for line in open(path, encoding="utf-8"):
        title = re.fullmatch(r"(.*) \(\d+ bytes\)\n", line)
        if title:
            name = title[1]
            out[name] = b""
        elif name and re.fullmatch(r"[0-9a-f]+\n", line):
            out[name] += bytes.fromhex(line.strip())
    return out


def find(all_, start):
    return next(value for name, value in all_.items() if name.startswith(start))


def verified(spki, message, signature):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("key", spki), ("message", message), ("signature", signature)):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(content)
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", f"{folder}/key", "-rawin"]
        command += ["-in", f"{folder}/message", "-sigfile", f"{folder}/signature"]
        return subprocess.run(command, capture_output=True).returncode == 0


def opened(message, external, keys):
    """The payload, what the message is known by, and the ids of the keys whose signatures verify."""
    tag = cbor2.loads(message)
    assert tag.tag == 18
    protected, unprotected, payload, signature = tag.value
    assert cbor2.loads(protected) == {1: -8}
    structure = cbor2.dumps(["Signature1", protected, external, payload])
    signers = []
    spki = keys[unprotected[4]]
    if verified(spki, structure, signature):
        signers.append(unprotected[4].hex())
    if 11 in unprotected:
        counter_protected, header, counter = unprotected[11]
        counter_structure = cbor2.dumps(
            ["CounterSignatureV2", protected, counter_protected, external, payload, [signature]]
        )
        if verified(keys[header[4]], counter_structure, counter):
            signers.append(header[4].hex())
    return cbor2.loads(payload), hashlib.sha256(structure).hexdigest(), signers


def counts(coded, at=0):
    """Numbers of seven bits an octet, one after the other."""
    while at < len(coded):
        value, shift = 0, 0
        while True:
            octet = coded[at]
            at += 1
            value |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                break
        yield value, at


def count(coded, at):
    return next(counts(coded, at))


def rice(coded):
    members, at = count(coded, 0)
    k = coded[at]
    at += 1
    index = []
    first = 0
    for _ in range((members + 255) // 256):
        more, at = count(coded, at)
        size, at = count(coded, at)
        first += more
        index.append((first, size))
    out = []
    for number, (first, size) in enumerate(index):
        bits = "".join(f"{octet:08b}" for octet in coded[at : at + size])
        at += size
        out.append(first)
        place = 0
        for _ in range(min(256, members - number * 256) - 1):
            quotient = 0
            while bits[place] == "1":
                quotient += 1
                place += 1
            place += 1
            remainder = int(bits[place : place + k] or "0", 2)
            place += k
            out.append(out[-1] + 1 + quotient * 2**k + remainder)
        assert set(bits[place:]) <= {"0"} and len(bits) - place < 8
    assert at == len(coded)
    return out


class Model:
    """Contexts of one kind of value: a chance of a 1 and a weight each."""

    def __init__(self, ends, of, weight):
        e = [min(max(ends * 2**26 // of, 1), 2**26 - 1)]
        for _ in range(21):
            e.append(min(2**26 - 1, 2 * e[-1] + -(e[-1] ** 2) // 2**26))
        bit = [(2**26 - x) * 2**22 // (2**27 - x) for x in e]

        def context(chance):
            return [min(max(chance, 64), 2**22 - 64), weight]

        self.stop = [context(x // 16) for x in e]
        self.first = [context(bit[max(b - 1, 0)]) for b in range(22)]
        self.second = [context(bit[max(b // 2 - 2, 0)]) for b in range(44)]
        self.low = [context(x) for x in bit]


class Decoder:
    def __init__(self, code):
        self.bytes = code
        self.at = 4
        self.range = 2**32 - 1
        self.code = int.from_bytes(code[:4].ljust(4, b"\0"), "big")
        assert self.code != 2**32 - 1

    def bit(self, context):
        chance, weight = context
        bound = (self.range >> 16) * (chance >> 6)
        one = self.code < bound
        if one:
            self.range = bound
        else:
            self.code -= bound
            self.range -= bound
        weight += 1
        chance = min(2**22 - 64, chance + (2**22 - chance) // weight) if one else max(64, chance - chance // weight)
        context[:] = [chance, 640 if weight > 640 else weight]
        while self.range < 2**24:
            self.range *= 256
            self.code = self.code * 256 + (self.bytes[self.at] if self.at < len(self.bytes) else 0)
            self.at += 1
        return int(one)

    def value(self, model):
        b = 0
        while b < 20 and not self.bit(model.stop[b]):
            b += 1
        out = 1
        for place in range(b - 1, -1, -1):
            if place == b - 1:
                context = model.first[b]
            elif place == b - 2:
                context = model.second[2 * b + (out & 1)]
            else:
                context = model.low[place]
            out = out * 2 + self.bit(context)
        return out


def ranged(span, coded):
    members, at = count(coded, 0)
    runs, at = count(coded, at)
    decoder = Decoder(coded[at:])
    gaps = Model(runs, max(1, span - members), 24)
    lengths = Model(runs, members, 6)
    out = []
    at, left = -1, members
    for run in range(runs):
        at += decoder.value(gaps)
        length = left if run == runs - 1 else decoder.value(lengths)
        out += range(at, at + length)
        at += length
        left -= length
    # A gap is counted from the index after the run before.
    assert left == 0 and out[-1] < span
    return out


def members(span, code, coded):
    return rice(coded) if code == 1 else ranged(span, coded)


def rules(all_):
    out = {"groups": {}, "certificates": [], "issuers": []}
    for kind, *rest in all_:
        if kind == 1:
            out["groups"][rest[0]] = rest[1]
        elif kind == 2:
            numbers = [value for value, _ in walk(rest[0])]
            gid = 0
            for more, bound in zip(numbers[::2], numbers[1::2]):
                gid += more
                out["groups"][gid] = bound
        elif kind == 3:
            out["certificates"] += range(rest[0], rest[0] + rest[1])
        elif kind == 4:
            out["issuers"].append(rest[0].hex())
        elif kind == 5:
            base, span, code, coded = rest
            out["certificates"] += [base + idx for idx in members(span, code, coded)]
    out["certificates"].sort()
    return out


def walk(coded):
    at = 0
    while at < len(coded):
        value, at = count(coded, at)
        yield value, at


def proven(proof, root, idx):
    seq, block, coded, path = cbor2.loads(proof)
    assert block == idx // 1024
    empty = bytes(32)
    node = empty if coded == b"" else hashlib.sha256(b"\0" + block.to_bytes(4, "big") + coded).digest()
    given, at = int.from_bytes(path[:3], "big"), 3
    for level in range(21):
        sibling = empty
        if given >> level & 1:
            sibling, at = path[at : at + 32], at + 32
        left, right = (sibling, node) if block >> level & 1 else (node, sibling)
        node = empty if left == empty and right == empty else hashlib.sha256(b"\1" + left + right).digest()
    assert at == len(path) and node == root
    revoked = coded != b"" and idx % 1024 in members(1024, coded[0], coded[1:])
    return [seq, "revoked" if revoked else "good"]


def main():
    all_ = examples(sys.argv[1])
    keys = {}
    for name in ("key 1: Subject", "key 2: Subject"):
        spki = find(all_, name)
        keys[hashlib.sha256(spki).digest()[:8]] = spki
    first, known_by, by = opened(find(all_, "notice 1: group 7"), b"", keys)
    assert known_by == find(all_, "notice 1: what it is known by").hex()
    second, second_known_by, by_both = opened(find(all_, "notice 2"), b"", keys)
    snapshot, _, by_snapshot = opened(find(all_, "snapshot"), b"fr/1 snapshot", keys)
    answer, _, by_answer = opened(find(all_, "answer"), b"fr/1 answer", keys)
    heartbeat = cbor2.loads(find(all_, "heartbeat"))
    link = heartbeat[2]
    for _ in range(heartbeat[1]):
        link = hashlib.sha256(link).digest()[:16]
    names = list(all_)
    lists = {}
    for title, span in (("list of 0 1 5 990", 991), ("list of every third", 1800)):
        at = next(i for i, name in enumerate(names) if name.startswith(title))
        lists[title] = [rice(all_[names[at]]), ranged(span, all_[names[at + 1]])]
    root = second[8]
    print(
        json.dumps(
            {
                "signers": [len(by), len(by_both), len(by_snapshot), len(by_answer)],
                "chain": [first[3], second[3].hex() == known_by, snapshot[3].hex() == second_known_by],
                "heartbeat": [heartbeat[0], link == first[6]],
                "first": [first[1], first[2], rules(first[7])],
                "second": [second[2], second[9], rules(second[7]), root == find(all_, "tree: root")],
                "snapshot": [snapshot[2], snapshot[9], rules(snapshot[7])],
                "lists": lists,
                "proofs": [
                    proven(find(all_, "block proof for certificate 15 "), root, 15),
                    proven(find(all_, "block proof for certificate 123456"), root, 123456),
                ],
                "answer": answer[5] == cbor2.loads(find(all_, "question"))[2],
                "acknowledgement": list(cbor2.loads(find(all_, "acknowledgement")).values()),
            }
        )
    )


main()
