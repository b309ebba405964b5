//! What the daemon is told of this host.

use crate::managed::home::Identity;
use sealift_api::agent::HostFacts;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Bytes of a fact that is text.
const TEXT_BYTES_MAX: usize = 253;

/// This host, as it is now.
pub(crate) fn gather(identity: &Identity) -> HostFacts {
    HostFacts {
        hostname: hostname(),
        os: os(),
        cores: std::thread::available_parallelism()
            .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
        memory_bytes: memory_bytes(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_addresses: identity.data_addresses.clone(),
        read_roots: bytes(&identity.allow_read),
        write_roots: bytes(&identity.allow_write),
    }
}

fn bytes(roots: &[PathBuf]) -> Vec<Vec<u8>> {
    roots.iter().map(|root| root.as_os_str().as_bytes().to_vec()).collect()
}

/// The host's name, as the kernel has it.
pub(crate) fn hostname() -> String {
    short(&std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default())
}

fn os() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    short(name.map_or("Linux", |name| name.trim_matches('"')))
}

fn memory_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib.saturating_mul(1024))
}

fn short(text: &str) -> String {
    let mut text = text.trim().to_owned();
    super::spool::truncate(&mut text, TEXT_BYTES_MAX);
    text
}
