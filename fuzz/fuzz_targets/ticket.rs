//! Tickets: any text, and any content behind a right checksum. What is read must be written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealift_proto::digest::{BlockHash, BlockInput, HashAlgorithm, hash_blocks};
use sealift_proto::ticket::{Address, Ticket};

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        read(text);
        if let Ok(address) = text.parse::<Address>() {
            let shown = address.to_string();
            assert_eq!(shown.parse::<Address>().map(|again| again.to_string()), Ok(shown));
        }
    }
    read(&checked(input));
});

fn read(text: &str) {
    let Ok(ticket) = Ticket::decode(text) else { return };
    let encoded = ticket.encode();
    let again = Ticket::decode(&encoded).expect("what was written can be read");
    assert_eq!(again.addresses, ticket.addresses);
    assert_eq!(again.ro_secret.as_bytes(), ticket.ro_secret.as_bytes());
    assert!(again.verify_key == ticket.verify_key);
}

/// The ticket with this content, as docs/wire.md has it.
fn checked(content: &[u8]) -> String {
    let data = [b"sealift v1 ticket checksum", content].concat();
    let mut sum = [BlockHash([0; 32])];
    // The SHA-256 of a block is the plain one.
    hash_blocks(HashAlgorithm::Sha256, &[BlockInput { data: &data, offset: 0, only: true }], &mut sum);
    let mut text = "sealift1".to_owned();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in content.iter().chain(&sum[0].0[..4]) {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits >> count & 31) as usize]));
        }
    }
    if count > 0 {
        text.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits << (5 - count) & 31) as usize]));
    }
    text
}
