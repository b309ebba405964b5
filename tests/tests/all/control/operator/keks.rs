//! KEKs by commands, with keys that `openssl` makes.
#![allow(clippy::unwrap_used)]

use super::Operator;
use sealift_api::agent::daemon_message::Body;
use sealift_api::agent::{Document, Hello};
use sealift_tests::control::{As, Daemon};
use sealift_tests::fleet::Puppet;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const PASSPHRASE: &str = "a passphrase of the kek";

/// Files of keys, made as the documentation says.
pub(super) struct Keys<'d>(pub(super) &'d Path);

impl Keys<'_> {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    fn openssl(&self, words: &str) {
        let done =
            Command::new("openssl").args(words.split(' ')).current_dir(self.0).output().expect("openssl");
        assert!(done.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A pair: `NAME.pem`, encrypted if there is a cipher, and `NAME.pub.pem`.
    pub(super) fn pair(&self, name: &str, bits: u32, cipher: &str) {
        // Twice: of one file, openssl takes the passphrase of what it writes from the second line.
        std::fs::write(self.path("passphrase"), format!("{PASSPHRASE}\n{PASSPHRASE}\n")).unwrap();
        let new = format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{bits} -out {name}.pem");
        self.openssl(&if cipher.is_empty() { new } else { format!("{new} {cipher} -pass file:passphrase") });
        self.openssl(&format!("pkey -in {name}.pem -passin file:passphrase -pubout -out {name}.pub.pem"));
    }

    fn fingerprint(&self, name: &str) -> String {
        self.openssl(&format!("pkey -pubin -in {name}.pub.pem -outform DER -out {name}.der"));
        let hash =
            Command::new("sha256sum").arg(self.path(&format!("{name}.der"))).output().expect("sha256sum");
        String::from_utf8(hash.stdout).expect("text")[..64].to_owned()
    }
}

fn document(puppet: &mut Puppet, what: &str, is_it: impl Fn(&Document) -> bool) -> Document {
    let found = puppet.hear_until(what, |body| match body {
        Body::Document(document) if is_it(&document) => Some(document),
        _ => None,
    });
    puppet.acknowledge(&found);
    found
}

fn puppet(daemon: &Daemon, name: &str) -> Puppet {
    let file = daemon.enrolment_token(name, 1, true);
    let token = std::fs::read_to_string(file).expect("a token");
    let mut puppet = Puppet::enrol(daemon, name, token.trim());
    let Ok(Some(Body::Document(first))) =
        puppet.hello(Hello { version_min: 1, version_max: 1, ..Hello::default() })
    else {
        panic!("a document")
    };
    puppet.acknowledge(&first);
    puppet
}

/// Nothing of a private half or its passphrase is where the daemon keeps what it has.
fn kept_nowhere(daemon: &Daemon, secrets: &[&[u8]]) {
    for entry in std::fs::read_dir(daemon.dir()).expect("the data directory") {
        let path = entry.expect("an entry").path();
        let Ok(content) = std::fs::read(&path) else { continue };
        for secret in secrets {
            assert!(!content.windows(secret.len()).any(|part| part == *secret), "{}", path.display());
        }
    }
}

#[test]
fn keys_of_openssl_are_imported_rotated_and_destroyed_by_commands() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys(dir.path());
    keys.pair("one", 2048, "-aes-256-cbc");
    keys.pair("two", 4096, "");
    keys.openssl(
        "rsa -in one.pem -passin file:passphrase -traditional -aes256 -passout file:passphrase -out old.pem",
    );

    // The daemon may read: with a passphrase, from a file or standard input, and never without.
    let (public, private) = (keys.text("one.pub.pem"), keys.text("one.pem"));
    let import = ["kek", "import", "team", "--public", &public, "--private", &private];
    let wrong = operator.run(&import).arg("--passphrase-stdin").stdin("wrong").finish().expect(2);
    assert!(wrong.stderr.contains("the passphrase is not that of the private key"), "{wrong:#?}");
    let old = keys.text("old.pem");
    let old = ["kek", "import", "team", "--public", &public, "--private", &old];
    let told = operator.fails(&old, 2);
    assert!(told.contains("openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW"), "{told}");
    let other = keys.text("two.pem");
    let told = operator.fails(&["kek", "import", "team", "--public", &public, "--private", &other], 2);
    assert!(told.contains("not the other half"), "{told}");
    let file = keys.text("passphrase");
    let made = operator.run(&import).args(["--passphrase-file", &file, "--json"]).finish().expect(0);
    assert!(made.stderr.contains("Warning: the key has 2048 bits"), "{made:#?}");
    let kek: Value = serde_json::from_str(&made.stdout).expect("JSON");
    assert_eq!(
        (&kek["mode"], &kek["state"], &kek["kek_version"]),
        (&json!("server"), &json!("active"), &json!(1))
    );
    assert_eq!(kek["fingerprint"], keys.fingerprint("one"));

    // Or it may not: then it was never given the private half.
    let public = keys.text("two.pub.pem");
    let made = operator.run(&["kek", "import", "mine", "--public", &public, "--json"]).finish().expect(0);
    assert!(!made.stderr.contains("Warning"), "{made:#?}");
    let kek: Value = serde_json::from_str(&made.stdout).expect("JSON");
    assert_eq!((&kek["mode"], &kek["bits"]), (&json!("end_to_end"), &json!(4096)));
    assert!(operator.fails(&["kek", "import", "again", "--public", &public], 1).contains("as the KEK mine"));
    let shown = operator.does(&["kek", "show", "mine"]);
    assert!(shown.ends_with(&std::fs::read_to_string(&public).unwrap()), "{shown}");
    assert!(operator.does(&["kek", "list"]).contains("end_to_end"));

    // Rotation, and the end of the old key.
    keys.pair("three", 3072, "-aes-256-cbc");
    let (public, private) = (keys.text("three.pub.pem"), keys.text("three.pem"));
    let rotate = ["kek", "rotate", "team", "--public", &public, "--private", &private, "--passphrase-stdin"];
    let _ = operator.run(&rotate).stdin(PASSPHRASE).finish().expect(0);
    let states: Vec<_> = operator.json(&["kek", "list"]).iter().map(|kek| kek["state"].clone()).collect();
    assert_eq!(states, ["active", "decrypt_only", "active"]);
    assert!(operator.fails(&["kek", "destroy", "team@2"], 1).contains("is active"));
    operator.does(&["kek", "disable", "team@1"]);
    operator.does(&["kek", "enable", "team@1"]);
    operator.does(&["kek", "destroy", &keys.fingerprint("one")[..12]]);
    assert!(operator.does(&["kek", "show", "team@1"]).contains("destroyed"));
    for (action, count) in [("kek.import", 2), ("kek.rotate", 1), ("kek.destroy", 1)] {
        assert_eq!(daemon.audited(action).len(), count, "{action}");
    }

    // Who may what.
    let made =
        daemon.api("POST", "tokens", json!({ "name": "v", "role": "viewer", "expires_in_seconds": 600 }));
    let viewer = As::Token(made["secret"].as_str().expect("a secret"));
    assert_eq!(daemon.call(viewer, "GET", "keks", None).status, 200);
    let files = json!({ "public_pem": "" });
    assert_eq!(daemon.call(viewer, "POST", "keks", json!({ "name": "x", "files": files })).status, 403);

    // The first line of the body of a private half, not encrypted, and what it is made of.
    let clear = std::fs::read_to_string(keys.path("two.pem")).unwrap();
    let body = clear.lines().nth(5).expect("a line").as_bytes();
    keys.openssl("pkey -in three.pem -passin file:passphrase -outform DER -out three.private.der");
    let der = std::fs::read(keys.path("three.private.der")).unwrap();
    kept_nowhere(&daemon, &[body, &der[500..540], PASSPHRASE.as_bytes()]);
}

