//! Varints (LEB128) and a cursor that never looks past its bytes.

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    (value & 0x7f).to_le_bytes()[0]
}

/// Small numbers of either sign are short: 0, -1, 1, -2, …
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Bytes after their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A cursor over a value; every read is `None` at the end.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// 0 or 1.
    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = u64::from(self.u8()?);
            let bits = byte & 0x7f;
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte == bits {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// What [`put_bytes`] wrote, if it is not longer than `max`.
    pub(super) fn bytes(&mut self, max: usize) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok().filter(|&len| len <= max)?;
        self.take(len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn index_numbers_come_back(value in any::<u64>(), shift in 0..64_u32, signed in any::<i64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value >> shift);
            put_signed(&mut out, signed >> shift);
            let mut input = Reader::new(&out);
            prop_assert_eq!(input.varint(), Some(value >> shift));
            prop_assert_eq!(input.signed(), Some(signed >> shift));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn index_numbers_from_any_bytes_do_not_overflow(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut input = Reader::new(&bytes);
            let _ = input.varint();
            let _ = input.signed();
        }
    }
}
