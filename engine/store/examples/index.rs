//! Measures the replica's index and the cache of hashes at a million small files (or as many as are asked for):
//! `cargo run --release -p sealift-store --example index -- [FILES] [DIRECTORY]`. The figures are in `docs/index.md`.

use sealift_proto::block::{BlockSize, Layout};
use sealift_proto::digest::{HashAlgorithm, RootHash};
use sealift_proto::path::SafePath;
use sealift_store::{
    CachedFile, EntryRow, EntryWhat, HashCache, IndexBatch, LocalStat, ReplicaIndex, Timestamp,
};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const ROWS_PER_WRITE: usize = 4096;
const GETS_PER_READER: usize = 256;

fn main() {
    let mut args = std::env::args().skip(1);
    let files: u64 = args.next().map_or(1_000_000, |text| text.parse().expect("a number of files"));
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from).join("sealift-index-example");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    let paths: Vec<SafePath> = (0..files).map(path).collect();
    let mut shuffled: Vec<u64> = (0..files).collect();
    let mut random = 1_u64;
    for i in (1..shuffled.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        shuffled.swap(i, usize::try_from(random >> 33).expect("small") % (i + 1));
    }
    let held = resident();
    println!(
        "{files} files, {} bytes a path",
        paths.iter().map(|p| p.as_bytes().len()).sum::<usize>() / paths.len()
    );

    let file = dir.join("index.redb");
    let index = ReplicaIndex::open(&file).expect("a new index").0;
    let mut slowest = Duration::ZERO;
    timed("index: written in order", files, || {
        for ids in (0..files).collect::<Vec<_>>().chunks(ROWS_PER_WRITE) {
            let begun = Instant::now();
            index.write(&batch(&paths, ids, 1)).expect("written");
            slowest = slowest.max(begun.elapsed());
        }
    });
    println!("  slowest write of {ROWS_PER_WRITE}: {slowest:?}");
    size("index", &file, files);
    timed("index: closed", 1, || drop(index));
    let index = timed("index: opened", 1, || ReplicaIndex::open(&file).expect("opened").0);
    in_order("index: got in order, first time", &index, &paths);
    in_order("index: got in order, again", &index, &paths);
    println!("  memory for 2 x {files} gets: {:.1} MiB", mib(resident() - held));
    timed("index: got at random", files, || {
        for ids in shuffled.chunks(GETS_PER_READER) {
            let reader = index.read().expect("a reader");
            for &id in ids {
                assert!(reader.entry(&paths[at(id)]).expect("read").is_some());
            }
        }
    });
    println!("  memory then: {:.1} MiB", mib(resident() - held));
    timed("index: all gone through", files, || {
        let mut count = 0;
        let reader = index.read().expect("a reader");
        let mut show = |_, _| {
            count += 1;
            ControlFlow::Continue(())
        };
        reader.for_each_entry(None, &mut show).expect("read");
        assert_eq!(count, files);
    });
    timed("index: half of it written again, at random", files / 2, || {
        for ids in shuffled[..shuffled.len() / 2].chunks(ROWS_PER_WRITE) {
            index.write(&batch(&paths, ids, 2)).expect("written");
        }
    });
    size("index", &file, files);
    println!("  memory then: {:.1} MiB", mib(resident() - held));
    // As a process that was killed leaves it: with what it wrote, and not closed.
    let killed = dir.join("killed.redb");
    std::fs::copy(&file, &killed).expect("copied");
    std::fs::File::open(&killed).and_then(|file| file.sync_all()).expect("synced");
    timed("index: opened after a kill", 1, || ReplicaIndex::open(&killed).expect("opened"));
    drop(index);

    let file = dir.join("hashes.redb");
    let cache = HashCache::open(&file, HashAlgorithm::Sha256).expect("a new cache");
    timed("cache: written in order, and flushed", files, || {
        for ids in (0..files).collect::<Vec<_>>().chunks(ROWS_PER_WRITE) {
            let rows: Vec<_> = ids.iter().map(|&id| (paths[at(id)].clone(), cached(id))).collect();
            cache.write(&rows).expect("written");
        }
        cache.flush().expect("flushed");
    });
    size("cache", &file, files);
    drop(cache);
    let cache = timed("cache: opened", 1, || HashCache::open(&file, HashAlgorithm::Sha256).expect("opened"));
    timed("cache: got in order", files, || {
        for paths in paths.chunks(GETS_PER_READER) {
            let reader = cache.read().expect("a reader");
            assert!(paths.iter().all(|path| reader.get(path).expect("read").is_some()));
        }
    });
    println!("  memory then: {:.1} MiB", mib(resident() - held));
    timed("cache: every file kept", files, || cache.retain(&mut |_| true).expect("kept"));
    drop(cache);
    std::fs::remove_dir_all(&dir).expect("removed");
}

