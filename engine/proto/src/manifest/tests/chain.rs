//! The chain of segments: snapshots, gaps, forks and what goes back (hazards A9, A11, A12, C4).

use super::*;

#[test]
fn a11_refuses_another_epoch_within_a_chain() {
    let mut writer = writer();
    let mut catalog = catalog();
    catalog.admit(&sealed(&mut writer, &[small(0, "a")])).expect("valid");
    let second = sealed(&mut writer, &[small(1, "b")]);
    let error = catalog.admit(&resigned(&second, 24, &2_u32.to_le_bytes())).expect_err("refused");
    assert_eq!(error, ManifestError::ForeignChain(SegmentSeq(1)));
}

#[test]
fn a12_tells_rollback_fork_and_gap() {
    let mut writer = writer();
    let mut catalog = catalog();
    let first = sealed(&mut writer, &[small(0, "a")]);
    let second = sealed(&mut writer, &[small(1, "b")]);
    let third = sealed(&mut writer, &[small(2, "c")]);
    catalog.admit(&first).expect("valid");
    assert_eq!(
        catalog.admit(&third),
        Err(ManifestError::Gap { expected: SegmentSeq(1), found: SegmentSeq(2) })
    );
    catalog.admit(&second).expect("valid");
    assert_eq!(catalog.admit(&first), Err(ManifestError::Rollback(SegmentSeq(0))));
    assert_eq!(catalog.admit(&second), Err(ManifestError::Rollback(SegmentSeq(1))));
    let other = resigned(&second, 48, &1_i64.to_le_bytes());
    assert_eq!(catalog.admit(&other), Err(ManifestError::Fork(SegmentSeq(1))));
    let unchained = resigned(&third, 56, &[1; 32]);
    assert_eq!(catalog.admit(&unchained), Err(ManifestError::BrokenChain(SegmentSeq(2))));
    catalog.admit(&third).expect("the genuine one still fits");
}

/// A writer that goes on with a chain at `next`, after the segment that `previous` is the hash of.
fn resumed(next: u64, previous: SegmentHash) -> SegmentWriter {
    SegmentWriter::resume(seed(7), HashAlgorithm::Sha256, SegmentSeq(next), previous)
}

/// The three segments of a snapshot that begins at 4: two directories, then the end.
fn snapshot_at_4() -> [Vec<u8>; 3] {
    let mut writer = resumed(4, SegmentHash([1; 32]));
    [directory(0, "a"), directory(1, "b"), Record::End { entries: 2 }].map(|it| sealed(&mut writer, &[it]))
}

fn mark_of(segment: &[u8]) -> Mark {
    let (header, hash) = inspect(segment, &seed(7).verify_key()).expect("genuine");
    Mark { epoch: header.epoch, sequence: header.sequence, hash }
}

fn knowing(mark: Mark) -> Catalog {
    Catalog::new(seed(7).verify_key(), Some(mark))
}

#[test]
fn a_writer_goes_on_where_its_chain_was_and_begins_a_snapshot_there() {
    let key = seed(7).verify_key();
    let mut writer = writer();
    assert_eq!(writer.last(), None);
    let first = sealed(&mut writer, &[small(0, "a")]);
    let second = sealed(&mut writer, &[Record::End { entries: 1 }]);
    let (sequence, hash) = writer.last().expect("two were made");
    assert_eq!((sequence, hash), (SegmentSeq(1), mark_of(&second).hash));
    let mut resumed = resumed(sequence.0 + 1, hash);
    assert_eq!(resumed.last(), None);
    let third = sealed(&mut resumed, &[small(0, "a")]);
    let headers = [&first, &second, &third].map(|it| inspect(it, &key).expect("genuine").0);
    assert_eq!(headers.map(|header| header.snapshot), [true, false, true]);
    assert_eq!(headers.map(|header| header.sequence.0), [0, 1, 2]);
    assert_eq!(headers[2].previous, hash);
}

