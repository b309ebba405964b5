//! What is noted of sealed segments follows the file that they are in.

use super::*;
use crate::db::agents::world::World;
use crate::db::logs::segment_id;
use sealift_api::rest::{Kek, KekFiles, KekWraps};
use sealift_envelope::{DataKey, Envelope, KekVersion, OwnerId, PublicKek};

const SPOOL: [u8; 16] = [5; 16];
const A: &str = include_str!("../../../envelope/tests/keys/a.pub.pem");
const B: &str = include_str!("../../../envelope/tests/keys/b.pub.pem");

fn imported(world: &World, name: &str, public: &str) -> Kek {
    let files = KekFiles { public_pem: public.to_owned(), private_pem: None, passphrase: None };
    let halves = keks::Checked::of(&files).unwrap();
    world.write(|w| keks::import(w, &name.parse().unwrap(), &halves))
}

fn envelope(key: &DataKey, public: &str) -> Envelope {
    let public = PublicKek::from_pem(public).unwrap();
    Envelope::seal(key, OwnerId(SPOOL), &[(&public, KekVersion(1))]).unwrap()
}

fn store(world: &World, name: &str) -> LogStore {
    LogStore::open(&world.dir.path().join(name), Arc::new(|| 1_800_000_000_000)).unwrap()
}

#[test]
fn what_is_noted_of_segments_follows_the_file_of_logs() {
    let world = World::new();
    let [a, b] = [("a", A), ("b", B)].map(|(name, public)| imported(&world, name, public).id);
    let wraps = || {
        let of = |id| -> KekWraps { world.read(|db| keks::get(db, id)).wraps };
        (of(a).logs, of(b).logs)
    };
    let first = store(&world, "logs.db");
    let keys: Vec<_> = (0..=RECONCILED_AT_ONCE).map(|_| DataKey::generate().unwrap()).collect();
    for (key, number) in keys.iter().zip(1..) {
        first.take_sealed(Uuid::nil(), SPOOL, number, &envelope(key, A), &[vec![1; 60]]).unwrap();
    }
    let count = u32::try_from(keys.len()).unwrap();
    // None was noted, and one that is not there was.
    let gone = segment_id(&envelope(&DataKey::generate().unwrap(), A));
    world.write(|w| keks::segment_kept(w, gone, &[keks::get(w.tx(), b)?]));
    assert_eq!(wraps(), (0, 1));
    reconcile(&first, &world.db).unwrap();
    assert_eq!(wraps(), (count, 0));
    // Two were wrapped anew, and the daemon was killed before it had noted that.
    for key in &keys[..2] {
        let anew = envelope(key, B);
        first.rewrap(segment_id(&anew), &anew).unwrap();
    }
    reconcile(&first, &world.db).unwrap();
    assert_eq!(wraps(), (count - 2, 2));
    // The file was damaged, and begun anew.
    reconcile(&store(&world, "other.db"), &world.db).unwrap();
    assert_eq!(wraps(), (0, 0));
}
