#!/usr/bin/env python3
"""Computes the golden vectors of docs/manifest.md, docs/wire.md, docs/discovery.md and docs/envelope.md, from what those pages say alone.

It shares no code with Sealift: plain Python 3 and its standard library, with Ed25519 written out after
RFC 8032, section 5.1, and AES-GCM after FIPS 197 and NIST SP 800-38D. So an error in the program and the same error here are unlikely to coincide.

    docs/vectors.py            prints every vector
    docs/vectors.py --check    compares them with the pages and with engine/proto/vectors/segment.hex
"""

import base64
import hashlib
import hmac
import ipaddress
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent


# --- Ed25519 (RFC 8032, section 5.1). Slow and not constant-time: for known test keys only.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def recover_x(y, sign):
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert (x * x - xx) % P == 0
    return P - x if x & 1 != sign else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = recover_x(BASE_Y, 0)
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def compress(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def expand(seed):
    h = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | 1 << 254
    return scalar, h[32:]


def ed25519_public(seed):
    return compress(multiply(expand(seed)[0], BASE))


def ed25519_sign(seed, message):
    scalar, prefix = expand(seed)
    public = compress(multiply(scalar, BASE))
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % ORDER
    point = compress(multiply(r, BASE))
    k = int.from_bytes(hashlib.sha512(point + public + message).digest(), "little") % ORDER
    return point + ((r + k * scalar) % ORDER).to_bytes(32, "little")


def check_ed25519():
    """RFC 8032, section 7.1, test 2."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert ed25519_public(seed) == public
    assert ed25519_sign(seed, b"\x72") == signature


# --- Keys (docs/wire.md, "Keys").


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf32(secret, info):
    """HKDF-SHA256 (RFC 5869) without salt, 32 bytes of output: one block."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


SEED = bytes([7]) * 32
DAY = 20_000
RO_SECRET = hkdf32(SEED, b"sealift v1 read-only secret")
SESSION_SEED = hkdf32(RO_SECRET, b"sealift v1 session key")
SESSION_PUBLIC = ed25519_public(SESSION_SEED)
TAG_KEY = hkdf32(RO_SECRET, b"sealift v1 job tag key")
TAG = hkdf32(TAG_KEY, b"sealift v1 job tag" + struct.pack("<Q", DAY))[:16]
VERIFY_KEY = ed25519_public(SEED)
JOB_ID = sha256(b"sealift v1 job id", VERIFY_KEY)[:16]
KEEPERS_SECRET = hkdf32(VERIFY_KEY, b"sealift v1 keepers' secret")
SPKI = bytes.fromhex("302a300506032b6570032100") + SESSION_PUBLIC


# --- Tickets (docs/wire.md, "Tickets").


def ticket(addresses):
    body = RO_SECRET + VERIFY_KEY + bytes([len(addresses)])
    for host, port in addresses:
        try:
            ip = ipaddress.ip_address(host)
            body += bytes([ip.version]) + ip.packed
        except ValueError:
            body += bytes([1, len(host)]) + host.encode("ascii")
        body += struct.pack("<H", port)
    body += sha256(b"sealift v1 ticket checksum", body)[:4]
    return "sealift1" + base64.b32encode(body).decode("ascii").rstrip("=").lower()


# --- Manifest (docs/manifest.md).

MTIME = struct.pack("<qI", 1_700_000_000, 123_456_789)
METADATA = struct.pack("<H", 0o644) + MTIME


def entry(kind, number, path):
    return struct.pack("<BQH", kind, number, len(path)) + path


def short(data):
    """What is measured in one byte."""
    return bytes([len(data)]) + data


def xattrs(*pairs):
    return bytes([len(pairs)]) + b"".join(short(n) + struct.pack("<H", len(v)) + v for n, v in pairs)


def acl(*entries):
    """Each: whom it is about, the account's name for 2 and 4, the permissions."""
    named = lambda who, name: short(name) if who in (2, 4) else b""
    return bytes([len(entries)]) + b"".join(bytes([w]) + named(w, n) + bytes([p]) for w, n, p in entries)


def attributes(of, *parts):
    whose = b"\x00" if of is None else struct.pack("<BQ", 1, of)
    return b"\x0d" + whose + b"".join(parts)


def merkle(leaves):
    """RFC 6962's shape: the left side holds the largest power of two of leaves below the whole."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    prefix = b"sealift v1 merkle interior node".ljust(64, b"\0")
    return sha256(prefix, merkle(leaves[:split]), merkle(leaves[split:]))


def records():
    """Records of every kind."""
    hashes = [bytes([i]) * 32 for i in range(4)]
    access = acl((1, b"", 7), (2, b"bob", 5), (3, b"", 5), (4, b"wheel", 7), (5, b"", 7), (6, b"", 0))
    default = acl((1, b"", 7), (3, b"", 5), (6, b"", 0))
    return [
        attributes(None, short(b"alice"), short(b"staff"), xattrs(), acl(), acl()),
        b"\x01" + METADATA,
        attributes(0, short(b"alice"), short(b""), xattrs((b"user.a", b"\1\2"), (b"user.b", b"")), access, default),
        entry(2, 0, b"d") + METADATA,
        entry(3, 1, b"d/big") + METADATA + struct.pack("<QB", 100_000, 15),
        struct.pack("<BQI", 4, 1, 1) + struct.pack("<QQ", 4096, 8192),
        struct.pack("<BQII", 5, 1, 0, 3) + b"".join(hashes[:3]),
        struct.pack("<BQII", 5, 1, 3, 1) + hashes[3],
        struct.pack("<BQ", 6, 1) + merkle(hashes),
        entry(7, 2, b"d/small") + METADATA + struct.pack("<I", 5) + bytes([9]) * 32,
        entry(8, 3, b"link") + MTIME + struct.pack("<H", 4) + b"/etc",
        entry(9, 4, b"d/again") + struct.pack("<H", 5) + b"d/big",
        entry(10, 2, b"d/small") + bytes([2]),
        struct.pack("<BH", 11, 6) + b"d/fifo" + bytes([3]),
        struct.pack("<BQ", 12, 4),
    ]


def segment(sequence, snapshot, previous, contents):
    body = b"".join(contents)
    header = struct.pack(
        "<4sHBB16sIIQQq32sII",
        b"SLSG", 2, 1, snapshot, JOB_ID, 1, len(contents), 0, sequence, 1_700_000_000_000, previous, len(body), 0,
    )
    assert len(header) == 96
    signed = header + body
    return signed + ed25519_sign(SEED, b"sealift v1 manifest segment".ljust(32, b"\0") + signed)


# --- Frames (docs/wire.md, "Frames").


def frame(kind, request, body):
    return struct.pack("<HHIQ", kind, 0, len(body), request) + body


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    """A protobuf field of a number; one that is 0 and not optional is left out by the caller."""
    return varint(field << 3) + varint(value)


def data(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


# --- AES-256-GCM (FIPS 197, NIST SP 800-38D). Not constant-time either.


def gf_times(a, b):
    """In GF(2^8), modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def sbox():
    box = []
    for value in range(256):
        inverse = next((i for i in range(256) if gf_times(value, i) == 1), 0)
        turned = [(inverse << n | inverse >> (8 - n)) & 0xFF for n in range(5)]
        box.append(turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4] ^ 0x63)
    return box


