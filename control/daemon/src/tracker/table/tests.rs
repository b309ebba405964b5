//! What the tracker keeps, by hand: time is a parameter.

use super::*;
use sealift_proto::discovery::SEALED_ENTRY_BYTES;

const FORGET_AFTER: Duration = Duration::from_secs(180);

fn request(tag: u8, token: Option<Token>) -> Request {
    Request { tag: DiscoveryTag([tag; 16]), token, wanted: 64, entry: None }
}

fn entry(number: usize) -> SealedEntry {
    let mut bytes = [0; SEALED_ENTRY_BYTES];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    SealedEntry(bytes)
}

fn address(number: usize) -> IpAddr {
    IpAddr::from((0x0a00_0000 + u32::try_from(number).unwrap()).to_be_bytes())
}

fn tell(table: &mut Table, tag: u8, number: usize, from: IpAddr, now: Instant) -> Result<Token, Full> {
    table.tell(&request(tag, None), entry(number), from, now).unwrap()
}

fn all(table: &Table, tag: u8) -> Vec<SealedEntry> {
    table.others(DiscoveryTag([tag; 16]), None, usize::MAX).unwrap()
}

#[test]
fn members_of_a_job_hear_of_each_other_and_of_no_others() {
    let (mut table, now) = (Table::new(FORGET_AFTER), Instant::now());
    let one = tell(&mut table, 1, 1, address(1), now).unwrap();
    tell(&mut table, 1, 2, address(2), now).unwrap();
    tell(&mut table, 2, 3, address(3), now).unwrap();
    assert_eq!(table.others(DiscoveryTag([1; 16]), Some(one.id), 64).unwrap(), [entry(2)]);
    assert_eq!(all(&table, 2), [entry(3)]);
    assert_eq!(all(&table, 3), []);
    assert_eq!(table.others(DiscoveryTag([1; 16]), None, 0).unwrap(), []);
}

#[test]
fn an_entry_is_replaced_by_whoever_has_its_token_and_by_nobody_else() {
    let (mut table, now) = (Table::new(FORGET_AFTER), Instant::now());
    let token = tell(&mut table, 1, 1, address(1), now).unwrap();
    let forged = Token::new(token.id.0, &[0; 32]);
    table.tell(&request(1, Some(forged)), entry(2), address(2), now).unwrap().unwrap();
    assert_eq!(all(&table, 1).len(), 2);
    let next = table.tell(&request(4, Some(token.clone())), entry(3), address(1), now).unwrap().unwrap();
    assert_eq!((all(&table, 1), all(&table, 4)), (vec![entry(2)], vec![entry(3)]));
    assert!(
        table.beat(&Heartbeat::new(Beat::Alive, &token, 9), now).is_none(),
        "the old token is nothing now"
    );
    assert!(table.beat(&Heartbeat::new(Beat::Alive, &next, 1), now).is_some());
}

#[test]
fn heartbeats_keep_an_entry_and_silence_ends_it() {
    let (mut table, start) = (Table::new(FORGET_AFTER), Instant::now());
    let token = tell(&mut table, 1, 1, address(1), start).unwrap();
    let minute = Duration::from_secs(60);
    for beat in 1..=10 {
        let now = start + minute * beat;
        assert!(table.beat(&Heartbeat::new(Beat::Alive, &token, beat.into()), now).is_some());
        table.forget(now);
    }
    assert_eq!(all(&table, 1), [entry(1)]);
    let last = start + minute * 10;
    table.forget(last + FORGET_AFTER);
    assert_eq!(all(&table, 1), [entry(1)]);
    table.forget(last + FORGET_AFTER + Duration::from_millis(1));
    assert_eq!(all(&table, 1), []);
    assert!(table.of_tag.is_empty() && table.of_address.is_empty());
}

#[test]
fn a_heartbeat_that_is_forged_or_repeated_is_nothing() {
    let (mut table, now) = (Table::new(FORGET_AFTER), Instant::now());
    let token = tell(&mut table, 1, 1, address(1), now).unwrap();
    let heartbeat = Heartbeat::new(Beat::Alive, &token, 7);
    assert!(table.beat(&heartbeat, now).is_some());
    let forged = Token::new(token.id.0, &[0; 32]);
    for wrong in [
        heartbeat,
        Heartbeat::new(Beat::Alive, &token, 6),
        Heartbeat::new(Beat::Leave, &forged, 8),
        Heartbeat::new(Beat::Alive, &Token::new([9; 16], &[0; 32]), 8),
    ] {
        assert!(table.beat(&wrong, now).is_none(), "{wrong:?}");
    }
    assert_eq!(all(&table, 1), [entry(1)]);
    assert!(table.beat(&Heartbeat::new(Beat::Leave, &token, u64::MAX), now).is_some());
    assert_eq!(all(&table, 1), []);
}

#[test]
fn there_is_room_for_so_many_of_a_job_of_an_address_and_in_all() {
    let (mut table, now) = (Table::new(FORGET_AFTER), Instant::now());
    let one = address(0);
    for number in 0..ENTRIES_OF_TAG_MAX {
        tell(&mut table, 1, number, address(1 + number), now).unwrap();
    }
    assert_eq!(tell(&mut table, 1, 0, one, now).unwrap_err(), Full);
    let mut last = tell(&mut table, 2, 0, one, now).unwrap();
    for number in 1..ENTRIES_OF_ADDRESS_MAX {
        last = tell(&mut table, u8::try_from(3 + number / ENTRIES_OF_TAG_MAX).unwrap(), number, one, now)
            .unwrap();
    }
    assert_eq!(tell(&mut table, 9, 0, one, now).unwrap_err(), Full);
    // One that is there already may be replaced.
    assert!(table.tell(&request(9, Some(last)), entry(0), one, now).unwrap().is_ok());
    let mut tags = 10..;
    let mut number = ENTRIES_OF_TAG_MAX + 1;
    while table.entries.len() < ENTRIES_MAX {
        let tag = tags.next().unwrap();
        for _ in 0..ENTRIES_OF_TAG_MAX.min(ENTRIES_MAX - table.entries.len()) {
            number += 1;
            tell(&mut table, tag, number, address(number), now).unwrap();
        }
    }
    assert_eq!(tell(&mut table, 200, 0, address(number + 1), now).unwrap_err(), Full);
    table.forget(now + FORGET_AFTER * 2);
    assert!(table.entries.is_empty() && table.of_tag.is_empty() && table.of_address.is_empty());
}

#[test]
fn what_is_told_is_drawn_anew_each_time_and_nothing_twice() {
    let (mut table, now) = (Table::new(FORGET_AFTER), Instant::now());
    for number in 0..1000 {
        tell(&mut table, 1, number, address(number), now).unwrap();
    }
    let draw = || {
        let mut drawn = table.others(DiscoveryTag([1; 16]), None, 64).unwrap();
        drawn.sort_by_key(|entry| entry.0);
        drawn.dedup();
        assert_eq!(drawn.len(), 64);
        drawn
    };
    assert_ne!(draw(), draw(), "that both draws are the same has a chance of less than 2⁻³⁰⁰");
}
