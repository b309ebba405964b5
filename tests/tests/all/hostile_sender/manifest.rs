//! Segments that are signed with the right key and say what may not be said, and segments that are not signed right
//! (A1, A3, A5, A6, A8, A9, A11, A12; the lengths and counts of A10).

use super::{job, refused, refused_with, sender_of};
use sealift_proto::limits::{FILE_BYTES_MAX, MANIFEST_OPEN_FILES_MAX};
use sealift_tests::hostile::forge::{Draft, TIME, record, sha256};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::talk::raw_frame;
use sealift_tests::hostile::{HostileSender, Job, Scene, Talk};
use std::time::Duration;

const META: (u16, (i64, u32)) = (0o644, TIME);

/// Lets each case be the second half of a segment whose first half is right, and checks what is said of it.
fn each_refused<'c>(cases: impl IntoIterator<Item = (&'c str, Vec<Vec<u8>>, &'c str)>) {
    for (case, bad, why) in cases {
        let (job, mut forger) = job();
        let mut records = vec![
            record::directory(0, b"a", 0o755, TIME),
            record::small_file(1, b"a/f", META, 3, sha256(b"abc")),
            record::symlink(2, b"a/s", b"f"),
        ];
        records.extend(bad);
        let outcome = refused(case, &job, vec![forger.segment(&records)]);
        let message = outcome.message();
        assert!(message.contains(why), "{case}: {message}");
        assert!(message.contains("segment 0"), "{case}: the offender is named: {message}");
    }
}

fn deep(levels: usize) -> Vec<u8> {
    vec!["d"; levels].join("/").into_bytes()
}

fn long(bytes: usize) -> Vec<u8> {
    let mut path = vec![b'p'; bytes];
    path.iter_mut().skip(200).step_by(200).for_each(|byte| *byte = b'/');
    path
}

#[test]
fn a1_every_form_of_a_bad_path_is_refused_and_nothing_is_touched() {
    let bad: [(&[u8], &str); 17] = [
        (b"..", "'.' or '..'"),
        (b"../outside/evil", "'.' or '..'"),
        (b"a/../../outside/evil", "'.' or '..'"),
        (b"a/..", "'.' or '..'"),
        (b".", "'.' or '..'"),
        (b"./a2", "'.' or '..'"),
        (b"a/.", "'.' or '..'"),
        (b"/", "absolute"),
        (b"/etc/cron.d/evil", "absolute"),
        (b"", "empty"),
        (b"a//b", "empty component"),
        (b"a/", "empty component"),
        (b"a\0b", "NUL"),
        (b"a/\0", "NUL"),
        (&[b'x'; 256], "longer than 255 bytes"),
        (&long(4097), "longer than 4096 bytes"),
        (&deep(257), "deeper than 256 levels"),
    ];
    let names: Vec<String> = bad.iter().map(|(path, _)| path.escape_ascii().to_string()).collect();
    each_refused(bad.iter().zip(&names).enumerate().map(|(at, ((path, why), name))| {
        // Every kind of entry meets some of them.
        let entry = match at % 4 {
            0 => record::small_file(3, path, META, 3, sha256(b"abc")),
            1 => record::directory(3, path, 0o755, TIME),
            2 => record::symlink(3, path, b"f"),
            _ => record::file(3, path, 0o644, 100_000, 15),
        };
        (name.as_str(), vec![entry], *why)
    }));
    let evil = b"../outside/evil";
    each_refused([
        ("a hard link's name", vec![record::hardlink(3, evil, b"a/f")], "'.' or '..'"),
        ("a hard link's target", vec![record::hardlink(3, b"h", b"../outside/secret")], "'.' or '..'"),
        ("what is withdrawn", vec![record::withdrawn(1, evil, 3)], "'.' or '..'"),
    ]);
}