SBOX = sbox()


def aes256(key, block):
    words = [list(key[at : at + 4]) for at in range(0, 32, 4)]
    constant = 1
    for at in range(8, 60):
        word = list(words[-1])
        if at % 8 == 0:
            word = [SBOX[byte] for byte in word[1:] + word[:1]]
            word[0] ^= constant
            constant = gf_times(constant, 2)
        elif at % 8 == 4:
            word = [SBOX[byte] for byte in word]
        words.append([a ^ b for a, b in zip(word, words[-8])])
    keys = [sum(words[at : at + 4], []) for at in range(0, 60, 4)]
    state = [a ^ b for a, b in zip(block, keys[0])]
    for turn in range(1, 15):
        state = [SBOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16)]
        if turn < 14:
            mixed = []
            for at in range(0, 16, 4):
                c = state[at : at + 4]
                for i in range(4):
                    mixed.append(gf_times(c[i], 2) ^ gf_times(c[(i + 1) % 4], 3) ^ c[(i + 2) % 4] ^ c[(i + 3) % 4])
            state = mixed
        state = [a ^ b for a, b in zip(state, keys[turn])]
    return bytes(state)


def ghash(subkey, data):
    total = 0
    for at in range(0, len(data), 16):
        total ^= int.from_bytes(data[at : at + 16], "big")
        product, shifted = 0, subkey
        for bit in range(127, -1, -1):
            if total >> bit & 1:
                product ^= shifted
            shifted = shifted >> 1 ^ (0xE1 << 120 if shifted & 1 else 0)
        total = product
    return total


