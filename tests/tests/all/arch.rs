//! The invariants of the workspace, read from its manifests and sources: who may depend on whom, where unsafe code may
//! stand, what may never come into the tree. `ARCHITECTURE.md` says why.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, TargetKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every crate of the house and the crates of ours it may use; the order is that of the design's table. Crates that are
/// not built yet have their place already.
const ARROWS: [(&str, &[&str]); 8] = [
    ("crypto-simd", &[]),
    ("sealift-proto", &["crypto-simd"]),
    ("sealift-store", &["sealift-proto", "crypto-simd"]),
    ("sealift-net", &["sealift-proto", "crypto-simd"]),
    (
        "sealift",
        &["sealift-proto", "sealift-store", "sealift-net", "sealift-api", "sealift-envelope", "crypto-simd"],
    ),
    ("sealift-api", &[]),
    ("sealift-envelope", &["crypto-simd"]),
    ("sealift-control", &["sealift-api", "sealift-envelope", "sealift-proto"]),
];

/// These may use anything, and nothing uses them, but for one: tests run on the emulated network of the bench.
const OUTSIDE: [&str; 3] = ["sealift-bench", "sealift-tests", "sealift-sim"];
const BETWEEN_THEM: (&str, &str) = ("sealift-tests", "sealift-bench");

/// The only crates that may have unsafe code, and where.
const UNSAFE_CRATES: [&str; 2] = ["crypto-simd", "sealift-store"];
const UNSAFE_PLACES: [&str; 2] = ["crypto-simd/", "engine/store/src/ring/"];

/// What must not be compiled, with the reason.
const BANNED: [(&str, &str); 6] = [
    ("ring", "one TLS provider: with two of them rustls panics at start"),
    ("openssl", "one TLS: rustls"),
    ("openssl-sys", "one TLS: rustls"),
    ("native-tls", "one TLS: rustls"),
    ("rsa", "timing side channels without a fix"),
    ("bincode", "formats have a written layout"),
];

pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are a crate of the workspace").to_owned()
}

/// The members and what they declare. Nothing is resolved, so that no other platform's crates are downloaded.
fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .no_deps()
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo metadata")
}

/// The crates of ours that a crate declares, by kind.
fn ours<'m>(package: &'m Package, members: &BTreeSet<&str>, kind: DependencyKind) -> BTreeSet<&'m str> {
    let declared = package.dependencies.iter().filter(|dependency| dependency.kind == kind);
    declared.map(|dependency| dependency.name.as_str()).filter(|name| members.contains(name)).collect()
}

#[test]
fn crates_depend_along_the_allowed_arrows_and_no_others() {
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let dev = ours(package, &members, DependencyKind::Development);
        let normal: BTreeSet<_> = ours(package, &members, DependencyKind::Normal)
            .union(&ours(package, &members, DependencyKind::Build))
            .copied()
            .collect();
        for outside in OUTSIDE {
            let used = normal.contains(outside) || dev.contains(outside);
            assert!(!used || BETWEEN_THEM == (name, outside), "{name} depends on {outside}");
        }
        if OUTSIDE.contains(&name) {
            continue;
        }
        let allowed =
            arrows.get(name).unwrap_or_else(|| panic!("{name} has no place in the table of arrows"));
        for used in &normal {
            assert!(allowed.contains(used), "{name} must not depend on {used}");
        }
    }
}

#[test]
fn the_disk_and_the_wire_never_see_each_other() {
    let metadata = metadata();
    let reached = |from: &str| {
        let mut reached = BTreeSet::from([from.to_owned()]);
        loop {
            let next: BTreeSet<String> = metadata
                .packages
                .iter()
                .filter(|package| reached.contains(package.name.as_str()))
                .flat_map(|package| package.dependencies.iter().map(|dependency| dependency.name.clone()))
                .chain(reached.iter().cloned())
                .collect();
            if next == reached {
                return reached;
            }
            reached = next;
        }
    };
    // Tests included: not even those may join the two.
    assert!(!reached("sealift-store").contains("sealift-net"));
    assert!(!reached("sealift-net").contains("sealift-store"));
    for data_plane in ["sealift-store", "sealift-net"] {
        assert!(!reached("sealift-control").contains(data_plane));
        assert!(!reached("sealift-proto").contains(data_plane));
    }
}

#[test]
fn unsafe_code_is_forbidden_in_every_other_crate() {
    for package in &metadata().packages {
        for target in &package.targets {
            let is_root = target.kind.iter().any(|kind| matches!(kind, TargetKind::Lib | TargetKind::Bin));
            let source = fs::read_to_string(&target.src_path).expect("a crate's root");
            if is_root && !UNSAFE_CRATES.contains(&package.name.as_str()) {
                let root = &target.src_path;
                assert!(source.contains("#![forbid(unsafe_code)]"), "{root} lacks #![forbid(unsafe_code)]");
            }
            if is_root && package.name == "sealift-store" {
                assert!(
                    source.contains("#![deny(unsafe_code)]"),
                    "the store allows unsafe code in ring/ alone"
                );
            }
        }
    }
}

