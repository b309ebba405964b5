//! Settings: what they are, who may be late, and that they hold.

use super::*;
use crate::db::agents::world::{World, key};
use crate::db::events::{self, EventFilter, NewEvent};
use sealift_api::rest::{AgentState, Severity};

fn change(world: &World, patch: &SettingsPatch) -> Settings {
    world.write(|w| update(w, None, patch))
}

#[test]
fn a_change_is_of_a_version_within_a_range_and_in_the_audit() {
    let world = World::new();
    let first = world.read(get);
    assert_eq!((first.version, first.updated_ms, first.session_idle_seconds), (1, 0, 1800));
    let patch = SettingsPatch { session_idle_seconds: Some(60), ..SettingsPatch::default() };
    let second = world.write(|w| update(w, Some(1), &patch));
    assert_eq!((second.version, second.session_idle_seconds), (2, 60));
    assert_eq!(world.write(|w| update(w, Some(2), &patch)), second, "nothing changed");
    assert!(matches!(world.try_write(|w| update(w, Some(1), &patch)), Err(DbError::Stale)));
    let patch = SettingsPatch { session_idle_seconds: Some(59), ..SettingsPatch::default() };
    assert!(matches!(world.try_write(|w| update(w, None, &patch)), Err(DbError::Invalid(_))));
    assert_eq!(world.read(get), second);
    assert_eq!(world.audit_text().matches("settings.update").count(), 1);
}

#[test]
fn events_are_kept_as_many_and_as_long_as_it_says() {
    let world = World::new();
    change(&world, &SettingsPatch { events_kept: Some(1000), ..SettingsPatch::default() });
    let told = || NewEvent::new(Severity::Info, "x".into());
    world.write(|w| (0..1005).try_for_each(|_| events::append(w, &told()).map(drop)));
    let kept = || world.read(|db| events::tail(db, &EventFilter::default(), 0, 5000)).events;
    assert_eq!((kept().len(), kept()[0].number), (1000, 6));
    let patch = SettingsPatch { events_kept_seconds: Some(3600), ..SettingsPatch::default() };
    change(&world, &patch);
    world.pass_ms(3_000_000);
    world.write(|w| events::append(w, &told()));
    world.pass_ms(700_000);
    world.write(|w| events::forget(w));
    assert_eq!(kept().into_iter().map(|event| event.number).collect::<Vec<_>>(), [1006]);
    world.pass_ms(3_600_000);
    world.write(|w| events::forget(w));
    assert_eq!((kept().len(), world.read(events::newest)), (0, 1006));
}

#[test]
fn every_agent_waits_if_it_says_so() {
    let world = World::new();
    let made = world.token(true, 2, 60);
    assert_eq!(world.enrol(&made.secret, "a", key("a")).unwrap().state, AgentState::Approved);
    change(&world, &SettingsPatch { approve_every_agent: Some(true), ..SettingsPatch::default() });
    assert_eq!(world.enrol(&made.secret, "b", key("b")).unwrap().state, AgentState::Pending);
}
