//! Who has a key and may not use it any more (A17).
//!
//! A revoked agent gets nothing more from the daemon, its own processes end, and each job that it took part in gets new
//! keys: its old ones open nothing, as little as no key at all, with the same outside appearance.

use super::{document, hello, id_of, is_up, puppet, start, with_agents};
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
    let (job, _) = start(&daemon, "models", &alpha.endpoint("src"), &to);
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
    assert!(begun.elapsed() < Duration::from_secs(60), "cut off after {:?}", begun.elapsed());
    assert!(mallory.hear().is_none(), "nothing comes after a goodbye");
    match mallory.hello(Hello { incarnation: keys.run_id.clone(), ..hello() }) {
        Ok(Some(Body::Goodbye(goodbye))) => assert_eq!(goodbye.reason(), Reason::Revoked),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => assert!(!refused.contains("panicked"), "{refused}"),
    }

    // The job has new keys, with which its run goes on, at another port.
    let job = daemon.api("GET", &format!("jobs/{job}"), None);
    assert_eq!(job["epoch"], 2, "{job:#}");
    let fresh = loop {
        let fresh = assigned(&mut other);
        assert_eq!(fresh.run_id, keys.run_id);
        if fresh.epoch == 2 && fresh.source_addresses != keys.source_addresses {
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
