//! What is desired of this agent: the daemon's document, judged, and kept on the disk.
//!
//! Owns what a well-formed document is, and its file. Keys in it are zeroized and never shown.

use super::logs::LogKek;
use crate::managed::home::Home;
use crate::pace;
use crypto_simd::blake3;
use jiff::tz::TimeZone;
use prost::Message as _;
use sealift_api::agent as wire;
use sealift_envelope::limits::ENVELOPE_WRAPS_MAX;
use sealift_envelope::{Fingerprint, PublicKek};
use sealift_net::{Cipher, Transport};
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::keys::{KEY_BYTES, RoSecret, RwSeed, VerifyKey};
use sealift_proto::limits::DATA_CONNECTIONS_MAX;
use sealift_proto::rate::{BothWays, Entry, MinuteOfDay, RATE_MIN, Rate, Timetable, Weekday};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::num::NonZeroU16;
use zeroize::{Zeroize as _, Zeroizing};

/// Assignments in a document.
pub(crate) const ASSIGNMENTS_MAX: usize = 1024;
/// Bytes of a document, as it is sent and kept.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// Where a daemon takes logs, if it doesn't say otherwise.
const LOGS_PORT: u16 = 8445;

/// The first line of the file.
const TITLE: &[u8] = b"sealift agent document 1\n";

/// One run of one job: what an assignment and its status are called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunKey {
    pub(crate) job: [u8; 16],
    pub(crate) run: [u8; 16],
}

/// A document that makes sense as a whole.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    pub(crate) number: u64,
    pub(crate) incarnation: Vec<u8>,
    pub(crate) tasks: Vec<Task>,
    /// Where the daemon takes logs, on its host.
    pub(crate) logs_port: u16,
    /// Where its tracker is, on its host.
    pub(crate) tracker_port: Option<NonZeroU16>,
    /// What is logged is sealed to it.
    pub(crate) logs_kek: Option<LogKek>,
}

/// What an assignment asks for.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) key: RunKey,
    pub(crate) job_name: String,
    pub(crate) wish: Wish,
    /// The rest, or why it makes no sense.
    pub(crate) work: Result<Work, String>,
}

/// What is to become of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    Pause,
    Stop,
}

/// Who does what with which path.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) part: Part,
    pub(crate) path: Vec<u8>,
    pub(crate) epoch: u32,
    pub(crate) hash: HashAlgorithm,
    pub(crate) cipher: Cipher,
    pub(crate) transport: Transport,
    pub(crate) delete: bool,
    /// How fast; changed while it runs.
    pub(crate) limit: Option<Rate>,
    /// The same by the time of day.
    pub(crate) rates: Option<Rates>,
    /// `None`: the default.
    pub(crate) connections: Option<usize>,
    /// Whether what leaves the source is ciphertext.
    pub(crate) sealed: bool,
}

/// The public half of a key that a source seals to.
pub(crate) struct Kek {
    pub(crate) version: u32,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) pem: String,
}

/// How fast by the time of day.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    pub(crate) timetable: Timetable,
    /// Whose time of day; none, if this host does not know the zone of this name.
    pub(crate) zone: Option<TimeZone>,
    pub(crate) zone_name: String,
}

/// The part of this agent, and its keys.
pub(crate) enum Part {
    /// With the keys that it seals to, if the job is sealed.
    Source {
        seed: Zeroizing<[u8; KEY_BYTES]>,
        keks: Vec<Kek>,
    },
    Destination {
        secret: Zeroizing<[u8; KEY_BYTES]>,
        verify: Box<VerifyKey>,
        sources: Vec<String>,
    },
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source { .. } => "Source",
            Self::Destination { .. } => "Destination",
        })
    }
}

/// Why a document is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Nonsense {
    #[error("the daemon's document has an id that is none")]
    Id,
    #[error("the daemon's document names one run twice")]
    Twice,
    #[error("the daemon's document is too large")]
    TooLarge,
    #[error("the daemon's document has a KEK for logs that is none")]
    Kek,
}