#[test]
fn a_reader_starts_with_any_snapshot_and_with_nothing_else() {
    let [first, second, third] = snapshot_at_4();
    let mut catalog = catalog();
    assert_eq!(catalog.mark(), None);
    let gap = ManifestError::Gap { expected: SegmentSeq(0), found: SegmentSeq(5) };
    assert_eq!(catalog.admit(&second), Err(gap));
    catalog.admit(&first).expect("a snapshot");
    assert_eq!((catalog.next_sequence(), catalog.mark()), (SegmentSeq(5), Some(mark_of(&first))));
    catalog.admit(&second).expect("the next");
    catalog.admit(&third).expect("the end");
    assert!(catalog.ended() && !catalog.behind());
    assert_eq!(catalog.mark(), Some(mark_of(&third)));
    assert_eq!(catalog.admit(&first), Err(ManifestError::Rollback(SegmentSeq(4))));
    assert_eq!(catalog.admit(&resigned(&first, 48, &[1])), Err(ManifestError::Fork(SegmentSeq(4))));
    let older = sealed(&mut writer(), &[small(0, "a")]);
    assert_eq!(catalog.admit(&older), Err(ManifestError::Rollback(SegmentSeq(0))));

    let unflagged = resigned(&older, 7, &[0]);
    assert_eq!(super::catalog().admit(&unflagged), Err(ManifestError::BrokenChain(SegmentSeq(0))));
    let with_past = sealed(&mut resumed(0, SegmentHash([1; 32])), &[small(0, "a")]);
    assert_eq!(super::catalog().admit(&with_past), Err(ManifestError::BrokenChain(SegmentSeq(0))));
}

#[test]
fn a_new_snapshot_is_told_apart_from_every_offence() {
    let [first, second, third] = snapshot_at_4();
    let mut catalog = catalog();
    catalog.admit(&first).expect("a snapshot");
    catalog.admit(&second).expect("the next");
    for next in [6, 7, 100] {
        let anew =
            sealed(&mut resumed(next, SegmentHash::NONE), &[directory(0, "c"), Record::End { entries: 1 }]);
        let refusal = catalog.admit(&anew);
        assert_eq!(refusal, Err(ManifestError::NewSnapshot(SegmentSeq(next))));
        // Of a newer epoch, and with another hash, too.
        for (at, byte) in [(24, 2), (6, 2)] {
            assert_eq!(catalog.admit(&resigned(&anew, at, &[byte])), refusal);
        }
        // Of an older epoch or another writer, never; and not without a right signature.
        for (at, byte) in [(24, 0), (32, 1)] {
            let foreign = ManifestError::ForeignChain(SegmentSeq(next));
            assert_eq!(catalog.admit(&resigned(&anew, at, &[byte])), Err(foreign));
        }
        let mut altered = anew.clone();
        altered[100] ^= 1;
        assert_eq!(catalog.admit(&altered), Err(SegmentError::BadSignature.into()));
        let mut over = knowing(catalog.mark().expect("two were admitted"));
        over.admit(&anew).expect("it stands on its own");
        assert!(over.ended() && !over.stands(&path("a")));
    }
    let anew = |next| sealed(&mut resumed(next, SegmentHash::NONE), &[directory(0, "c")]);
    assert_eq!(catalog.admit(&anew(5)), Err(ManifestError::Fork(SegmentSeq(5))));
    assert_eq!(catalog.admit(&anew(3)), Err(ManifestError::Rollback(SegmentSeq(3))));
    catalog.admit(&third).expect("nothing has changed");
    assert!(catalog.ended());
}

