//! What is moved in bulk costs allocations by the run of 1 MiB, at both ends together some fifty, and none by the block. Alone
//! in its process, whose allocations it counts.

#![allow(clippy::unwrap_used)]

use sealift::discovery::DiscoveryOptions;
use sealift::pace::Pace;
use sealift::preserve::Preserve;
use sealift::receive::{OnConflict, Owners, ReceiveOptions, Verify};
use sealift::report::{Reporter, Style};
use sealift::send::SendOptions;
use sealift::state::StateDir;
use sealift::swarm::SwarmOptions;
use sealift_net::{Cipher, Limiter, Transport};
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::member::Label;
use sealift_proto::ticket::Ticket;
use sealift_store::{Durability, MapperOptions};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MIB: u64 = 1 << 20;
/// Allocations for a run, at both ends together: scanning, serving, receiving. A run of files of this size has 32 blocks, so one
/// for a block would be too many.
const RUN_ALLOCATIONS_MAX: u64 = 64;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn reporter() -> Arc<Reporter> {
    Arc::new(Reporter::new(Style::Json))
}

/// Allocations of both ends while a file of so many bytes is replicated from start to end.
fn allocations(bytes: u64, dir: &Path) -> usize {
    let (source, ticket_file) = (dir.join("source"), dir.join("ticket"));
    let state = dir.join("state");
    fs::create_dir(&source).unwrap();
    // No two blocks are the same, and none is a hole.
    let content: Vec<u8> = (0..bytes / 8)
        .flat_map(|word| (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1).to_le_bytes())
        .collect();
    fs::write(source.join("file"), &content).unwrap();
    let region = Region::new(ALLOCATOR);
    let options = SendOptions {
        paths: vec![source],
        bind: Some("127.0.0.1:0".parse().unwrap()),
        advertise: Vec::new(),
        once: true,
        ticket_file: Some(ticket_file.clone()),
        hash: HashAlgorithm::Sha256,
        cipher: Cipher::Aes128Gcm,
        label: Label::default(),
        limiter: Arc::new(Limiter::new(None)),
        transport: Transport::Tcp,
        connections: 4,
        job: None,
        state_dir: Some(state.clone()),
        rehash: false,
        preserve: Preserve::default(),
        seal_to: Vec::new(),
        discovery: DiscoveryOptions::default(),
    };
    let sender = std::thread::spawn(move || block_on(sealift::send::send(options, reporter())).unwrap());
    while !fs::read_to_string(&ticket_file).is_ok_and(|text| text.ends_with('\n')) {
        std::thread::yield_now();
    }
    let options = ReceiveOptions {
        ticket: Ticket::decode(fs::read_to_string(&ticket_file).unwrap().trim()).unwrap(),
        dest: dir.join("destination"),
        durability: Durability::Unsynced,
        verify: Verify::Stream,
        pace: Pace::default(),
        transport: Transport::Tcp,
        connections: 4,
        quic_connections: NonZeroUsize::MIN,
        swarm: SwarmOptions::none(),
        keep_special_modes: false,
        retry_for: Duration::from_secs(10),
        state: StateDir::open(Some(state)).unwrap(),
        new_replica: false,
        preserve: Preserve::default(),
        owners: Owners::new(MapperOptions::default()).unwrap(),
        on_conflict: OnConflict::Rename,
        page_cache: false,
        delete: None,
        ask: None,
        max_rewrite: None,
        wait_for_space: None,
        repair: None,
        discovery: DiscoveryOptions::default(),
    };
    block_on(sealift::receive::receive(options, reporter())).unwrap();
    let _ = sender.join().unwrap();
    let change = region.change();
    assert!(fs::read(dir.join("destination/file")).unwrap() == content);
    change.allocations + change.reallocations
}

#[test]
fn allocations_are_for_runs_and_none_is_for_a_block() {
    let count = |bytes| {
        let dir = tempfile::tempdir().unwrap();
        u64::try_from(allocations(bytes, dir.path())).unwrap()
    };
    // What is done but once, is.
    let _ = count(8 * MIB);
    let (few, many) = (64 * MIB, 320 * MIB);
    let more = count(many).saturating_sub(count(few));
    let runs = (many - few) / sealift_proto::limits::RUN_BYTES_MAX as u64;
    println!("{more} allocations more for {runs} runs more");
    assert!(more < runs * RUN_ALLOCATIONS_MAX, "{more} allocations for {runs} runs");
}