/// A document and the bytes that are kept of it.
pub(crate) struct Received {
    pub(crate) desired: Desired,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

/// Judges a document. Its keys are zeroized, whatever comes of it.
pub(crate) fn receive(mut document: wire::Document) -> Result<Received, Nonsense> {
    let received = read(&document);
    wipe(&mut document);
    received
}

fn read(document: &wire::Document) -> Result<Received, Nonsense> {
    let too_large = document.encoded_len() > DOCUMENT_BYTES_MAX;
    if too_large || document.assignments.len() > ASSIGNMENTS_MAX {
        return Err(Nonsense::TooLarge);
    }
    if document.incarnation.len() != 16 {
        return Err(Nonsense::Id);
    }
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::with_capacity(document.assignments.len());
    for assignment in &document.assignments {
        let id = |bytes: &Vec<u8>| <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| Nonsense::Id);
        let key = RunKey { job: id(&assignment.job_id)?, run: id(&assignment.run_id)? };
        if !seen.insert(key) {
            return Err(Nonsense::Twice);
        }
        let wish = wish(assignment.action());
        let work = work(assignment, document.must_seal).and_then(|work| match wish {
            Some(_) => Ok(work),
            None => Err("this agent does not know what is to be done: is it older than the daemon?".into()),
        });
        let job_name = assignment.job_name.chars().take(128).collect();
        tasks.push(Task { key, job_name, wish: wish.unwrap_or(Wish::Run), work });
    }
    // Of the right size at once, so that no copy is left where it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(document.encoded_len()));
    document.encode(&mut *bytes).map_err(|_| Nonsense::TooLarge)?;
    // One that is no port is as none.
    let logs_port = match u16::try_from(document.logs_port) {
        Ok(0) | Err(_) => LOGS_PORT,
        Ok(port) => port,
    };
    let tracker_port = u16::try_from(document.tracker_port).ok().and_then(NonZeroU16::new);
    // Rather no new document than logs that are not sealed.
    let logs_kek = document.logs_kek.as_ref();
    let logs_kek = logs_kek.map(|kek| LogKek::read(kek).ok_or(Nonsense::Kek)).transpose()?;
    let (number, incarnation) = (document.number, document.incarnation.clone());
    let desired = Desired { number, incarnation, tasks, logs_port, tracker_port, logs_kek };
    Ok(Received { desired, bytes })
}

fn wish(action: wire::assignment::Action) -> Option<Wish> {
    match action {
        wire::assignment::Action::Run => Some(Wish::Run),
        wire::assignment::Action::Pause => Some(Wish::Pause),
        wire::assignment::Action::Stop => Some(Wish::Stop),
        wire::assignment::Action::Unspecified => None,
    }
}

/// The keys that a source seals to: at least one, if its job is sealed.
fn keks(assignment: &wire::Assignment) -> Result<Vec<Kek>, String> {
    if !assignment.sealed {
        return Ok(Vec::new());
    }
    if !(1..=ENVELOPE_WRAPS_MAX).contains(&assignment.keks.len()) {
        return Err("it is sealed, and the keys that it is sealed to are missing or too many".into());
    }
    let one = |kek: &wire::Kek| {
        let public = PublicKek::from_pem(&kek.public_pem).map_err(|error| error.to_string())?;
        let fingerprint = public.fingerprint();
        if fingerprint.0 != *kek.fingerprint {
            return Err("a key that it is sealed to is not the one that is named".to_owned());
        }
        Ok(Kek { version: kek.version, fingerprint, pem: public.to_pem() })
    };
    assignment.keks.iter().map(one).collect()
}