#[test]
fn a12_an_end_older_than_what_was_accepted_ends_nothing() {
    let mut writer = resumed(4, SegmentHash([1; 32]));
    let first = sealed(&mut writer, &[small(0, "a"), Record::End { entries: 1 }]);
    let withdrawn = Record::Withdrawn { id: FileId(0), path: path("a"), reason: WithdrawReason::Superseded };
    let second = sealed(&mut writer, &[withdrawn, small(1, "a"), Record::End { entries: 1 }]);
    let third = sealed(&mut writer, &[Record::End { entries: 1 }]);
    let mark = mark_of(&second);
    let mut catalog = knowing(mark);
    assert!(!catalog.ended() && catalog.behind());
    catalog.admit(&first).expect("the same snapshot again");
    assert!(!catalog.ended() && catalog.behind());
    assert_eq!(catalog.mark(), Some(mark), "a mark never goes back");
    catalog.admit(&second).expect("the accepted one");
    assert!(catalog.ended() && !catalog.behind());
    catalog.admit(&third).expect("a newer one");
    assert_eq!(catalog.mark(), Some(mark_of(&third)));
    // A snapshot that begins beyond the mark is newer at once.
    let mut catalog = knowing(mark);
    catalog.admit(&sealed(&mut resumed(9, SegmentHash::NONE), &[Record::End { entries: 0 }])).expect("newer");
    assert!(catalog.ended());
}

#[test]
fn a12_another_segment_where_one_was_accepted_is_a_fork_in_a_later_run_too() {
    let [first, second, third] = snapshot_at_4();
    for (accepted, forked) in [(&first, &first), (&second, &second), (&third, &third)] {
        let mark = mark_of(accepted);
        let mut catalog = knowing(mark);
        for segment in [&first, &second, &third] {
            let other = resigned(segment, 48, &[1]);
            if segment == forked {
                assert_eq!(catalog.admit(&other), Err(ManifestError::Fork(mark.sequence)));
            }
            catalog.admit(segment).expect("the accepted history");
        }
        assert!(catalog.ended());
    }
    // A snapshot right after the mark names what was accepted, or nothing.
    let mark = mark_of(&third);
    let after = |previous| sealed(&mut resumed(7, previous), &[Record::End { entries: 0 }]);
    knowing(mark).admit(&after(mark.hash)).expect("the same history");
    knowing(mark).admit(&after(SegmentHash::NONE)).expect("a writer that lost its state");
    let broken = Err(ManifestError::BrokenChain(SegmentSeq(7)));
    assert_eq!(knowing(mark).admit(&after(SegmentHash([1; 32]))), broken);
}

#[test]
fn a12_an_epoch_that_is_over_is_a_rollback_and_a_newer_one_is_beyond_every_place() {
    let [first, second, _] = snapshot_at_4();
    let of_epoch = |segment: &[u8], epoch: u32| resigned(segment, 24, &epoch.to_le_bytes());
    let mark = mark_of(&of_epoch(&second, 5));
    assert_eq!(mark.epoch, 5);
    let newer = of_epoch(&sealed(&mut resumed(9, SegmentHash::NONE), &[Record::End { entries: 0 }]), 4);
    assert_eq!(knowing(mark).admit(&newer), Err(ManifestError::Rollback(SegmentSeq(9))));
    let end = of_epoch(&sealed(&mut writer(), &[Record::End { entries: 0 }]), 6);
    let mut catalog = knowing(mark);
    catalog.admit(&end).expect("a newer epoch");
    assert!(catalog.ended());
    assert_eq!(catalog.mark(), Some(mark_of(&end)));
    // Places are compared within one epoch only.
    let mut catalog = knowing(Mark { epoch: 1, ..mark_of(&first) });
    catalog.admit(&of_epoch(&resigned(&first, 48, &[1]), 2)).expect("of another epoch");
}

