//! Sealed jobs: any head, any envelope, any key file. What is read is written as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealift_envelope::{Envelope, PrivateKek, PublicKek};
use sealift_proto::manifest::sealed::SealedHead;

fuzz_target!(|input: &[u8]| {
    if let Ok((head, bytes)) = SealedHead::decode(input) {
        assert_eq!(SealedHead::decode(&head.encode()).map(|(again, _)| again), Ok(head));
        assert!(bytes <= input.len());
    }
    if let Ok(envelope) = Envelope::decode(input) {
        assert_eq!(envelope.encode(), input);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = PublicKek::from_pem(text);
        // With a passphrase a file can ask for work, which is bounded and slow; that is tested elsewhere.
        let _ = PrivateKek::from_pem(text, None);
    }
});
