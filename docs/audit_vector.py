#!/usr/bin/env python3
"""Computes the test vector of docs/audit.md from what that page says alone. It shares no code with Sealift.

    docs/audit_vector.py            prints it
    docs/audit_vector.py --check    compares it with the page
"""

import hashlib
import pathlib
import struct
import sys

PAGE = pathlib.Path(__file__).resolve().parent / "audit.md"
SEED = bytes([7] * 32)


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


# --- The audit.


def record(previous, number, time_ms, columns):
    text = b"sealift-control audit record 1" + previous + struct.pack(">qq", number, time_ms)
    for column in columns:
        text += b"\0" if column is None else b"\1" + struct.pack(">Q", len(column)) + column
    return hashlib.sha256(text).digest()


def lines():
    first = record(bytes(32), 1, 1_800_000_000_000,
                   [b"cli:root", b"", bytes(range(16)), b"test.put", b"thing:1", None, b'{"n":1}'])
    second = record(first, 2, 1_800_000_000_001,
                    [b"user:admin", b"192.0.2.1", bytes([1] * 16), b"job.create", "job:d\u00e9j\u00e0".encode(), b'""', None])
    message = b"sealift-control audit checkpoint 1" + struct.pack(">q", 2) + second
    yield f"record 1     {first.hex()}"
    yield f"record 2     {second.hex()}"
    yield f"public key   {ed25519_public(SEED).hex()}"
    yield f"signature    {ed25519_sign(SEED, message).hex()}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        page = PAGE.read_text()
        missing = [line for line in lines() if line not in page]
        sys.exit(f"docs/audit.md lacks: {missing}" if missing else 0)
    print("\n".join(lines()))