fn work(assignment: &wire::Assignment, must_seal: bool) -> Result<Work, String> {
    let secret = |bytes: &[u8], what: &str| {
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| format!("its {what} is not one"))?;
        Ok::<_, String>(Zeroizing::new(bytes))
    };
    let part = match assignment.role() {
        wire::assignment::Role::Source => {
            let seed = secret(&assignment.read_write_seed, "read-write seed")?;
            Part::Source { seed, keks: keks(assignment)? }
        }
        wire::assignment::Role::Destination => {
            if must_seal && !assignment.sealed {
                return Err("no plaintext may be placed on this host, and the job is not sealed".into());
            }
            let verify = secret(&assignment.verify_key, "verify key")?;
            let verify = VerifyKey::from_bytes(&verify).map_err(|_| "its verify key is not one")?;
            let secret = secret(&assignment.read_only_secret, "read-only secret")?;
            // What is called sealed has to be: with any other secret a session might give plaintext.
            if assignment.sealed && *secret != *RoSecret::of_keepers(&verify).as_bytes() {
                return Err("it is said to be sealed, and its secret is not a keeper's".into());
            }
            Part::Destination {
                secret,
                verify: Box::new(verify),
                sources: assignment.source_addresses.clone(),
            }
        }
        wire::assignment::Role::Unspecified => {
            return Err("this agent does not know its part: is it older than the daemon?".into());
        }
    };
    let settings = assignment.settings.unwrap_or_default();
    let connections = usize::try_from(settings.connections).unwrap_or(usize::MAX);
    Ok(Work {
        part,
        path: assignment.path.clone(),
        epoch: assignment.epoch,
        hash: match settings.hash() {
            wire::settings::Hash::Blake3 => HashAlgorithm::Blake3,
            wire::settings::Hash::Sha256 | wire::settings::Hash::Unspecified => HashAlgorithm::Sha256,
        },
        cipher: match settings.cipher() {
            wire::settings::Cipher::Aes128Gcm => Cipher::Aes128Gcm,
            wire::settings::Cipher::Aes256Gcm | wire::settings::Cipher::Unspecified => Cipher::Aes256Gcm,
        },
        transport: match settings.transport() {
            wire::settings::Transport::Tcp => Transport::Tcp,
            wire::settings::Transport::Quic => Transport::Quic,
            wire::settings::Transport::Unspecified => Transport::Auto,
        },
        delete: settings.delete,
        limit: limit(settings.bytes_per_second),
        rates: assignment.rate_schedule.as_ref().map(rates).transpose()?,
        connections: (connections > 0).then(|| connections.min(DATA_CONNECTIONS_MAX)),
        sealed: assignment.sealed,
    })
}

/// Too little to be a limit is the least that there is: not to heed it would be worse.
fn limit(bytes_per_second: u64) -> Option<Rate> {
    (bytes_per_second > 0).then(|| Rate::new(bytes_per_second.max(RATE_MIN)).ok()).flatten()
}

fn rates(schedule: &wire::RateSchedule) -> Result<Rates, String> {
    let wrong = || "its schedule of rates makes no sense: is this agent older than the daemon?".to_owned();
    let entry = |entry: &wire::RateEntry| {
        let day = match usize::try_from(entry.day).map_err(|_| wrong())?.checked_sub(1) {
            None => None,
            Some(index) => Some(*Weekday::ALL.get(index).ok_or_else(wrong)?),
        };
        let from = u16::try_from(entry.minute).ok().and_then(MinuteOfDay::new).ok_or_else(wrong)?;
        Ok(Entry { day, from, limits: BothWays::each(limit(entry.bytes_per_second)) })
    };
    let entries = schedule.entries.iter().map(entry).collect::<Result<_, String>>()?;
    let timetable = Timetable::new(entries).map_err(|_| wrong())?;
    // A host without the database of zones still knows this one.
    let zone = match schedule.time_zone.as_str() {
        "UTC" => Some(TimeZone::UTC),
        name => TimeZone::get(name).ok(),
    };
    let zone_name = schedule.time_zone.chars().take(64).collect();
    Ok(Rates { timetable, zone, zone_name })
}

impl Rates {
    /// What holds now. By a clock that is not known here, what is allowed at all times.
    pub(crate) fn now(&self) -> BothWays {
        self.zone.as_ref().map_or_else(|| self.timetable.lowest(), |zone| self.timetable.at(pace::now(zone)))
    }
}

