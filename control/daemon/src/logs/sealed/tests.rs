//! What is opened, how often that makes work, and when it ends.

use super::*;
use crate::db::agents::world::World;
use crate::db::keks::Checked;
use crate::logs::DataKeys;
use sealift_api::rest::KekFiles;
use sealift_envelope::{KekVersion, PublicKek};
use std::sync::Arc;

const SPOOL: [u8; 16] = [5; 16];
const PUBLIC: &str = include_str!("../../../../envelope/tests/keys/a.pub.pem");
const PRIVATE: &str = include_str!("../../../../envelope/tests/keys/a.pem");

struct Scene {
    world: World,
    store: LogStore,
    keys: DataKeys,
    kek: Kek,
}

/// What a batch became, and its price.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Opened(usize),
    Sealed(usize),
}

fn scene() -> Scene {
    let world = World::with_agents(&["a", "b"]);
    let files = KekFiles {
        public_pem: PUBLIC.to_owned(),
        private_pem: Some(PRIVATE.to_owned().into()),
        passphrase: None,
    };
    let halves = Checked::of(&files).unwrap();
    let kek = world.write(|w| keks::import(w, &"team".parse().unwrap(), &halves));
    let store = LogStore::open(&world.dir.path().join("logs.db"), Arc::new(|| 1)).unwrap();
    Scene { world, store, keys: DataKeys::default(), kek }
}

fn sealed() -> (DataKey, Envelope) {
    let key = DataKey::generate().unwrap();
    let public = PublicKek::from_pem(PUBLIC).unwrap();
    let envelope = Envelope::seal(&key, OwnerId(SPOOL), &[(&public, KekVersion(1))]).unwrap();
    (key, envelope)
}

/// One that says it can be opened, and cannot.
fn broken() -> Envelope {
    let mut bytes = sealed().1.encode();
    *bytes.last_mut().unwrap() ^= 1;
    Envelope::decode(&bytes).unwrap()
}

impl Scene {
    fn take(&self, agent: &str, key: &DataKey, envelope: &Envelope) -> Became {
        let agent = &self.world.agent(agent);
        let record = Record { message: "words".into(), ..Record::default() };
        let record = prost::Message::encode_to_vec(&record);
        let records = &[RecordSealer::new(key, &SPOOL).seal(1, &record)][..];
        let batch = SealedBatch { agent, spool: SPOOL, first: 1, envelope, records };
        let mut price = 0;
        match take(&self.keys, &self.world.db, &self.store, &batch, &mut price).unwrap() {
            Taken::Records(records) => {
                assert_eq!(records[0].message, "words");
                Became::Opened(price)
            }
            Taken::Sealed(_) => Became::Sealed(price),
        }
    }

    fn uses(&self) -> usize {
        self.world.actions().iter().filter(|action| *action == "kek.use").count()
    }
}

#[test]
fn what_does_not_open_is_tried_once_and_what_opens_is_unwrapped_once() {
    let scene = scene();
    let (key, bad) = (DataKey::generate().unwrap(), broken());
    assert_eq!(scene.take("a", &key, &bad), Became::Sealed(UNWRAP_RECORDS + NOTE_RECORDS));
    assert_eq!(scene.take("a", &key, &bad), Became::Sealed(0));
    assert_eq!(scene.uses(), 1, "the second time nothing was tried");
    let (key, good) = sealed();
    assert_eq!(scene.take("a", &key, &good), Became::Opened(UNWRAP_RECORDS));
    assert_eq!(scene.take("a", &key, &good), Became::Opened(0));
    assert_eq!(scene.uses(), 2);
}

#[test]
fn an_agent_displaces_its_own_keys_and_nobody_elses() {
    let scene = scene();
    let (key, mine) = sealed();
    assert_eq!(scene.take("a", &key, &mine), Became::Opened(UNWRAP_RECORDS));
    for _ in 0..20 {
        let (key, envelope) = sealed();
        assert_eq!(scene.take("b", &key, &envelope), Became::Opened(UNWRAP_RECORDS));
    }
    assert_eq!(scene.keys.count(), 5, "four, and the one of the other");
    assert_eq!(scene.take("a", &key, &mine), Became::Opened(0));
}

#[test]
fn a_key_that_is_held_is_not_used_when_its_kek_may_not_be() {
    let scene = scene();
    let (key, envelope) = sealed();
    assert_eq!(scene.take("a", &key, &envelope), Became::Opened(UNWRAP_RECORDS));
    scene.world.write(|w| keks::disable(w, scene.kek.id));
    assert_eq!(scene.take("a", &key, &envelope), Became::Sealed(NOTE_RECORDS));
    assert_eq!(scene.keys.count(), 0, "nor held any longer");
    scene.world.write(|w| keks::enable(w, scene.kek.id));
    assert_eq!(scene.take("a", &key, &envelope), Became::Opened(UNWRAP_RECORDS));
    assert_eq!(scene.uses(), 2);

    // A rotation leaves it: the old key decrypts still. Its end does not.
    let public_pem = include_str!("../../../../envelope/tests/keys/b.pub.pem").to_owned();
    let other = Checked::of(&KekFiles { public_pem, private_pem: None, passphrase: None }).unwrap();
    scene.world.write(|w| keks::rotate(w, scene.kek.id, &other));
    assert_eq!(scene.take("a", &key, &envelope), Became::Opened(0));
    scene.world.write(|w| keks::segments_forgotten(w, &[segment_id(&envelope)]));
    scene.world.write(|w| keks::destroy(w, scene.kek.id));
    scene.keys.drop_of(scene.kek.id);
    assert_eq!(scene.keys.count(), 0);
    // That record is here already.
    assert_eq!(scene.take("a", &key, &envelope), Became::Sealed(0));
}
