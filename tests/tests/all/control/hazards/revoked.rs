//! Who has a key and may not use it any more (A17).
//!
//! What holds today: a revoked agent gets nothing more from the daemon, its own processes end, and once a job's keys were
//! rotated its old ones open nothing: as little as no key at all, with the same outside appearance. What does not hold yet:
//! a source knows a job's keys and not its agents, so that whoever stole a key from a revoked agent can go on using it
//! until the keys are rotated, or the run is over.

use super::{document, hello, id_of, is_up, puppet, run_again, start, with_agents};
use sealift_api::agent::assignment::Role;
use sealift_api::agent::daemon_message::Body;
use sealift_api::agent::goodbye::Reason;
use sealift_api::agent::{Assignment, Hello};
use sealift_proto::keys::{RoSecret, RwSeed, VerifyKey};
use sealift_proto::ticket::Ticket;
use sealift_tests::fleet::Puppet;
use sealift_tests::process::Receive;
use sealift_tests::tree;
use std::time::{Duration, Instant};

/// Waits until the daemon has given it what a destination gets.
fn assigned(puppet: &mut Puppet) -> Assignment {
    let (document, found) = puppet.hear_until("it is to receive", |body| match body {
        Body::Document(document) => {
            let found = document.assignments.iter().find(|part| part.role() == Role::Destination).cloned();
            found.map(|found| (document, found))
        }
        _ => None,
    });
    puppet.acknowledge(&document);
    found
}

fn ticket(keys: &Assignment, at: &Assignment) -> Ticket {
    Ticket {
        ro_secret: RoSecret::from_bytes(&keys.read_only_secret[..].try_into().expect("32 bytes")),
        verify_key: VerifyKey::from_bytes(&keys.verify_key[..].try_into().expect("32 bytes")).expect("a key"),
        addresses: at.source_addresses.iter().map(|address| address.parse().expect("an address")).collect(),
    }
}

#[test]
fn a17_a_revoked_agent_gets_no_more_and_its_old_keys_open_nothing() {
    let (daemon, [alpha]) = with_agents(["alpha"]);
    tree::mixed(&alpha.data().join("src"), 5, 1);
    let (mut mallory, mut other) = (puppet(&daemon, "mallory"), puppet(&daemon, "other"));
    for puppet in [&mut mallory, &mut other] {
        let first = document(puppet.hello(hello()).unwrap());
        puppet.acknowledge(&first);
    }
    is_up(&daemon, "alpha");
    // Neither of the two puppets ever ends, and so the source goes on.
    let to = ["mallory:/x".to_owned(), "other:/x".to_owned()];
    let (job, run) = start(&daemon, "models", &alpha.endpoint("src"), &to);
    let keys = assigned(&mut mallory);
    assert!(keys.read_write_seed.is_empty(), "who receives cannot sign");
    let _ = assigned(&mut other);

    let begun = Instant::now();
    daemon.api("POST", &format!("agents/{}/revoke", id_of(&daemon, "mallory")), None);
    let reason = mallory.hear_until("it is sent away", |body| match body {
        Body::Goodbye(goodbye) => Some(goodbye.reason()),
        _ => None,
    });
    assert_eq!(reason, Reason::Revoked);
    assert!(begun.elapsed() < Duration::from_secs(5), "cut off after {:?}", begun.elapsed());
    assert!(mallory.hear().is_none(), "nothing comes after a goodbye");
    match mallory.hello(Hello { incarnation: keys.run_id, ..hello() }) {
        Ok(Some(Body::Goodbye(goodbye))) => assert_eq!(goodbye.reason(), Reason::Revoked),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => assert!(!refused.contains("panicked"), "{refused}"),
    }

    // The keys are rotated, and the job runs anew.
    daemon.api("POST", &format!("runs/{run}/stop"), None);
    let spec =
        serde_json::json!({ "kind": "distribution", "from": [alpha.endpoint("src")], "to": ["other:/x"] });
    daemon.api("PATCH", &format!("jobs/{job}"), serde_json::json!({ "spec": spec }));
    daemon.api("POST", &format!("jobs/{job}/rotate-keys"), None);
    run_again(&daemon, &job);
    let fresh = loop {
        let fresh = assigned(&mut other);
        if fresh.run_id != run.as_bytes() && fresh.epoch > 1 {
            break fresh;
        }
    };
    let keys = Assignment {
        read_only_secret: keys.read_only_secret,
        verify_key: keys.verify_key,
        ..Assignment::default()
    };
    let stranger = RwSeed::new(&[7; 32]);
    let no_key = Assignment {
        read_only_secret: stranger.ro_secret().as_bytes().to_vec(),
        verify_key: stranger.verify_key().as_bytes().to_vec(),
        ..Assignment::default()
    };
    let receive = |keys: &Assignment| {
        let dest = tempfile::tempdir().unwrap();
        let outcome = Receive::run(&*ticket(keys, &fresh).encode(), dest.path(), &["--retry-for", "20"]);
        (outcome.code, outcome.message().to_owned(), tree::entries(dest.path()).len())
    };
    let (revoked, none) = (receive(&keys), receive(&no_key));
    assert_eq!(revoked, none, "an old key and none look alike");
    assert_eq!(revoked.0, Some(4), "{revoked:?}");
    let (code, message, entries) = receive(&fresh);
    assert_eq!(code, Some(0), "who holds the new key is served: {message}");
    assert!(entries > 1);
}