#[test]
fn a1_the_refusal_names_the_path() {
    let (job, mut forger) = job();
    let bad = record::small_file(0, b"../outside/\x1b[2Jevil", META, 3, sha256(b"abc"));
    let outcome = refused("named", &job, vec![forger.segment(&[bad])]);
    let message = outcome.message();
    assert!(message.contains("../outside/\\x1b[2Jevil"), "the offender is named, escaped: {message}");
}

#[test]
fn a3_two_entries_for_one_path_or_a_file_that_is_a_parent_are_refused() {
    let file = |id, path: &[u8]| record::small_file(id, path, META, 3, sha256(b"abc"));
    let two = "two entries have one path: a/f";
    let beneath = "beneath what is no directory of this manifest: ";
    each_refused([
        ("two files", vec![file(3, b"a/f")], two),
        ("a directory over a file", vec![record::directory(3, b"a/f", 0o755, TIME)], two),
        ("a link over a file", vec![record::symlink(3, b"a/f", b"/etc")], two),
        ("a hard link over its own target", vec![record::hardlink(3, b"a/f", b"a/f")], two),
        ("a file beneath a file", vec![file(3, b"a/f/x")], beneath),
        ("a file beneath a link", vec![file(3, b"a/s/x")], beneath),
        ("a directory beneath nothing", vec![record::directory(3, b"no/x", 0o755, TIME)], beneath),
        ("a number that was left out", vec![file(4, b"x")], "not numbered in order: x"),
        ("a number that was used", vec![file(1, b"x")], "not numbered in order: x"),
    ]);
    let (job, mut forger) = job();
    let first = forger.segment(&[record::directory(0, b"a", 0o755, TIME)]);
    let second = forger.segment(&[record::symlink(1, b"a", b"../outside")]);
    refused_with("across segments", &job, vec![first, second], &[b"a"]);
}

#[test]
fn a4_an_entry_beneath_a_link_is_refused() {
    let (job, mut forger) = job();
    let link = record::symlink(0, b"out", b"../outside");
    let evil = record::small_file(1, b"out/evil", META, 3, sha256(b"abc"));
    refused("in one segment", &job, vec![forger.clone().segment(&[&link, &evil])]);
    let first = forger.segment(&[link]);
    let second = forger.segment(&[evil]);
    refused_with("in two", &job, vec![first, second], &[b"out"]);
}

#[test]
fn a5_a_hard_link_to_what_is_outside_or_unknown_is_refused() {
    let no_file = "a hard link to what is no file of this manifest: h";
    each_refused([
        ("unknown", vec![record::hardlink(3, b"h", b"mine")], no_file),
        ("a directory", vec![record::hardlink(3, b"h", b"a")], no_file),
        ("a symbolic link", vec![record::hardlink(3, b"h", b"a/s")], no_file),
        ("itself", vec![record::hardlink(3, b"h", b"h")], no_file),
        ("withdrawn", vec![record::withdrawn(1, b"a/f", 3), record::hardlink(3, b"h", b"a/f")], no_file),
        ("outside", vec![record::hardlink(3, b"h", b"../outside/secret")], "'.' or '..'"),
        ("absolute", vec![record::hardlink(3, b"h", b"/etc/shadow")], "absolute"),
    ]);
}

#[test]
fn a6_there_is_no_record_for_devices_and_unknown_records_are_refused() {
    let kinds = [0, 14, 15, 127, 255];
    let names = kinds.map(|kind| format!("unknown record kind {kind}"));
    each_refused(
        kinds
            .iter()
            .zip(&names)
            .map(|(&kind, name)| (name.as_str(), vec![record::unknown(kind, 3, b"device")], name.as_str())),
    );
}

#[test]
fn a8_our_own_names_are_refused_wherever_they_stand() {
    let reserved = "the reserved name '.sealift'";
    each_refused([
        ("a directory", vec![record::directory(3, b".sealift", 0o755, TIME)], reserved),
        ("a link", vec![record::symlink(3, b".sealift", b"../outside")], reserved),
        ("within", vec![record::small_file(3, b".sealift/lock", META, 0, sha256(b""))], reserved),
        ("deeper", vec![record::directory(3, b"a/.sealift", 0o755, TIME)], reserved),
        ("in between", vec![record::file(3, b"a/.sealift/x", 0o644, 1, 15)], reserved),
        ("a target", vec![record::hardlink(3, b"h", b".sealift/lock")], reserved),
    ]);
}