impl Work {
    /// How fast it may be now, as far as the job goes.
    pub(crate) fn pace(&self) -> BothWays {
        let rates = self.rates.as_ref().map_or_else(BothWays::default, Rates::now);
        rates.lower(BothWays::each(self.limit))
    }

    /// Tells whether a run that was begun for other work is still the same: everything but where a source is reached,
    /// how fast it is to be and to which keys it is sealed, and no secret.
    pub(crate) fn spec(&self) -> [u8; 32] {
        let mut said = Vec::with_capacity(128 + self.path.len());
        let (part, verify) = match &self.part {
            Part::Source { seed, .. } => (0, RwSeed::new(seed).verify_key()),
            Part::Destination { verify, .. } => (1, VerifyKey::clone(verify)),
        };
        said.extend_from_slice(&[part, self.hash.code(), u8::from(self.cipher == Cipher::Aes128Gcm)]);
        said.extend_from_slice(&[u8::from(self.delete)]);
        said.extend_from_slice(&u64::try_from(self.connections.unwrap_or(0)).unwrap_or(0).to_le_bytes());
        said.extend_from_slice(&self.epoch.to_le_bytes());
        said.extend_from_slice(verify.as_bytes());
        said.extend_from_slice(&self.path);
        // Runs that began before there was a choice are those of the default.
        if self.transport != Transport::Auto {
            said.push(0);
            said.extend_from_slice(self.transport.name().as_bytes());
        }
        // To what keys is not said: a run goes on when one is rotated, and the next wraps anew.
        if self.sealed {
            said.extend_from_slice(b"\0sealed");
        }
        blake3::hash(&said)
    }
}

fn wipe(document: &mut wire::Document) {
    for assignment in &mut document.assignments {
        assignment.read_write_seed.zeroize();
        assignment.read_only_secret.zeroize();
    }
}

/// Keeps a document. Durable when this returns; whatever happens, the file has the old one or the new.
pub(crate) fn keep(home: &Home, received: &Received) -> io::Result<()> {
    let mut content = Zeroizing::new(Vec::with_capacity(TITLE.len() + 32 + received.bytes.len()));
    content.extend_from_slice(TITLE);
    content.extend_from_slice(&blake3::hash(&received.bytes));
    content.extend_from_slice(&received.bytes);
    home.write("document", &content)
}