#[test]
fn the_word_unsafe_stands_in_two_places_only() {
    for file in sources() {
        let shown = file.strip_prefix(workspace()).expect("within the workspace").display().to_string();
        if UNSAFE_PLACES.iter().any(|place| shown.starts_with(place)) {
            continue;
        }
        let code = code_alone(&fs::read_to_string(&file).expect("a source file"));
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(!words.any(|word| word == "unsafe"), "{shown} has unsafe code");
    }
}

#[test]
fn every_module_says_first_what_it_is_for() {
    for file in sources() {
        let source = fs::read_to_string(&file).expect("a source file");
        assert!(source.starts_with("//! "), "{} does not begin with //!", file.display());
    }
}

#[test]
fn no_file_is_named_for_having_no_subject() {
    for file in sources() {
        for part in file.strip_prefix(workspace()).expect("within the workspace").components() {
            let part = part.as_os_str().to_string_lossy();
            let stem = part.strip_suffix(".rs").unwrap_or(&part);
            let vague = ["util", "utils", "common", "helper", "helpers", "misc"].contains(&stem);
            assert!(!vague, "{} has no subject", file.display());
        }
    }
}

#[test]
fn versions_are_stated_once_at_the_root() {
    for package in &metadata().packages {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest");
        let mut in_dependencies = false;
        for line in manifest.lines().map(str::trim) {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
                let table = line.contains("dependencies.");
                assert!(!table, "{}: write {line} as one line", package.manifest_path);
            } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
                let by_root = line.ends_with(".workspace = true") || line.contains("{ workspace = true");
                assert!(
                    by_root,
                    "{}: {line}: state the version in the root's Cargo.toml",
                    package.manifest_path
                );
            }
        }
    }
}

#[test]
fn what_is_banned_is_not_compiled() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p}"])
        .args(["--edges", "normal,build,dev", "--color", "never"])
        .current_dir(workspace())
        .output()
        .expect("cargo tree");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("text");
    let compiled: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(
        compiled.contains("rustls") && compiled.contains("aws-lc-rs"),
        "the one TLS and its one provider"
    );
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).expect("Cargo.lock");
    for (name, reason) in BANNED {
        assert!(!compiled.contains(name), "{name} is compiled: {reason}");
        // An optional dependency that only a weak feature names is locked and never compiled: so it is with ring.
        let locked = lock.contains(&format!("\nname = \"{name}\"\n"));
        assert!(!locked || name == "ring", "{name} is in Cargo.lock: {reason}");
    }
}

/// Every Rust file of the project, those of the fuzz targets included.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![workspace()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the project") {
            let entry = entry.expect("an entry");
            let (name, kind) = (entry.file_name(), entry.file_type().expect("its kind"));
            let name = name.to_string_lossy();
            let built = matches!(&*name, "target" | "corpus" | "artifacts") || name.starts_with('.');
            if kind.is_dir() && !built {
                directories.push(entry.path());
            } else if kind.is_file() && name.ends_with(".rs") {
                files.push(entry.path());
            }
        }
    }
    assert!(files.len() > 50, "the sources were found");
    files
}

/// A source without its comments and without what stands in its literals.
fn code_alone(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_bytes(rest)
        } else if c == '"' {
            quoted_bytes(rest, '"')
        } else if let Some(raw) = raw_string_bytes(rest) {
            raw
        } else if is_char_literal(rest) {
            quoted_bytes(rest, '\'')
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            // An identifier as a whole, so that its last letter begins no raw string.
            if c.is_alphanumeric() || c == '_' {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                code.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// Bytes of the comment, which may hold others, that `source` begins with.
fn comment_bytes(source: &str) -> usize {
    let mut depth = 0_usize;
    for (at, _) in source.char_indices() {
        if source[at..].starts_with("/*") {
            depth += 1;
        } else if at > 0 && source[..at + 1].ends_with("*/") {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
    }
    source.len()
}

fn quoted_bytes(source: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in source.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    source.len()
}

fn raw_string_bytes(source: &str) -> Option<usize> {
    let after = ["r", "br", "cr"].into_iter().find_map(|prefix| source.strip_prefix(prefix))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let content = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = source.len() - content.len();
    Some(content.find(&end).map_or(source.len(), |at| start + at + end.len()))
}

/// Whether the quote that `source` begins with is that of a character, not of a lifetime.
fn is_char_literal(source: &str) -> bool {
    let mut chars = source.chars();
    if chars.next() != Some('\'') {
        return false;
    }
    match chars.next() {
        Some('\\') => true,
        _ => chars.next() == Some('\''),
    }
}

#[test]
fn comments_and_literals_are_not_code() {
    let code = code_alone(
        "a // unsafe\n/* unsafe /* unsafe */ unsafe */ b \"unsafe \\\" unsafe\" 'c' '\\'' '\"' x<'d> r#\"unsafe \" unsafe\"# our\"unsafe\" e",
    );
    assert!(!code.contains("unsafe"), "{code}");
    for kept in ["a", "b", "<'d>", "our", "e"] {
        assert!(code.contains(kept), "{kept} in {code}");
    }
    assert!(code_alone("let x = unsafe { y };").contains("unsafe"));
}