/// The writer's state is an old copy: it numbers segments that it had numbered before.
#[test]
fn c4_a_writer_restored_from_an_old_copy_of_its_state_is_found_out() {
    let begin = |writer: &mut SegmentWriter| sealed(writer, &[small(0, "a")]);
    let go_on = |writer: &mut SegmentWriter| sealed(writer, &[small(1, "b"), Record::End { entries: 2 }]);
    let mut writer = resumed(10, SegmentHash::NONE);
    let accepted = [begin(&mut writer), go_on(&mut writer)];
    let mut catalog = catalog();
    for segment in &accepted {
        catalog.admit(segment).expect("valid");
    }
    let mark = catalog.mark().expect("accepted");
    // Restored to where it used fewer places than were accepted: there is no end to what it says …
    let mut restored = resumed(8, SegmentHash::NONE);
    let mut catalog = knowing(mark);
    catalog.admit(&begin(&mut restored)).expect("nothing is wrong yet");
    catalog.admit(&go_on(&mut restored)).expect("nor now");
    assert!(!catalog.ended() && catalog.behind());
    // … until it comes to a place that was used.
    let say = |writer: &mut SegmentWriter| sealed(writer, &[Record::End { entries: 2 }]);
    catalog.admit(&say(&mut restored)).expect("the place before");
    assert_eq!(catalog.admit(&say(&mut restored)), Err(ManifestError::Fork(SegmentSeq(11))));
    // Restored to the very place: at once.
    let fork = Err(ManifestError::Fork(SegmentSeq(11)));
    assert_eq!(knowing(mark).admit(&begin(&mut resumed(11, SegmentHash::NONE))), fork);
    // And beside a reader that runs.
    let mut running = super::catalog();
    accepted.iter().for_each(|segment| drop(running.admit(segment).expect("valid")));
    assert_eq!(running.admit(&begin(&mut resumed(11, SegmentHash::NONE))), fork);
    assert_eq!(
        running.admit(&begin(&mut resumed(8, SegmentHash::NONE))),
        Err(ManifestError::Rollback(SegmentSeq(8)))
    );
}

#[test]
fn a12_tells_forks_for_as_long_as_it_remembers() {
    let mut writer = resumed(5, SegmentHash::NONE);
    let mut catalog = catalog();
    let segments: Vec<_> = (0..1100).map(|_| sealed(&mut writer, &[Record::End { entries: 0 }])).collect();
    for segment in &segments {
        catalog.admit(segment).expect("valid");
    }
    for (at, segment) in segments.iter().enumerate().step_by(25) {
        let sequence = SegmentSeq(5 + at as u64);
        assert_eq!(catalog.admit(segment), Err(ManifestError::Rollback(sequence)));
        let other = catalog.admit(&resigned(segment, 48, &[1])).expect_err("refused");
        let told = if at >= 76 { ManifestError::Fork(sequence) } else { ManifestError::Rollback(sequence) };
        assert_eq!(other, told, "{at}");
    }
}

#[test]
fn a9_refuses_places_beyond_the_last_and_flags_it_does_not_know() {
    let last = crate::limits::SEGMENT_SEQUENCE_MAX;
    let malformed = |segment: &[u8]| match catalog().admit(segment) {
        Err(ManifestError::Segment(SegmentError::Malformed(what))) => what,
        other => panic!("{other:?}"),
    };
    let mut writer = resumed(last, SegmentHash::NONE);
    let mut catalog = catalog();
    catalog.admit(&sealed(&mut writer, &[small(0, "a")])).expect("the last place");
    assert_eq!(catalog.mark().map(|mark| mark.sequence), Some(SegmentSeq(last)));
    let beyond = sealed(&mut writer, &[Record::End { entries: 1 }]);
    assert!(malformed(&beyond).contains("sequence number"));
    let mut writer = resumed(u64::MAX, SegmentHash::NONE);
    for _ in 0..2 {
        assert!(malformed(&sealed(&mut writer, &[small(0, "a")])).contains("sequence number"));
    }
    let segment = sealed(&mut super::writer(), &[small(0, "a")]);
    for flags in [2, 3, 0x80, 0xff] {
        assert_eq!(malformed(&resigned(&segment, 7, &[flags])), "a reserved field is used");
    }
    assert_eq!(malformed(&resigned(&segment, 92, &[1])), "a reserved field is used");
}