/// The document that was kept, if any was.
pub(crate) fn load(home: &Home) -> io::Result<Option<Desired>> {
    let Some(content) = home.read("document")? else { return Ok(None) };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the document is damaged");
    let rest = content.strip_prefix(TITLE).ok_or_else(damaged)?;
    let (check, bytes) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
    if blake3::hash(bytes) != *check {
        return Err(damaged());
    }
    let document = wire::Document::decode(bytes).map_err(|_| damaged())?;
    receive(document).map(|received| Some(received.desired)).map_err(|_| damaged())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A source's or a destination's assignment that is in order.
    pub(crate) fn assignment(job: u8, run: u8, source: bool, path: &str) -> wire::Assignment {
        let seed = RwSeed::new(&[7; 32]);
        let mut assignment = wire::Assignment {
            job_id: vec![job; 16],
            job_name: "models".into(),
            run_id: vec![run; 16],
            path: path.into(),
            epoch: 1,
            settings: Some(wire::Settings::default()),
            ..wire::Assignment::default()
        };
        assignment.set_action(wire::assignment::Action::Run);
        if source {
            assignment.set_role(wire::assignment::Role::Source);
            assignment.read_write_seed = vec![7; 32];
        } else {
            assignment.set_role(wire::assignment::Role::Destination);
            assignment.read_only_secret = seed.ro_secret().as_bytes().to_vec();
            assignment.verify_key = seed.verify_key().as_bytes().to_vec();
            assignment.source_addresses = vec!["127.0.0.1:1".into()];
        }
        assignment
    }

    /// Of `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`.
    const PUBLIC_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA879Mv7FFLpDvChucUrUB
pn7+hp76g6MRYZRWZIu/C2Bpyu7D0H7ByT/f6KN8mR2i66n6d20TCopDwBxBLlKH
Cmw63mZfTtw8sTEOdUZqL5ynEmB6Z31t7TUX836V0KVLaAL3BjG2unfLdUCBuAsN
bm8f8E3eoxVDEulf2ozutw5bHXLYUc4nqNDetbtalyo2Ws7t/3DSN+U74Bv5i4QI
DNDDdzbluh0eLdLllDBPs6Fu4evl129ODmhKgLC+KncZgL++2KSOkm+EPEYALiwY
GlJoeIxJxVIrhEO1KJb+AQ9IhfpKwt+I+LKfg96xr6CgU1ifxu032sOdJlLURUMU
fwIDAQAB
-----END PUBLIC KEY-----
";

    pub(crate) fn document(number: u64, assignments: Vec<wire::Assignment>) -> wire::Document {
        wire::Document {
            number,
            incarnation: vec![9; 16],
            assignments,
            logs_port: 0,
            tracker_port: 0,
            must_seal: false,
            logs_kek: None,
        }
    }

    fn home(dir: &tempfile::TempDir) -> Home {
        Home::open(Some(dir.path().to_owned())).unwrap()
    }

    #[test]
    fn what_was_kept_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(&dir);
        assert!(load(&home).unwrap().is_none());
        let assignments = vec![assignment(1, 1, true, "/a"), assignment(2, 1, false, "/b")];
        keep(&home, &receive(document(7, assignments)).unwrap()).unwrap();
        let desired = load(&home).unwrap().unwrap();
        assert_eq!((desired.number, desired.tasks.len()), (7, 2));
        assert!(matches!(desired.tasks[1].work.as_ref().unwrap().part, Part::Destination { .. }));
        let shown = format!("{desired:?}");
        assert!(!shown.contains("7, 7, 7"), "no keys: {shown}");
    }

    #[test]
    fn a_writer_that_was_killed_before_the_rename_leaves_the_old_document() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(&dir);
        keep(&home, &receive(document(7, vec![])).unwrap()).unwrap();
        std::fs::write(home.path("document.new"), b"half of").unwrap();
        assert_eq!(load(&home).unwrap().unwrap().number, 7);
        keep(&home, &receive(document(8, vec![])).unwrap()).unwrap();
        assert_eq!(load(&home).unwrap().unwrap().number, 8);
        assert!(!home.path("document.new").exists());
    }

    #[test]
    fn a_damaged_document_is_told_and_not_applied() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(&dir);
        keep(&home, &receive(document(7, vec![assignment(1, 1, true, "/a")])).unwrap()).unwrap();
        let whole = std::fs::read(home.path("document")).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(home.path("document"), &damaged).unwrap();
            assert_eq!(load(&home).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
    }

    #[test]
    fn nonsense_of_one_assignment_is_its_own_and_of_ids_the_documents() {
        let mut wrong = assignment(1, 1, true, "/a");
        wrong.read_write_seed.pop();
        let right = assignment(2, 1, true, "/a");
        let desired = receive(document(1, vec![wrong, right])).unwrap().desired;
        assert!(desired.tasks[0].work.is_err() && desired.tasks[1].work.is_ok());

        let refused = |assignments| receive(document(1, assignments)).err();
        let mut nameless = assignment(1, 1, true, "/a");
        nameless.run_id.clear();
        assert_eq!(refused(vec![nameless]), Some(Nonsense::Id));
        let twice = vec![assignment(1, 1, true, "/a"), assignment(1, 1, false, "/b")];
        assert_eq!(refused(twice), Some(Nonsense::Twice));
        let many = (0..=ASSIGNMENTS_MAX).map(|_| assignment(1, 1, true, "/a")).collect();
        assert_eq!(refused(many), Some(Nonsense::TooLarge));
    }

    #[test]
    fn what_must_be_sealed_is_refused_otherwise_and_what_is_called_sealed_has_to_be() {
        let refused = |assignment: &wire::Assignment, must_seal| work(assignment, must_seal).err();
        let mut dest = assignment(1, 1, false, "/a");
        assert_eq!(refused(&dest, false), None);
        assert!(refused(&dest, true).unwrap().contains("no plaintext"));
        dest.sealed = true;
        assert!(refused(&dest, true).unwrap().contains("not a keeper's"), "its secret opens plaintext");
        let verify = VerifyKey::from_bytes(dest.verify_key.as_slice().try_into().unwrap()).unwrap();
        dest.read_only_secret = RoSecret::of_keepers(&verify).as_bytes().to_vec();
        assert_eq!(refused(&dest, true), None);
        // A source has plaintext anyhow; sealed, it needs keys.
        let mut source = assignment(1, 1, true, "/a");
        assert_eq!(refused(&source, true), None);
        let plain = work(&source, false).unwrap().spec();
        source.sealed = true;
        assert!(refused(&source, false).unwrap().contains("keys that it is sealed to"));
        source.keks.push(wire::Kek { public_pem: "none".into(), ..wire::Kek::default() });
        assert!(refused(&source, false).unwrap().contains("no public key"));
        source.keks[0].public_pem = PUBLIC_PEM.into();
        assert!(refused(&source, false).unwrap().contains("not the one that is named"));
        source.keks[0].fingerprint = PublicKek::from_pem(PUBLIC_PEM).unwrap().fingerprint().0.to_vec();
        let sealed = work(&source, false).unwrap().spec();
        assert_ne!(plain, sealed);
        source.keks[0].version = 2;
        assert_eq!(work(&source, false).unwrap().spec(), sealed, "a rotation begins nothing anew");
    }

    #[test]
    fn schedules_of_rates_are_understood_and_of_two_limits_the_lower_holds() {
        let mut assignment = assignment(1, 1, false, "/a");
        let of = |day, minute, bytes_per_second| wire::RateEntry { day, minute, bytes_per_second };
        let schedule = |zone: &str, entries| Some(wire::RateSchedule { time_zone: zone.into(), entries });
        let pace = |assignment: &wire::Assignment| work(assignment, false).map(|work| work.pace());
        let each = |rate| Ok(BothWays::each(Rate::new(rate).ok()));
        let before = work(&assignment, false).unwrap().spec();
        assignment.rate_schedule = schedule("UTC", vec![of(0, 0, 20_000)]);
        assert_eq!(pace(&assignment), each(20_000));
        assert_eq!(work(&assignment, false).unwrap().spec(), before, "a run is not begun anew for it");
        assignment.settings.as_mut().unwrap().bytes_per_second = 10_000;
        assert_eq!(pace(&assignment), each(10_000));
        assignment.rate_schedule = schedule("UTC", vec![of(0, 0, 9000)]);
        assert_eq!(pace(&assignment), each(9000));
        // Where the zone is not known nobody can tell what time it is there.
        assignment.rate_schedule = schedule("Nowhere/City", vec![of(0, 0, 0), of(7, 1439, 8500)]);
        assert_eq!(pace(&assignment), each(8500));
        for wrong in [vec![], vec![of(8, 0, 0)], vec![of(0, 1440, 0)], vec![of(1, 1, 0), of(1, 1, 9000)]] {
            assignment.rate_schedule = schedule("UTC", wrong);
            assert!(work(&assignment, false).unwrap_err().contains("makes no sense"));
        }
    }

    #[test]
    fn another_path_is_other_work_and_another_address_is_not() {
        let spec = |assignment: &wire::Assignment| work(assignment, false).unwrap().spec();
        let mut assignment = assignment(1, 1, false, "/a");
        let was = spec(&assignment);
        assignment.source_addresses.clear();
        assert_eq!(spec(&assignment), was);
        assignment.path = b"/b".to_vec();
        assert_ne!(spec(&assignment), was);
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let home = home(&dir);
            let framed = [TITLE, &blake3::hash(&content), &content].concat();
            for bytes in [&content, &framed] {
                std::fs::write(home.path("document"), bytes).unwrap();
                let _ = load(&home);
            }
        }
    }
}
