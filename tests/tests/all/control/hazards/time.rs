//! Certificates and clocks.

use super::{agent, is_up, with_agents};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;
use sealift_control::ca::{Authority, Request};
use sealift_control::db::{Db, MasterKey};
use sealift_tests::control::{Agent, Daemon, until};
use std::time::{Duration, Instant};

/// Gives an agent, which does not run, a certificate of the daemon's authority that holds for a moment.
fn give_short_certificate(daemon: &Daemon, agent: &Agent, id: &str, lifetime: Duration) {
    // Beside the daemon that serves, as its command line does it.
    let master = MasterKey::read_file(&daemon.dir().join("master.key")).expect("it is as it should be");
    let db = Db::open(&daemon.dir().join("control.db"), master).expect("it is as it should be");
    let authority = Authority::load(&db).expect("it is as it should be");
    let key = std::fs::read(agent.state().join("agent/key")).expect("it is as it should be");
    let key = PrivatePkcs8KeyDer::from(key);
    let key =
        KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).expect("it is as it should be");
    let params = CertificateParams::new(vec![agent.name.clone()]).expect("it is as it should be");
    let request = Request::parse(params.serialize_request(&key).expect("it is as it should be").der())
        .expect("it is as it should be");
    let issued = authority
        .agent(&request, id.parse().expect("it is as it should be"), &agent.name, lifetime)
        .expect("it is as it should be");
    std::fs::write(agent.state().join("agent/certificate"), &*issued.certificate)
        .expect("it is as it should be");
}

#[test]
fn an_expired_certificate_is_renewed_by_the_key_that_the_daemon_knows() {
    let (daemon, [mut alpha]) = with_agents(["alpha"]);
    is_up(&daemon, "alpha");
    let before = agent(&daemon, "alpha");
    alpha.kill();
    give_short_certificate(&daemon, &alpha, before["id"].as_str().unwrap(), Duration::from_secs(1));
    let short = std::fs::read(alpha.state().join("agent/certificate")).unwrap();
    let (given, patience) = (Instant::now(), Duration::from_secs(3));
    until("it has expired", || (given.elapsed() > patience).then_some(()));
    alpha.start();
    until("the certificate is another", || {
        (std::fs::read(alpha.state().join("agent/certificate")).unwrap() != short).then_some(())
    });
    is_up(&daemon, "alpha");
    let after = agent(&daemon, "alpha");
    assert_eq!(
        (&after["key"], &after["id"]),
        (&before["key"], &before["id"]),
        "the same agent, by the same key"
    );
    assert!(after["certificate_expires_ms"].as_i64() >= before["certificate_expires_ms"].as_i64());
    assert!(daemon.audited("agent.certificate").len() >= 2, "each certificate is in the audit");
}