def padded(data):
    return data + bytes(-len(data) % 16)


def aes256_gcm(key, nonce, associated, plain):
    def stream(counter):
        return aes256(key, nonce + struct.pack(">I", counter))

    sealed = b""
    for at in range(0, len(plain), 16):
        sealed += bytes(a ^ b for a, b in zip(plain[at : at + 16], stream(2 + at // 16)))
    lengths = struct.pack(">QQ", 8 * len(associated), 8 * len(sealed))
    subkey = int.from_bytes(aes256(key, bytes(16)), "big")
    mac = ghash(subkey, padded(associated) + padded(sealed) + lengths).to_bytes(16, "big")
    return sealed, bytes(a ^ b for a, b in zip(mac, stream(1)))


def check_aes():
    """FIPS 197, appendix C.3; and test case 16 of the GCM specification (96-bit nonce, associated data)."""
    shown = aes256(bytes(range(32)), bytes.fromhex("00112233445566778899aabbccddeeff"))
    assert shown.hex() == "8ea2b7ca516745bfeafc49904b496089"
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    associated = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    _, mac = aes256_gcm(key, bytes.fromhex("cafebabefacedbaddecaf888"), associated, plain)
    assert mac.hex() == "76fc6ece0f4e1768cddf8853bb2d551b"


# --- Discovery (docs/discovery.md).

DISCOVERY_KEY = hkdf32(RO_SECRET, b"sealift v1 discovery key")
LAN, TRACKER = b"\x01", b"\x02"


def discovery_tag(place):
    return hkdf32(DISCOVERY_KEY, b"sealift v1 discovery tag" + place + struct.pack("<Q", DAY))[:16]


def discovery_entry_key(place):
    return hkdf32(DISCOVERY_KEY, b"sealift v1 discovery entry" + place + struct.pack("<Q", DAY))


def address(text):
    packed = ipaddress.ip_address(text).packed
    return (b"\x04" if len(packed) == 4 else b"\x06") + packed.ljust(16, b"\0")


NOON = DAY * 86400 + 43200
ENTRY = bytes([1]) * 16 + struct.pack("<QHBB", NOON, 3939, 1, 2) + address("10.0.0.1") + address("2001:db8::1") + bytes(6 * 17)


def sealed_entry(place):
    nonce = bytes([9]) * 12
    sealed, mac = aes256_gcm(discovery_entry_key(place), nonce, discovery_tag(place), ENTRY)
    return nonce + sealed + mac


TOKEN_ID, TOKEN_KEY = bytes([2]) * 16, bytes([3]) * 32


def heartbeat_mac(domain, data):
    return hmac.new(TOKEN_KEY, domain + data, hashlib.sha256).digest()[:16]


def heartbeat(beat, counter):
    said = b"SLH1" + bytes([beat]) + TOKEN_ID + struct.pack("<Q", counter)
    return said + heartbeat_mac(b"sealift v1 heartbeat", said)


def heartbeat_answer(counter):
    said = b"SLA1" + struct.pack("<Q", counter)
    return said + heartbeat_mac(b"sealift v1 heartbeat answer", said)


SESSION = bytes([0xEE]) * 16
RANGE = struct.pack("<QII", 0x0102, 3, 4)
NODE = bytes([0xDD]) * 16
MEMBER = data(5, NODE) + number(6, 3939) + data(7, b"eu/dc1")


# --- Envelopes (docs/envelope.md). BLAKE3 after its specification, for inputs of one chunk; RSA-OAEP after RFC 8017, section 7.1.

BLAKE3_IV = struct.unpack(">8I", bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19"))
BLAKE3_ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)


def blake3_compress(chaining, words, length, flags, counter=0):
    def rotated(value, bits):
        return (value >> bits | value << (32 - bits)) & 0xFFFFFFFF

    def mix(a, b, c, d, x, y):
        for x, first, second in ((x, 16, 12), (y, 8, 7)):
            state[a] = (state[a] + state[b] + x) & 0xFFFFFFFF
            state[d] = rotated(state[d] ^ state[a], first)
            state[c] = (state[c] + state[d]) & 0xFFFFFFFF
            state[b] = rotated(state[b] ^ state[c], second)

    state = list(chaining) + list(BLAKE3_IV[:4]) + [counter & 0xFFFFFFFF, counter >> 32, length, flags]
    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, words[2 * i], words[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, words[8 + 2 * i], words[9 + 2 * i])
        words = [words[at] for at in BLAKE3_ORDER]
    return [state[i] ^ state[i + 8] for i in range(8)] + [state[i + 8] ^ chaining[i] for i in range(8)]


def blake3_keyed_xof(key, message, size):
    """Of at most 1024 bytes, 64 of output."""
    assert len(message) <= 1024 and size <= 64
    chaining = struct.unpack("<8I", key)
    blocks = [message[at : at + 64] for at in range(0, max(len(message), 1), 64)]
    for at, block in enumerate(blocks):
        words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
        flags = 16 | (1 if at == 0 else 0) | (2 | 8 if at == len(blocks) - 1 else 0)
        output = blake3_compress(chaining, words, len(block), flags)
        chaining = output[:8]
    return struct.pack("<16I", *output)[:size]


def check_blake3():
    """The keyed hash of BLAKE3's published vectors, for an input of no bytes."""
    key = b"whats the Elvish word for friend"
    empty = blake3_keyed_xof(key, b"", 32).hex()
    assert empty == "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"


HEADER = bytes([40])


def hkdf32_salted(secret, salt, info):
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def stream(key, random, associated, plain, segment_bytes):
    derived = hkdf32_salted(key, random[:32], associated)
    parts, room = [], segment_bytes - 40 - 16
    while len(plain) > room:
        parts.append(plain[:room])
        plain, room = plain[room:], segment_bytes - 16
    parts.append(plain)
    sealed = HEADER + random
    for number, part in enumerate(parts):
        nonce = random[32:] + struct.pack(">IB", number, number == len(parts) - 1)
        sealed += b"".join(aes256_gcm(derived, nonce, b"", part))
    return sealed


DATA_KEY = bytes([7]) * 32
STREAM = stream(DATA_KEY, bytes([9]) * 39, b"place", b"content that is long enough for three segments, by the rule of their lengths", 64)
COMMITMENT = hkdf32(DATA_KEY, b"sealift v1 data key commitment")
DERIVED_INFO = b"sealift v1 derived data key" + struct.pack("<I", 3) + b"log" + struct.pack("<I", 1) + b"1"


def sealed_block(context, label, content):
    key = hkdf32(DATA_KEY, b"sealift v1 sealed block synthetic salt")
    content_hash = blake3_keyed_xof(hkdf32(DATA_KEY, b"sealift v1 sealed block content hash"), content, 32)
    lengths = struct.pack("<II", len(context), len(label))
    random = blake3_keyed_xof(key, content_hash + context + label + lengths, 39)
    place = struct.pack("<I", len(context)) + context + struct.pack("<I", len(label)) + label
    return stream(DATA_KEY, random, b"sealift v1 sealed block" + place, content, 1 << 20)


KEK_P = int(
    "fd34608464f8a304c86ef37987006b4bd8cedcbcfb865b10d5a1aed1c840d3c405cba9b4ce1efb55fb799dd3e762d4d3"
    "4d2f9ef7125a52e7d331a2cb0c9dd46e0f6c2fd99dd834935f226b66121d78059bbac786bb9a92821c2e02ed1b479e69"
    "1011ad420c1188c0e30f408ec40a2f23f5a24c51d172ac36a07b7ca5ccdbef9f",
    16,
)
KEK_Q = int(
    "c63472ab7f42453999b3d62e6b18b392d727f8908ac9c23308d05bffe62d841ea6d055ea1643c6d223c89da9be168fae"
    "1a59cf24784dd34408a6bf9961a56684f911d31f87f6a4d8aba53426390a87ccb398c6cc197341d085d84ba7ab27e1fa"
    "073b3d379fd70c1706e9a188d981ed988344cc14641b3c0604d399233ddf0ea5",
    16,
)
KEK_N, KEK_E = KEK_P * KEK_Q, 65537


def der(tag, content):
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def der_integer(value):
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


RSA_ALGORITHM = der(0x30, bytes.fromhex("06092a864886f70d0101010500"))
KEK_SPKI = der(0x30, RSA_ALGORITHM + der(3, b"\0" + der(0x30, der_integer(KEK_N) + der_integer(KEK_E))))
KEK_FINGERPRINT = sha256(KEK_SPKI)


def mgf1(seed, size):
    blocks = [sha256(seed, struct.pack(">I", at)) for at in range((size + 31) // 32)]
    return b"".join(blocks)[:size]


def oaep(message, label, seed):
    size = (KEK_N.bit_length() + 7) // 8
    block = sha256(label) + bytes(size - len(message) - 66) + b"\x01" + message
    masked = bytes(a ^ b for a, b in zip(block, mgf1(seed, len(block))))
    masked_seed = bytes(a ^ b for a, b in zip(seed, mgf1(masked, 32)))
    return pow(int.from_bytes(masked_seed + masked, "big"), KEK_E, KEK_N).to_bytes(size, "big")


def envelope():
    owner, version = bytes([1]) * 16, struct.pack("<I", 5)
    wrapped = oaep(DATA_KEY, b"sealift v1 wrapped data key" + owner + KEK_FINGERPRINT + version, bytes([11]) * 32)
    head = b"SLEV" + struct.pack("<HH", 1, 1) + owner + COMMITMENT + struct.pack("<H", 1)
    return head + KEK_FINGERPRINT + version + struct.pack("<H", len(wrapped)) + wrapped


def vectors():
    yield "seed", SEED
    yield "read-only-secret", RO_SECRET
    yield "session-key-seed", SESSION_SEED
    yield "session-key-public", SESSION_PUBLIC
    yield "session-key-spki", SPKI
    yield "job-tag-key", TAG_KEY
    yield "job-tag-day-20000", TAG
    yield "verify-key", VERIFY_KEY
    yield "job-id", JOB_ID
    yield "keepers-secret", KEEPERS_SECRET
    yield "ticket", ticket([("10.0.0.1", 3939), ("2001:db8::1", 3939), ("host.example", 3939)])
    yield "ticket-without-addresses", ticket([])
    yield "hello-control", frame(1, 0, number(1, 1) + number(2, 1) + number(3, 5))
    yield "hello-data", frame(1, 0, number(1, 1) + number(2, 1) + data(4, SESSION))
    yield "welcome", frame(2, 0, number(1, 1) + data(2, SESSION) + number(3, 32) + number(4, 3))
    yield "hello-member", frame(1, 0, number(1, 1) + number(2, 1) + number(3, 5) + MEMBER)
    partial = data(2, SESSION) + number(3, 32) + number(4, 3) + MEMBER + number(8, 1)
    yield "welcome-partial", frame(2, 0, number(1, 1) + partial)
    yield "close-flood", frame(3, 0, number(1, 3) + data(2, b"no"))
    yield "close-done", frame(3, 0, b"")
    yield "ping", frame(4, 9, b"")
    yield "pong", frame(5, 9, b"")
    yield "credit", frame(6, 0, number(1, 8))
    yield "fetch", frame(8, 0x0A0B, struct.pack("<H", 1) + RANGE)
    yield "blocks-header-and-prefix", struct.pack("<HHIQ", 9, 0, 16 + 100, 0x0A0B) + RANGE
    yield "range-error-changed", frame(10, 0x0A0B, RANGE + struct.pack("<I", 3))
    yield "reject", frame(11, 0, number(1, 2) + number(2, 3))
    yield "finished", frame(12, 0, number(1, 1) + number(2, 2) + number(3, 3) + number(4, 4))
    yield "have", frame(13, 0, struct.pack("<HHQI", 1, 1, 7, 9) + RANGE)
    peer = data(1, NODE) + data(2, bytes([10, 0, 0, 1])) + number(3, 3939)
    yield "peers", frame(14, 0, data(1, peer))
    yield "peers-labelled", frame(14, 0, data(1, peer + data(4, b"eu/dc1")))
    yield "discovery-key", DISCOVERY_KEY
    yield "discovery-tag-lan-day-20000", discovery_tag(LAN)
    yield "discovery-tag-tracker-day-20000", discovery_tag(TRACKER)
    yield "discovery-entry-key-lan-day-20000", discovery_entry_key(LAN)
    yield "discovery-entry-key-tracker-day-20000", discovery_entry_key(TRACKER)
    yield "discovery-entry", ENTRY
    yield "lan-datagram", b"SLD1" + discovery_tag(LAN) + sealed_entry(LAN)
    yield "tracker-request", discovery_tag(TRACKER) + TOKEN_ID + TOKEN_KEY + b"\x40\x01" + sealed_entry(TRACKER)
    yield "tracker-request-that-only-asks", discovery_tag(TRACKER) + bytes(48) + b"\x40\x00" + bytes(192)
    head = struct.pack("<BBHH", 0, 1, 60, 1200) + address("192.0.2.1") + TOKEN_ID + TOKEN_KEY
    yield "tracker-answer", head + sealed_entry(TRACKER)
    yield "tracker-answer-too-often", struct.pack("<BBHH", 2, 0, 0, 30) + address("0.0.0.0") + bytes(48)
    yield "heartbeat-alive", heartbeat(1, 7)
    yield "heartbeat-leave", heartbeat(2, 2**64 - 1)
    yield "heartbeat-answer", heartbeat_answer(7)
    yield "data-key-commitment", COMMITMENT
    yield "data-key-derived", hkdf32(DATA_KEY, DERIVED_INFO)
    yield "sealed-stream", STREAM
    yield "sealed-block", sealed_block(b"context", b"label", b"content")
    yield "kek-fingerprint", KEK_FINGERPRINT
    yield "envelope", envelope()
    yield "merkle-root-of-four", merkle([bytes([i]) * 32 for i in range(4)])
    first = segment(0, 1, bytes(32), records())
    yield "segment", first
    yield "segment-after-it", segment(1, 0, sha256(first), [struct.pack("<BQ", 12, 4)])


def lines(name, value):
    text = value if isinstance(value, str) else value.hex()
    yield name
    for at in range(0, len(text), 96):
        yield "  " + text[at : at + 96]


def documented():
    """The vectors of the pages: in blocks marked ```vectors, a name and then its value, indented."""
    found = {}
    for page in ("manifest.md", "wire.md", "discovery.md", "envelope.md"):
        name = None
        inside = False
        for line in (HERE / page).read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                inside = line == "```vectors"
            elif inside and line.startswith("  "):
                found[name] += line.strip()
            elif inside and line:
                name = line
                assert name not in found, f"{name} is documented twice"
                found[name] = ""
    return found


def check():
    computed = {name: value if isinstance(value, str) else value.hex() for name, value in vectors()}
    golden = (HERE.parent / "engine/proto/vectors/segment.hex").read_text(encoding="ascii")
    golden = "".join(line for line in golden.splitlines() if not line.startswith("#"))
    wrong = [name for name in computed if documented().get(name) != computed[name]]
    wrong += [f"{name} (documented, not computed)" for name in documented() if name not in computed]
    wrong += ["engine/proto/vectors/segment.hex"] if golden != computed["segment"] else []
    for name in wrong:
        print(f"differs: {name}")
    print(f"{len(computed)} vectors, {len(wrong)} differ")
    return 1 if wrong else 0


def main():
    check_ed25519()
    check_aes()
    check_blake3()
    if sys.argv[1:] == ["--check"]:
        sys.exit(check())
    for name, value in vectors():
        print("\n".join(lines(name, value)))


main()