#[test]
fn sealed_jobs_have_public_halves_and_keepers_and_follow_a_rotation() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys(dir.path());
    keys.pair("one", 2048, "");
    keys.pair("two", 2048, "");
    let (mut source, mut keeper) = (puppet(&daemon, "source"), puppet(&daemon, "keeper"));
    operator.does(&["kek", "import", "team", "--public", &keys.text("one.pub.pem")]);

    // A keeper takes no plaintext, and is told so.
    operator.does(&["agent", "set", "keeper", "--must-seal", "yes"]);
    assert!(
        document(&mut keeper, "it takes ciphertext alone", |document| document.must_seal)
            .assignments
            .is_empty()
    );
    let create =
        ["job", "create", "--kind", "distribution", "--from", "source:/data", "--to", "keeper:/data"];
    let refused = operator.fails(&create, 2);
    assert!(refused.contains("the agent keeper takes ciphertext alone"), "{refused}");
    let body = json!({ "name": "x", "spec": { "kind": "distribution", "from": ["source:/d"], "to": ["keeper:/d"] } });
    assert_eq!(daemon.call(As::Administrator, "POST", "jobs", body).status, 422);

    let made = operator.run(&create).args(["--seal-to", "team", "--start", "--json"]).finish().expect(0);
    assert!(made.stdout.contains("\"seal_to\":[\"team\"]"), "{made:#?}");
    let begun = document(&mut source, "it has something to do", |document| !document.assignments.is_empty());
    let part = &begun.assignments[0];
    assert!(part.sealed && part.keks.len() == 1);
    assert_eq!((part.keks[0].name.as_str(), part.keks[0].version), ("team", 1));
    assert_eq!(part.keks[0].public_pem, std::fs::read_to_string(keys.path("one.pub.pem")).unwrap());
    operator.does(&["kek", "rotate", "team", "--public", &keys.text("two.pub.pem")]);
    let rotated =
        document(&mut source, "its KEK is another", |document| document.assignments[0].keks[0].version == 2);
    assert_eq!(rotated.assignments[0].run_id, part.run_id, "the same run");
    let refused = operator.fails(&["kek", "destroy", "team@1"], 1);
    assert!(refused.contains("opens the replicas of 1 jobs"), "{refused}");
    operator.does(&["run", "stop", "data"]);
    operator.does(&["job", "delete", "data"]);
    operator.does(&["kek", "destroy", "team@1"]);

    // By a group too, and only an administrator ends it.
    operator.does(&["agent", "set", "keeper", "--must-seal", "no", "--group", "vault"]);
    operator.does(&["agent", "set-group", "vault", "--must-seal", "yes"]);
    assert!(operator.fails(&create, 2).contains("the agent keeper takes ciphertext alone"));
    let made =
        daemon.api("POST", "tokens", json!({ "name": "o", "role": "operator", "expires_in_seconds": 600 }));
    let token = As::Token(made["secret"].as_str().expect("a secret"));
    let agents = daemon.api("GET", "agents", None);
    let id = agents["items"].as_array().expect("agents").iter().find(|agent| agent["name"] == "keeper");
    let path = format!("agents/{}", id.expect("it is there")["id"].as_str().expect("an id"));
    assert_eq!(daemon.call(token, "PATCH", &path, json!({ "groups": [] })).status, 403);
    assert_eq!(daemon.call(token, "PUT", "groups/vault/policy", json!({ "must_seal": false })).status, 403);
    assert_eq!(daemon.call(token, "PATCH", &path, json!({ "groups": ["other", "vault"] })).status, 200);
    operator.does(&["agent", "set-group", "vault", "--must-seal", "no"]);
    operator.does(&create);
}
