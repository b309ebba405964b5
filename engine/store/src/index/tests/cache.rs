//! The cache of a sender's hashes.

use super::super::cache::plan;
use super::memory::{MemoryDisk, shown};
use super::*;
use crate::limits::HASHES_PER_ROW;

#[test]
fn index_cache_remembers_hashes_of_small_and_large_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("hashes.redb");
    let cache = HashCache::open(&at, HashAlgorithm::Sha256).unwrap();
    assert_eq!(cache.found(), IndexFound::Created);
    let large = (3 * HASHES_PER_ROW as u64 + 5) << 15;
    let files = [
        (path("a/empty"), cached(0, 1)),
        (path("a/one"), cached(10, 2)),
        (path("a/two"), cached(40_000, 3)),
        (path("large"), cached(large, 4)),
        (path("b"), cached(1000 << 15, 5)),
    ];
    cache.write(&files).unwrap();
    let get = |cache: &HashCache, name: &str| cache.read().unwrap().get(&path(name)).unwrap();
    for (path, file) in &files {
        assert_eq!(get(&cache, &path.to_string()).as_ref(), Some(file));
    }
    // It shrank, and grew again by less: no row of the larger one is left.
    let lists = |cache: &HashCache| {
        let reader = cache.read().unwrap();
        reader.run(|(_, lists)| Ok(lists.len()?)).unwrap()
    };
    assert_eq!(lists(&cache), 4 + 1 + 1);
    cache.write(&[(path("large"), cached(1100 << 15, 6))]).unwrap();
    assert_eq!(lists(&cache), 2 + 1 + 1);
    assert_eq!(get(&cache, "large"), Some(cached(1100 << 15, 6)));
    cache.remove(&[path("b"), path("none")]).unwrap();
    assert_eq!(get(&cache, "b"), None);
    let mut asked = Vec::new();
    let forgotten = cache.retain(&mut |path| {
        asked.push(path.to_string());
        path.as_bytes() != b"large"
    });
    assert_eq!((forgotten.unwrap(), lists(&cache)), (1, 1));
    assert_eq!(asked, ["a/empty", "a/one", "a/two", "large"]);
    cache.flush().unwrap();
    drop(cache);
    let cache = HashCache::open(&at, HashAlgorithm::Sha256).unwrap();
    assert_eq!(cache.found(), IndexFound::Sound);
    assert_eq!(get(&cache, "a/two"), Some(cached(40_000, 3)));
    drop(cache);
    // Another algorithm's hashes are of no use, and neither is what is damaged.
    let cache = HashCache::open(&at, HashAlgorithm::Blake3).unwrap();
    assert_eq!((cache.found(), get(&cache, "a/two")), (IndexFound::Created, None));
    drop(cache);
    std::fs::write(&at, "garbage").unwrap();
    assert_eq!(HashCache::open(&at, HashAlgorithm::Blake3).unwrap().found(), IndexFound::Damaged);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn b9_a_cache_keeps_what_was_flushed_over_a_power_cut() {
    let purpose = Purpose { version: SCHEMA_VERSION, kind: HASHES_KIND, algorithm: 1 };
    let plan = plan(HashAlgorithm::Sha256);
    assert_eq!(plan.purpose, purpose);
    for seed in 0..60 {
        let mut random = Random(seed);
        let disk = MemoryDisk::holding(Vec::new());
        let cache = HashCache::on(Store::fill(&shown(), plan, disk.clone()).unwrap());
        let mut now: BTreeMap<SafePath, CachedFile> = BTreeMap::new();
        let (mut flushed, mut flushing) = (now.clone(), now.clone());
        disk.memory().fails = Some((random.below(400), 5, true));
        for _ in 0..40 {
            let rows: Vec<_> = (0..random.below(300))
                .map(|_| {
                    let id = random.below(500);
                    (path(&format!("directory/{id}")), cached(random.below(1 << 22), id))
                })
                .collect();
            if cache.write(&rows).is_err() {
                break;
            }
            now.extend(rows);
            if random.below(4) == 0 {
                flushing = now.clone();
                if cache.flush().is_err() {
                    break;
                }
                flushed = now.clone();
            }
        }
        // Nothing of it is flushed by closing: the power is gone.
        disk.memory().fails = Some((0, 5, true));
        drop(cache);
        let image = MemoryDisk::holding(disk.after_power_cut(&mut random));
        let store = Store::start(&shown(), plan, image).unwrap().expect("not damaged");
        let cache = HashCache::on(store);
        let reader = cache.read().unwrap();
        let mut found = BTreeMap::new();
        for id in 0..500 {
            let path = path(&format!("directory/{id}"));
            found.extend(reader.get(&path).unwrap().map(|file| (path, file)));
        }
        assert!(found == flushed || found == flushing);
    }
}

#[test]
fn b11_flipped_bits_of_a_cache_are_found_or_do_no_harm() {
    let plan = plan(HashAlgorithm::Sha256);
    let disk = MemoryDisk::holding(Vec::new());
    let cache = HashCache::on(Store::fill(&shown(), plan, disk.clone()).unwrap());
    let files: Vec<_> =
        (0..500).map(|id| (path(&format!("d/{id:03}")), cached(id * id * id % (1 << 24), id))).collect();
    cache.write(&files).unwrap();
    drop(cache);
    let whole = disk.memory().now.clone();
    let mut random = Random(3);
    let mut damaged = 0;
    for _ in 0..300 {
        let mut bytes = whole.clone();
        let at = random.index(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        let Ok(store) = Store::start(&shown(), plan, MemoryDisk::holding(bytes)).unwrap() else {
            damaged += 1;
            continue;
        };
        let cache = HashCache::on(store);
        for (path, file) in &files {
            match cache.read().and_then(|reader| reader.get(path)) {
                Ok(found) => assert_eq!(found.as_ref(), Some(file)),
                Err(IndexError::Damaged { .. }) => {
                    damaged += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(damaged > 100, "{damaged}");
}
