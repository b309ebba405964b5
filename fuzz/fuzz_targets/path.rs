//! Paths from outside, and text for people made of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealift_proto::limits::{COMPONENT_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};
use sealift_proto::path::{SafePath, escape};

fuzz_target!(|bytes: &[u8]| {
    let shown = escape(bytes);
    assert!(!shown.chars().any(char::is_control));
    let Ok(path) = SafePath::parse(bytes) else { return };
    assert_eq!(path.as_bytes(), bytes, "nothing is cleaned up");
    assert!(bytes.len() <= PATH_BYTES_MAX && path.depth() <= PATH_DEPTH_MAX);
    for part in bytes.split(|&byte| byte == b'/') {
        assert!(!matches!(part, b"" | b"." | b".." | b".sealift"));
        assert!(part.len() <= COMPONENT_BYTES_MAX && !part.contains(&0));
    }
    assert_eq!(SafePath::join(path.parent().as_ref(), path.name()), Ok(path.clone()));
    assert_eq!(path.to_string(), shown);
});
