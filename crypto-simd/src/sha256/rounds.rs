//! The compression function of SHA-256 (FIPS 180-4, section 6.2.2), written once for any number of lanes.
//!
//! Owns the order of the operations; a backend supplies only a vector of 32-bit words. The message
//! schedule is a ring of sixteen vectors, each replaced as soon as its round has used it, so that a backend with
//! 32 registers keeps the ring, the eight state words and the temporaries in registers and never spills.

/// The round constants.
pub(super) static K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// The state before the first block.
pub(super) const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The input of one round: `h` plus the schedule word plus the round constant, or plus the sum of both.
macro_rules! input {
    // Also replaces the schedule word by that of sixteen rounds later.
    (expand $words:ty, $w:ident, $k:ident, $i:expr, $h:ident) => {{
        let input = $h.add($w[$i].add_constant(&$k[$i]));
        let old = $w[$i].add($w[($i + 9) % 16]).add($w[($i + 1) % 16].small_sigma0());
        $w[$i] = old.add($w[($i + 14) % 16].small_sigma1());
        input
    }};
    (last $words:ty, $w:ident, $k:ident, $i:expr, $h:ident) => {
        $h.add($w[$i].add_constant(&$k[$i]))
    };
    (constant $words:ty, $w:ident, $k:ident, $i:expr, $h:ident) => {
        $h.add_constant(&$k[$i])
    };
}

/// One round. The names of the state words rotate instead of their values.
///
/// FIPS 180-4 computes `T1 = h + Σ1(e) + Ch(e, f, g) + K + W`, then `e' = d + T1` and `a' = T1 + Σ0(a) + Maj(a, b, c)`:
/// seven additions, and four operations from `e` to `e'`. Where each takes two cycles (Zen 5), that chain and not
/// the number of operations is the limit. So `d` goes into the sum early and `T1` is taken out of it again: eight
/// additions, but three operations from `e` to `e'` and from `a` to `a'`. `opaque` keeps the compiler from
/// reordering the sums.
macro_rules! round {
    ($how:ident $words:ty, $w:ident, $k:ident, $i:expr, $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        let rest = input!($how $words, $w, $k, $i, $h).add($d).add(<$words>::choose($e, $f, $g)).opaque();
        let next = rest.add($e.big_sigma1()).opaque();
        let first = next.sub($d).opaque();
        $d = next;
        $h = first.add(<$words>::majority($a, $b, $c)).opaque().add($a.big_sigma0());
    };
}

/// Eight rounds, after which every name has its place again.
macro_rules! eight_rounds {
    ($how:ident $words:ty, $w:ident, $k:ident, $i:expr, $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        round!($how $words, $w, $k, $i, $a $b $c $d $e $f $g $h);
        round!($how $words, $w, $k, $i + 1, $h $a $b $c $d $e $f $g);
        round!($how $words, $w, $k, $i + 2, $g $h $a $b $c $d $e $f);
        round!($how $words, $w, $k, $i + 3, $f $g $h $a $b $c $d $e);
        round!($how $words, $w, $k, $i + 4, $e $f $g $h $a $b $c $d);
        round!($how $words, $w, $k, $i + 5, $d $e $f $g $h $a $b $c);
        round!($how $words, $w, $k, $i + 6, $c $d $e $f $g $h $a $b);
        round!($how $words, $w, $k, $i + 7, $b $c $d $e $f $g $h $a);
    };
}

/// Defines the compression functions of a backend, for its vector type and with its `target_feature` attribute.
///
/// The type holds one 32-bit word of each lane and has, as functions of the same attribute, `add` (modulo 2³²),
/// `add_constant`, the four sigmas of FIPS 180-4 section 4.1.2, `choose(e, f, g)` and `majority(a, b, c)`.
/// A macro and not a generic function, because only functions with the attribute inline into each other for sure.
macro_rules! define_compress {
    ($(#[$attribute:meta])* for $words:ty) => {
        /// Adds one block of each lane, in big-endian words, to the state.
        #[inline]
        $(#[$attribute])*
        fn compress_block(state: [$words; 8], block: [$words; 16]) -> [$words; 8] {
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
            let mut w = block;
            let [with_expansion @ .., last] = $crate::sha256::rounds::K.as_chunks::<16>().0 else { unreachable!() };
            for k in with_expansion {
                eight_rounds!(expand $words, w, k, 0, a b c d e f g h);
                eight_rounds!(expand $words, w, k, 8, a b c d e f g h);
            }
            eight_rounds!(last $words, w, last, 0, a b c d e f g h);
            eight_rounds!(last $words, w, last, 8, a b c d e f g h);
            feed_forward(state, [a, b, c, d, e, f, g, h])
        }

        /// Adds the padding of a pair, whose schedule is a constant, to the state of each lane.
        #[inline]
        $(#[$attribute])*
        fn compress_pair_padding(state: [$words; 8]) -> [$words; 8] {
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
            for k in $crate::sha256::rounds::PAIR_PADDING.as_chunks::<8>().0 {
                eight_rounds!(constant $words, _w, k, 0, a b c d e f g h);
            }
            feed_forward(state, [a, b, c, d, e, f, g, h])
        }

        #[inline]
        $(#[$attribute])*
        fn feed_forward(before: [$words; 8], after: [$words; 8]) -> [$words; 8] {
            let mut sums = before;
            for (sum, after) in sums.iter_mut().zip(after) {
                *sum = sum.add(after);
            }
            sums
        }
    };
}
pub(super) use {define_compress, eight_rounds, input, round};

/// The schedule of a block plus the round constants, for `compress_pair_padding`.
const fn schedule(block: [u32; 16]) -> [u32; 64] {
    let mut w = [0; 64];
    let mut i = 0;
    while i < 64 {
        w[i] = if i < 16 {
            block[i]
        } else {
            let (x, y) = (w[i - 15], w[i - 2]);
            let sigma0: u32 = x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3);
            let sigma1: u32 = y.rotate_right(17) ^ y.rotate_right(19) ^ (y >> 10);
            sigma1.wrapping_add(w[i - 7]).wrapping_add(sigma0).wrapping_add(w[i - 16])
        };
        i += 1;
    }
    let mut i = 0;
    while i < 64 {
        w[i] = w[i].wrapping_add(K[i]);
        i += 1;
    }
    w
}

/// The padding of a pair: the second and last block after a 64-byte prefix and 64 bytes of digests, 1024 bits in all.
pub(super) static PAIR_PADDING_BLOCK: [u8; 64] = {
    let mut block = [0; 64];
    block[0] = 0x80;
    block[62] = 1024_u16.to_be_bytes()[0];
    block
};

/// The same as the sums of its schedule and the round constants.
pub(super) static PAIR_PADDING: [u32; 64] = {
    let mut block = [0; 16];
    block[0] = 0x8000_0000;
    block[15] = 1024;
    schedule(block)
};
