//! A file whose transfer takes long enough for parts of it to be synced, and a disk that loses power meanwhile.

use super::{OF_ALL_CUTS, WITHOUT_HELP, on, receive};
use crate::relay::{Fate, Relay, pause};
use crate::replicate::Place;
use sealift_tests::blockdev::FileSystem;
use sealift_tests::powercut::{LoggedDisk, PoweredOn, Share, Survivors};
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{self, same_content};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const FILE_BYTES: u64 = 32 * MIB;
/// How many images are looked at, unless it is asked for more.
const IMAGES: usize = 12;

/// A line on which the file takes several seconds: what is received is synced and written down once a second.
fn slow_line(to: SocketAddr) -> Relay {
    const PER_PIECE: Duration = Duration::from_millis(4);
    Relay::start(to, |piece| {
        if piece.down {
            pause(PER_PIECE);
        }
        Fate::Pass
    })
}

/// Receives again. How many bytes were moved for that.
fn resume(ticket: &str, src: &Path, disk: PoweredOn<'_>) -> Result<u64, String> {
    let (from, to) = (src.join("large"), disk.path.join("dest/large"));
    if to.exists() && !same_content(&from, &to) {
        return Err("the file is torn".to_owned());
    }
    let outcome = receive(ticket, disk.path).finish();
    if outcome.code != Some(0) {
        return Err(format!("receiving again failed: {outcome:#?}"));
    }
    if !same_content(&from, &to) {
        return Err("the file is wrong after it was received again".to_owned());
    }
    match fs::read_dir(disk.path.join("dest/.sealift/staging")).map_or(0, Iterator::count) {
        0 => Ok(outcome.total("bytes_transferred")),
        staged => Err(format!("{staged} staged files are left")),
    }
}

#[test]
fn b9_what_was_synced_of_an_unfinished_file_is_not_moved_again() {
    on(&[FileSystem::Ext4], |kind| {
        let disk = LoggedDisk::new(kind, 4 * FILE_BYTES, WITHOUT_HELP)?;
        let place = Place::new();
        tree::large_file(&place.src.join("large"), FILE_BYTES, 1);
        let run = Run::send([&place.src]).state_dir(place.dir.path().join("state"));
        let sender = Sender::of(run.patience(OF_ALL_CUTS));
        let relay = slow_line(sender.address());
        let mut process = receive(&sender.ticket_via(relay.address()), disk.path()).start();
        let moves = |event: &Value| event["bytes_transferred"].as_u64() > Some(0);
        let _ = process.wait_until("something was moved", moves);
        let began = disk.position();
        let _ = process.wait_for("done");
        let done = disk.position();
        let _ = process.finish().expect(0);
        drop(relay);
        let recording = disk.finish();

        let cuts = recording.cuts(began..done, Share::asked_for(IMAGES), 5);
        let moved = Mutex::new(Vec::new());
        let checked = recording.check(&cuts, |disk| {
            match resume(&sender.ticket, &place.src, disk) {
                Ok(bytes) => moved.lock().unwrap().push((disk.cut, bytes)),
                Err(found) => return vec![found],
            }
            Vec::new()
        });
        println!("{kind:?}, a file that takes long, received again on each:");
        checked.assert_none();
        let mut moved = moved.into_inner().unwrap();
        moved.sort_by_key(|(cut, _)| cut.at);
        println!(
            "bytes moved again, by where it was cut: {:?}",
            moved.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>()
        );
        // What is there without luck never becomes less.
        let certain: Vec<u64> = moved
            .iter()
            .filter(|(cut, _)| cut.survivors == Survivors::None)
            .map(|(_, bytes)| *bytes)
            .collect();
        assert!(certain.is_sorted_by(|before, after| before >= after), "{certain:?}");
        let unfinished = moved.iter().filter(|(_, bytes)| (1..FILE_BYTES).contains(bytes)).count();
        assert!(unfinished > 0, "nothing of the unfinished file was kept");
        let _ = sender.stop().expect(0);
        Ok(())
    });
}
