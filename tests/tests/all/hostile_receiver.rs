//! A real sender, as a process, against receivers that hold the ticket and misbehave, and against strangers at the
//! door (hazards A6, A13, A15–A18, A20, A21).

mod door;
mod frames;
mod names;
mod quic;
mod requests;

use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::process::Sender;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// A source with large and small files, and a sender of it.
struct Served {
    dir: TempDir,
    sender: Sender,
}

/// The files of a source: name and length. In the order of names, which is that of the scan, small follow large.
const FILES: [(&str, usize); 8] = [
    ("a-large", (3 << 20) + 5),
    ("b-small", 5),
    ("c-blocks", 100_000),
    ("d-one", 1),
    ("e-even", 2 << 20),
    ("f-empty", 0),
    ("g-block", 32_768),
    ("h-over", 32_769),
];

/// The content of a file: no two of its bytes are where another file has the same.
fn content(name: &str, len: usize) -> Vec<u8> {
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 16).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl Served {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("there is room");
        let source = dir.path().join("source");
        fs::create_dir(&source).expect("there is room");
        for (name, len) in FILES {
            fs::write(source.join(name), content(name, len)).expect("there is room");
        }
        let sender = Sender::start([&source], args);
        Self { dir, sender }
    }

    fn ticket(&self) -> &str {
        &self.sender.ticket
    }

    /// An honest receiver gets everything.
    fn assert_serves(&self) {
        let dest = tempfile::tempdir().expect("there is room");
        let outcome = self.sender.receive(dest.path(), &["--retry-for", "20"]).expect(0);
        assert_eq!(outcome.total("files"), FILES.len() as u64);
        assert_complete(dest.path());
    }

    /// It is alive, serves an honest receiver, and ends as it should when it is told to.
    fn assert_unharmed(self) -> sealift_tests::process::Outcome {
        self.assert_serves();
        let outcome = self.sender.stop().expect(0);
        assert_plain(&outcome);
        drop(self.dir);
        outcome
    }
}

fn assert_complete(dest: &Path) {
    for (name, len) in FILES {
        assert!(fs::read(dest.join(name)).expect("there") == content(name, len), "{name} is right");
    }
}

/// Runs what a peer does, for no longer than a minute.
fn peer<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(async {
        tokio::time::timeout(Duration::from_secs(60), what).await.expect("within a minute")
    })
}
