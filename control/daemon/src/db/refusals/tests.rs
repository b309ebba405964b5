//! Refusals: few records, and none is lost in them.

use super::*;
use crate::db::new_id;
use crate::db::tests::Scratch;

fn refuse(scratch: &Scratch, address: &str, why: &str) {
    let refusal = Refusal { action: "login.locked", subject: "user:?", why, after: json!({ "why": why }) };
    scratch.db.refuse(&Actor::anonymous(address, new_id()), &refusal).unwrap();
}

fn records(scratch: &Scratch) -> usize {
    scratch.actions().iter().filter(|action| *action == "login.locked").count()
}

#[test]
fn the_first_is_recorded_at_once_and_the_others_as_a_number() {
    let scratch = Scratch::new();
    for _ in 0..100 {
        refuse(&scratch, "192.0.2.1", "locked");
        refuse(&scratch, "2001:db8::1", "locked");
        refuse(&scratch, "2001:db8::2", "locked");
    }
    assert_eq!(records(&scratch), 2, "a network of IPv6 is one address");
    refuse(&scratch, "192.0.2.1", "other");
    assert_eq!(records(&scratch), 3);
    scratch.db.record_refusals(false).unwrap();
    assert_eq!(records(&scratch), 3, "none is over");
    scratch.pass_ms(WINDOW_MS);
    scratch.db.record_refusals(false).unwrap();
    assert_eq!(records(&scratch), 5, "of a kind that had no more there is nothing to say");
    let filter = crate::db::audit::Filter::default();
    let page = scratch.db.read(|file| crate::db::audit::page(file, &filter, None, 2)).unwrap();
    let mut more: Vec<_> = page
        .items
        .iter()
        .map(|record| record.after.clone().unwrap().split(',').nth(1).unwrap().to_owned())
        .collect();
    more.sort();
    assert_eq!(more, ["\"more\":199", "\"more\":99"]);
    refuse(&scratch, "192.0.2.1", "locked");
    assert_eq!(records(&scratch), 6, "a new window");
    refuse(&scratch, "192.0.2.1", "locked");
    scratch.db.record_refusals(true).unwrap();
    assert_eq!(records(&scratch), 7, "the daemon ends");
}

#[test]
fn a_flood_from_everywhere_is_bounded() {
    let scratch = Scratch::new();
    let mut counted = Counted::default();
    let refusal = Refusal { action: "login.locked", subject: "x", why: "", after: Value::Null };
    let first = (0..5000_u32)
        .filter(|n| {
            let address = std::net::Ipv4Addr::from(*n).to_string();
            counted.count(&Actor::anonymous(&address, new_id()), &refusal, scratch.db.now_ms()) == Turn::First
        })
        .count();
    assert_eq!(first, KINDS_MAX + 1);
    assert!(
        counted.over(i64::MAX).iter().any(|(_, window)| window.subject == "others" && window.more > 3000)
    );
}