fn in_order(what: &str, index: &ReplicaIndex, paths: &[SafePath]) {
    timed(what, paths.len() as u64, || {
        for paths in paths.chunks(GETS_PER_READER) {
            let reader = index.read().expect("a reader");
            assert!(paths.iter().all(|path| reader.entry(path).expect("read").is_some()));
        }
    });
}

fn path(id: u64) -> SafePath {
    let (dir, file) = (id / 100, id % 100);
    SafePath::parse(format!("photos/{:03}/album-{dir:06}/picture-{file:04}.jpeg", dir / 100).as_bytes())
        .expect("a safe path")
}

fn root(id: u64) -> RootHash {
    let mut root = [0; 32];
    for (part, word) in root.as_chunks_mut::<8>().0.iter_mut().zip(1_u64..) {
        *part = (id + word).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    RootHash(root)
}

fn stat(id: u64) -> LocalStat {
    let nanos = u32::try_from(id * 7919 % 1_000_000_000).expect("below a second");
    let mtime = Timestamp { seconds: 1_700_000_000 + id.cast_signed(), nanos };
    let ctime = Timestamp { seconds: 1_780_000_000, nanos };
    LocalStat { inode: 10_000_000 + id, size_bytes: 4096 + id % 4096, mtime, ctime, mode: 0o644 }
}

fn batch(paths: &[SafePath], ids: &[u64], segment: u64) -> IndexBatch {
    let row = |&id| {
        let stat = stat(id);
        let layout = Layout::new(stat.size_bytes, BlockSize::MIN).expect("small");
        let algorithm = HashAlgorithm::Sha256;
        let (mode, mtime) = (stat.mode, stat.mtime);
        let what = EntryWhat::File { layout, algorithm, root: root(id + segment), mode, mtime, stat };
        (paths[at(id)].clone(), EntryRow { what, job: 1, segment })
    };
    IndexBatch { placed: ids.iter().map(row).collect(), ..IndexBatch::default() }
}

fn cached(id: u64) -> CachedFile {
    let block_size = BlockSize::MIN;
    CachedFile { stat: stat(id), block_size, root: root(id), hashes: Vec::new(), holes: Vec::new() }
}

fn at(id: u64) -> usize {
    usize::try_from(id).expect("fits")
}

fn timed<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let (begun, cpu) = (Instant::now(), cpu_ticks());
    let value = work();
    let (took, cpu) = (begun.elapsed(), (cpu_ticks() - cpu) * 10);
    let each = took.as_secs_f64() * 1e6 / count as f64;
    println!("{what}: {took:.2?} ({cpu} ms of CPU), {each:.3} us each");
    value
}

/// Hundredths of a second that this process has computed.
fn cpu_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = text.rsplit(')').next().expect("at least one part");
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

fn size(what: &str, file: &std::path::Path, rows: u64) {
    use std::os::unix::fs::MetadataExt as _;
    let stat = std::fs::metadata(file).expect("there");
    println!(
        "{what}: {} bytes a row on disk ({} of file length)",
        stat.blocks() * 512 / rows,
        stat.len() / rows
    );
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
