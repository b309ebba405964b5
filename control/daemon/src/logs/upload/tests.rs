//! What a batch costs.

use super::*;
use crate::ca::Authority;
use crate::db::agents::world::{World, operator};
use crate::db::keks::{self, Checked};
use sealift_api::rest::KekFiles;
use sealift_envelope::{DataKey, KekVersion, PublicKek};

const PUBLIC: &str = include_str!("../../../../envelope/tests/keys/a.pub.pem");
const SPOOL: [u8; 16] = [5; 16];

fn upload(world: &World) -> Upload {
    let authority = Arc::new(Authority::create(&world.db, &operator()).unwrap());
    Upload {
        hub: Hub::new(world.db.clone(), authority),
        store: LogStore::open(&world.dir.path().join("logs.db"), Arc::new(|| 1)).unwrap(),
        rates: Arc::default(),
        keys: DataKeys::default(),
        agent: world.agent("a"),
        outbox: mpsc::channel(OUTBOX_MAX).0,
    }
}

/// One sealed record of so many bytes, of a segment of its own.
fn batch(first: u64, record: usize) -> Batch {
    let public = PublicKek::from_pem(PUBLIC).unwrap();
    let key = DataKey::generate().unwrap();
    let envelope = Envelope::seal(&key, OwnerId(SPOOL), &[(&public, KekVersion(1))]).unwrap().encode();
    Batch {
        first,
        count: 1,
        content: Some(Content::Sealed(Sealed { envelope, records: vec![vec![0; record]] })),
    }
}

#[tokio::test]
async fn what_is_unwrapped_is_paid_for_also_if_it_is_refused_then() {
    let world = World::with_agents(&["a"]);
    let private_pem = Some(include_str!("../../../../envelope/tests/keys/a.pem").to_owned().into());
    let files = KekFiles { public_pem: PUBLIC.to_owned(), private_pem, passphrase: None };
    let halves = Checked::of(&files).unwrap();
    world.write(|w| keks::import(w, &"team".parse().unwrap(), &halves));
    let upload = upload(&world);
    for _ in 0..60 {
        // There is no record of this number.
        let refused = upload.take(SPOOL, batch(0, 1)).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    assert_eq!(world.actions().iter().filter(|action| *action == "kek.use").count(), 60);
    // Sixty bytes of records alone are nothing: whoever hangs up and comes again waits first.
    assert!(upload.rates.owed(upload.agent.id, std::time::Instant::now()) > Duration::ZERO);
}

#[tokio::test]
async fn a_sealed_record_is_no_larger_than_the_largest_that_there_is() {
    let world = World::with_agents(&["a"]);
    let upload = upload(&world);
    let largest = LOG_RECORD_BYTES_MAX + OVERHEAD;
    let refused = upload.take(SPOOL, batch(1, largest + 1)).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    upload.take(SPOOL, batch(1, largest)).await.unwrap();
    // A page of them can be answered, and be taken in by who asks.
    let record = upload.store.list_sealed(None, None, 1).unwrap().items.remove(0);
    let envelope = sealift_envelope::limits::ENVELOPE_BYTES_MAX.div_ceil(3) * 4;
    assert!(200 * (record.record.len() + envelope + 512) <= 16 << 20);
}