#[test]
fn a9_numbers_out_of_range_are_refused() {
    let file = |size, log2| vec![record::file(3, b"x", 0o644, size, log2)];
    let small = |mode, mtime, size| vec![record::small_file(3, b"x", (mode, mtime), size, sha256(b"abc"))];
    each_refused([
        ("a size of 2^63", file(1 << 63, 24), "a file size is out of range"),
        ("the largest size", file(u64::MAX, 24), "a file size is out of range"),
        ("one byte too many", file(FILE_BYTES_MAX + 1, 24), "a file size is out of range"),
        ("too many blocks", file(1 << 40, 15), "a file size is out of range"),
        ("blocks too small", file(1, 14), "a block size is out of range"),
        ("blocks too large", file(1, 25), "a block size is out of range"),
        ("blocks of 2^255", file(1, 255), "a block size is out of range"),
        ("a small file too large", small(0o644, TIME, 32_769), "a small file's size is out of range"),
        ("a small file of 4 GiB", small(0o644, TIME, u32::MAX), "a small file's size is out of range"),
        ("a late mtime", small(0o644, (i64::MAX, 0), 3), "a modification time is out of range"),
        ("an early mtime", small(0o644, (i64::MIN, 0), 3), "a modification time is out of range"),
        ("too many nanoseconds", small(0o644, (0, 1_000_000_000), 3), "a modification time is out of range"),
        ("a mode with a file type", small(0o10_644, TIME, 3), "a mode is out of range"),
        ("no mode of a root", vec![record::root(0xffff, TIME)], "a mode is out of range"),
        ("a false hash of nothing", small(0o644, TIME, 0), "not that of nothing: x"),
    ]);
}

#[test]
fn a9_hashes_and_holes_that_do_not_fit_their_file_are_refused() {
    // 100,000 bytes are 4 blocks of 32 KiB.
    let with = |records: Vec<Vec<u8>>| {
        let mut all = vec![record::file(3, b"x", 0o644, 100_000, 15)];
        all.extend(records);
        all
    };
    let hashes = |first, count: usize| record::hashes(3, first, &vec![[1; 32]; count]);
    let (order, overlap) = ("hashes out of order or beyond the end", "holes overlap or leave the file");
    let holes = |holes: &[(u64, u64)]| with(vec![record::holes(3, holes)]);
    each_refused([
        ("past the end", with(vec![hashes(0, 5)]), order),
        ("overlapping", with(vec![hashes(0, 2), hashes(1, 2)]), order),
        ("with a gap", with(vec![hashes(0, 1), hashes(2, 1)]), order),
        ("twice", with(vec![hashes(0, 4), hashes(0, 4)]), order),
        ("an index that overflows", with(vec![hashes(u32::MAX, 2)]), order),
        ("sealed too soon", with(vec![hashes(0, 3), record::sealed(3, [0; 32])]), "before all its hashes"),
        ("hashes of no file", vec![record::hashes(9, 0, &[[1; 32]])], "a file that is not open"),
        ("hashes of a small file", vec![record::hashes(1, 0, &[[1; 32]])], "a file that is not open"),
        ("a seal of no file", vec![record::sealed(9, [0; 32])], "a file that is not open"),
        ("a hole that overflows", holes(&[(u64::MAX, 2)]), "a hole is out of range"),
        ("a hole of nothing", holes(&[(0, 0)]), "a hole is out of range"),
        ("a hole past the end", holes(&[(90_000, 20_000)]), overlap),
        ("holes that overlap", holes(&[(0, 50_000), (40_000, 10)]), overlap),
        ("holes after hashes", with(vec![hashes(0, 1), record::holes(3, &[(0, 1)])]), "holes after hashes"),
        ("an end that miscounts", vec![record::end(4)], "the end does not agree"),
        ("an end with an open file", with(vec![record::end(4)]), "the end does not agree"),
    ]);
}

