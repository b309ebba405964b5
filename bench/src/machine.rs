//! Where a measurement ran: figures without that mean little.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Facts about this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's name for itself.
    pub cpu: String,
    /// What it has of the instructions that matter here.
    pub cpu_features: Vec<String>,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The system's name for itself.
    pub system: String,
    /// The file system of the work directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file_system: Option<String>,
    /// TCP's congestion control, unless a program chooses another.
    pub tcp_congestion_control: String,
    /// How busy it was with other things when the measurement began.
    pub load_average: String,
    /// The program that measured.
    pub harness: String,
    /// Versions of the tools, in their own words.
    pub tools: BTreeMap<String, String>,
}

impl Machine {
    /// This one. `work_dir` is where files are written, if any are.
    #[must_use]
    pub fn here(work_dir: Option<&Path>) -> Self {
        let cpu_info = read("/proc/cpuinfo");
        let flags = field(&cpu_info, "flags").or_else(|| field(&cpu_info, "Features")).unwrap_or_default();
        let interesting = ["sha_ni", "avx2", "avx512f", "aes", "vaes", "vpclmulqdq", "sha2", "pmull"];
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.trim_end_matches("kB").trim().parse::<u64>().ok());
        Self {
            cpu: field(&cpu_info, "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cpu_features: flags
                .split_whitespace()
                .filter(|flag| interesting.contains(flag))
                .map(str::to_owned)
                .collect(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_kib.unwrap_or(0) << 10,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: read("/etc/os-release")
                .lines()
                .find_map(|line| Some(line.strip_prefix("PRETTY_NAME=")?.trim_matches('"').to_owned()))
                .unwrap_or_default(),
            file_system: work_dir.and_then(|dir| file_system(&read("/proc/self/mountinfo"), dir)),
            tcp_congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            load_average: read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
            harness: format!("sealift-bench {}", env!("CARGO_PKG_VERSION")),
            tools: BTreeMap::new(),
        }
    }
}

/// The first line that `program ARGS` prints, wherever it prints it.
#[must_use]
pub fn version_of(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The type, source and options of the mount that holds `dir`.
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    let dir = std::path::absolute(dir).ok()?;
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        // ID PARENT MAJ:MIN ROOT MOUNT-POINT OPTIONS ... - TYPE SOURCE OPTIONS
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4) else { continue };
        let mut kind = kind.split(' ');
        let (Some(name), Some(source)) = (kind.next(), kind.next()) else { continue };
        let length = point.len();
        // Of mounts on one point the last is on top.
        if dir.starts_with(point) && best.as_ref().is_none_or(|(longest, _)| length >= *longest) {
            best = Some((length, format!("{name} ({source}, {})", mount.split(' ').nth(5).unwrap_or(""))));
        }
    }
    best.map(|(_, shown)| shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_longest_mount() {
        let mounts = "1 0 8:1 / / rw,relatime - ext4 /dev/a rw\n2 1 0:5 / /tmp rw - tmpfs tmpfs rw\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")).as_deref(), Some("tmpfs (tmpfs, rw)"));
        assert_eq!(file_system(mounts, Path::new("/tmpx")).as_deref(), Some("ext4 (/dev/a, rw,relatime)"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn this_machine_has_a_kernel_and_cores() {
        let machine = Machine::here(Some(Path::new("/proc")));
        assert!(machine.cores > 0 && !machine.kernel.is_empty() && machine.memory_bytes > 0);
    }
}