#[test]
fn a10_lengths_and_counts_that_nothing_backs_are_refused() {
    let holes = {
        let mut claimed = record::holes(3, &[(0, 1)]);
        claimed[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
        claimed
    };
    let mut cut = record::small_file(3, b"x", META, 3, sha256(b"abc"));
    cut.truncate(20);
    each_refused([
        ("hashes", vec![record::hashes_counted(3, 0, u32::MAX, &[])], "a number of hashes is out of range"),
        ("no hashes", vec![record::hashes_counted(3, 0, 0, &[])], "a number of hashes is out of range"),
        ("cut hashes", vec![record::hashes_counted(3, 0, 4096, &[[1; 32]])], "a record is cut off"),
        ("holes", vec![holes], "a number of holes is out of range"),
        ("a record cut off", vec![cut], "a record is cut off"),
        ("a link's target", vec![record::symlink(3, b"l", &[b'x'; 4096])], "a link target"),
        ("an empty link", vec![record::symlink(3, b"l", b"")], "a link target"),
        ("a link with a NUL", vec![record::symlink(3, b"l", b"a\0b")], "a link target"),
        ("a shown path", vec![record::problem(&[b'x'; 4097], 1)], "a path's length"),
        ("an unknown problem", vec![record::problem(b"x", 99)], "a problem"),
        ("an unknown reason", vec![record::withdrawn(1, b"a/f", 0)], "a reason"),
    ]);
    let open: Vec<_> = (0..=MANIFEST_OPEN_FILES_MAX as u64)
        .map(|at| record::file(3 + at, format!("o{at}").as_bytes(), 0o644, FILE_BYTES_MAX, 24))
        .collect();
    each_refused([("files that are begun and not sealed", open, "too many files are begun and not sealed")]);

    let draft = |change: fn(&mut Draft)| {
        let (job, forger) = job();
        let mut draft = forger.draft(&[record::directory(0, b"a", 0o755, TIME)]);
        change(&mut draft);
        (job, forger.sign(&draft))
    };
    for (case, change) in [
        ("4 billion records", (|d| d.records = u32::MAX) as fn(&mut Draft)),
        ("no records", |d| d.records = 0),
        ("a body of 4 GiB", |d| d.body_bytes = u32::MAX),
        ("a body of nothing", |d| d.body_bytes = 0),
    ] {
        let (job, segment) = draft(change);
        refused(case, &job, vec![segment]);
    }
}

#[test]
fn a10_a_segment_frame_of_4_gib_is_refused_by_its_header() {
    for claimed in [u32::MAX, (1 << 20) + 1] {
        let job = Job::random();
        let scene = Scene::new();
        let control = async move |talk: &mut Talk| {
            talk.welcome().await?;
            talk.say_raw(&raw_frame(7, claimed, 0, b"SLSG")).await?;
            talk.until_finished().await
        };
        let sender = HostileSender::start(&job, control, async |talk: &mut Talk| talk.welcome().await);
        let outcome = scene.receive(sender.ticket()).finish().expect(1);
        assert!(outcome.message().contains("is too long"), "{}", outcome.message());
        assert_plain(&outcome);
        scene.assert_dest_holds(&[]);
    }
}

#[test]
fn a10_more_segments_than_there_is_credit_for_are_refused() {
    let (job, mut forger) = job();
    let segments: Vec<_> = (0..200)
        .map(|i| forger.segment(&[record::directory(i, format!("d{i}").as_bytes(), 0o755, TIME)]))
        .collect();
    let scene = Scene::new();
    let control = async move |talk: &mut Talk| {
        talk.welcome().await?;
        for segment in &segments {
            talk.say(sealift_proto::wire::FrameKind::Segment, 0, segment).await?;
        }
        talk.until_finished().await
    };
    let sender = HostileSender::start(&job, control, async |talk: &mut Talk| talk.welcome().await);
    let outcome = scene.receive(sender.ticket()).finish().expect(1);
    assert!(outcome.message().contains("more of the manifest came than was asked for"), "{outcome:#?}");
    scene.assert_outside_untouched();
}

#[test]
fn a11_what_is_not_signed_right_is_refused() {
    let (job, forger) = job();
    let right = forger.draft(&[record::directory(0, b"a", 0o755, TIME)]);
    let signed = forger.sign(&right);
    let flip = |at: usize| {
        let mut segment = signed.clone();
        segment[at] ^= 1;
        segment
    };
    let (_, stranger) = super::job();
    let others_own = stranger.sign(&stranger.draft(&[record::directory(0, b"a", 0o755, TIME)]));
    let ro_key = ed25519_dalek::SigningKey::from_bytes(job.ro().as_bytes());
    let by_ro = right.signed_by(|m| ed25519_dalek::Signer::sign(&ro_key, m).to_bytes());
    let session_key = job.ro().session_key();
    let without_context = {
        let mut segment = right.unsigned();
        let own = ed25519_dalek::SigningKey::from_bytes(job.seed());
        let signature = ed25519_dalek::Signer::sign(&own, &segment).to_bytes();
        segment.extend_from_slice(&signature);
        segment
    };
    let longer = [&signed[..], b"x"].concat();
    let version = forger.sign(&Draft { version: 3, ..right.clone() });
    let algorithm = forger.sign(&Draft { algorithm: 3, ..right.clone() });
    let cases = [
        ("a bit of the body", flip(100), "signature is wrong"),
        ("a bit of the header", flip(80), "signature is wrong"),
        ("a bit of the signature", flip(signed.len() - 1), "signature is wrong"),
        ("no signature", vec![0; 200], "not a segment"),
        ("truncated", signed[..signed.len() - 1].to_vec(), "not a segment"),
        ("cut within the header", signed[..90].to_vec(), "not a segment"),
        ("nothing", Vec::new(), "not a segment"),
        ("too long", longer, "not a segment"),
        ("another job's", others_own, "another job"),
        ("this job's, by another's key", stranger.sign(&right), "signature is wrong"),
        ("by the read-only secret", by_ro, "signature is wrong"),
        ("by the session key", right.signed_by(|m| session_key.sign(m)), "signature is wrong"),
        ("signed for another purpose", without_context, "signature is wrong"),
        ("signed by nothing", right.signed_by(|_| [0; 64]), "signature is wrong"),
        ("a format from the future", version, "segment format 3 is not known"),
        ("a hash from the future", algorithm, "its hash is unknown"),
    ];
    for (case, segment, why) in cases {
        let message = refused(case, &job, vec![segment]).message();
        assert!(message.contains(why), "{case}: {message}");
    }
}

#[test]
fn a11_a_chain_cannot_change_its_epoch_writer_or_hash() {
    for change in
        [(|d| d.epoch = 2) as fn(&mut Draft), |d| d.epoch = 0, |d| d.writer = 1, |d| d.algorithm = 2]
    {
        let (job, mut forger) = job();
        let first = forger.segment(&[record::directory(0, b"a", 0o755, TIME)]);
        let mut draft = forger.draft(&[record::end(1)]);
        change(&mut draft);
        let outcome = refused_with("changed", &job, vec![first, forger.sign(&draft)], &[b"a"]);
        let message = outcome.message();
        assert!(message.contains("segment 1 changes the chain's epoch, writer or hash"), "{message}");
    }
}

#[test]
fn a12_rollbacks_forks_and_gaps_are_told_apart_and_stop_the_job() {
    let (job, mut forger) = job();
    let start = forger.clone();
    let first = forger.segment(&[record::directory(0, b"a", 0o755, TIME)]);
    let second = forger.segment(&[record::directory(1, b"a/b", 0o755, TIME)]);
    let third = forger.segment(&[record::end(2)]);
    let fork = {
        let mut forger = start.clone();
        forger.follow(&first);
        forger.segment(&[record::directory(1, b"a/other", 0o755, TIME)])
    };
    let broken = forger.sign(&Draft {
        sequence: 1,
        previous: [9; 32],
        ..forger.draft(&[record::directory(1, b"a/b", 0o755, TIME)])
    });
    let orphan = start.sign(&Draft { previous: [9; 32], ..start.draft(&[record::end(0)]) });
    let (one, both): (&[&[u8]], &[&[u8]]) = (&[b"a"], &[b"a", b"a/b"]);
    for (case, segments, left, why) in [
        ("the first again", vec![&first, &first], one, "rollback: segment 0 was sent before"),
        ("an older one", vec![&first, &second, &first], both, "rollback: segment 0 was sent before"),
        ("another second", vec![&first, &second, &fork], both, "fork: two different segments are numbered 1"),
        ("one left out", vec![&first, &third], one, "segment 2 came where 1 was due"),
        ("not from the beginning", vec![&second], &[], "segment 1 came where 0 was due"),
        ("another history", vec![&first, &broken], one, "segment 1 does not continue the chain"),
        ("a first with a past", vec![&orphan], &[], "segment 0 does not continue the chain"),
    ] {
        let segments = segments.into_iter().cloned().collect();
        let message = refused_with(case, &job, segments, left).message();
        assert!(message.contains(why), "{case}: {message}");
    }
}

#[test]
fn a12_rollbacks_and_forks_are_seen_after_a_reconnect_too() {
    let (job, mut forger) = job();
    let first = forger.segment(&[record::directory(0, b"a", 0o755, TIME)]);
    let start = forger.clone();
    let second = forger.segment(&[record::directory(1, b"a/b", 0o755, TIME)]);
    let fork = start.clone().segment(&[record::directory(1, b"a/evil", 0o755, TIME)]);
    let forked_end = forger.sign(&Draft { previous: [1; 32], ..forger.draft(&[record::end(2)]) });
    for (case, then, why) in [
        ("rollback", second.clone(), "rollback: segment 1 was sent before"),
        ("fork", fork, "fork: two different segments are numbered 1"),
        ("another history", forked_end, "segment 2 does not continue the chain"),
    ] {
        let before = [first.clone(), second.clone()];
        let control = async move |talk: &mut Talk| {
            talk.welcome().await?;
            if talk.nth == 0 {
                talk.send_segments(&before).await?;
                talk.hang_up().await?;
                talk.hear_out().await;
                return Ok(());
            }
            talk.send_segment(&then).await?;
            talk.until_finished().await
        };
        let scene = Scene::new();
        let sender = HostileSender::start(&job, control, async |talk: &mut Talk| talk.welcome().await);
        let outcome = scene.receive(sender.ticket()).patience(Duration::from_secs(30)).finish().expect(1);
        assert!(outcome.message().contains(why), "{case}: {outcome:#?}");
        scene.assert_outside_untouched();
        scene.assert_dest_holds(&[b"a", b"a/b"]);
    }
}

#[test]
fn a_refusal_reads_well_for_people_too() {
    let (job, mut forger) = job();
    let segment = forger.segment(&[record::symlink(0, b".sealift", b"x")]);
    let sender = sender_of(&job, vec![segment]);
    let scene = Scene::new();
    let dest = scene.dest();
    let run = sealift_tests::process::Run::with(["receive", sender.ticket()]).arg(&dest);
    let outcome = run.finish().expect(1);
    assert_plain(&outcome);
    assert!(outcome.stderr.contains("sealift: the sender cannot be trusted"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains(sender.ticket()), "the ticket is a secret");
    assert_eq!(outcome.stdout, "");
}
