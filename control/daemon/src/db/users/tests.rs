//! Users: accounts, logins and what locks them out, sessions, tokens, and the records of all that.

use super::*;
use crate::db::audit;
use crate::db::tests::Scratch;
use sealift_api::rest::{NewApiToken, NewApiTokenSecret, PasswordChange};

const PASSWORD: &str = "correct horse battery";
const MINUTE_MS: i64 = 60_000;

fn by() -> Actor {
    Actor::cli("root")
}

fn add(scratch: &Scratch, name: &str, role: Role) -> User {
    let new = NewUser { name: name.parse().unwrap(), role, password: PASSWORD.into() };
    create(&scratch.db, &by(), &new).unwrap()
}

fn from(address: &str) -> Actor {
    Actor::anonymous(address, new_id())
}

fn log_in(scratch: &Scratch, name: &str, password: &str, address: &str) -> LoginOutcome {
    login(&scratch.db, &from(address), name, password).unwrap()
}

fn begin(scratch: &Scratch, name: &str) -> NewSession {
    match log_in(scratch, name, PASSWORD, "192.0.2.1") {
        LoginOutcome::Session(session) => *session,
        _ => panic!("{name} is not let in"),
    }
}

fn is_refused(outcome: &LoginOutcome) -> bool {
    matches!(outcome, LoginOutcome::Refused)
}

fn locked_minutes(scratch: &Scratch, outcome: &LoginOutcome) -> Option<i64> {
    let LoginOutcome::Locked { until_ms } = outcome else { return None };
    Some((until_ms - scratch.db.now_ms() + MINUTE_MS - 1) / MINUTE_MS)
}

fn patch(role: Option<Role>, disabled: Option<bool>) -> UserPatch {
    UserPatch { role, disabled, password: None }
}

fn audit_text(scratch: &Scratch) -> String {
    let filter = audit::Filter::default();
    let page = scratch.db.read(|file| audit::page(file, &filter, None, 1000)).unwrap();
    serde_json::to_string(&page).unwrap()
}

#[test]
fn users_are_made_changed_listed_and_deleted() {
    let scratch = Scratch::new();
    add(&scratch, "root", Role::Administrator);
    let user = add(&scratch, "ann", Role::Viewer);
    let taken = create(
        &scratch.db,
        &by(),
        &NewUser { name: user.name.clone(), role: Role::Viewer, password: PASSWORD.into() },
    );
    assert!(matches!(taken, Err(DbError::Conflict(_))));
    scratch.pass_ms(5);
    let changed = update(&scratch.db, &by(), user.id, Some(1), &patch(Some(Role::Operator), None)).unwrap();
    assert_eq!((changed.role, changed.version), (Role::Operator, 2));
    assert_eq!(changed.updated_ms, user.updated_ms + 5);
    let stale = update(&scratch.db, &by(), user.id, Some(1), &patch(None, Some(true)));
    assert!(matches!(stale, Err(DbError::Stale)));
    let same = update(&scratch.db, &by(), user.id, None, &patch(Some(Role::Operator), None)).unwrap();
    assert_eq!(same, changed);
    let page = scratch.db.read(|file| list(file, None, 1)).unwrap();
    assert_eq!((&page.items, page.next.as_deref()), (&vec![changed], Some("ann")));
    let page = scratch.db.read(|file| list(file, Some("ann"), 1)).unwrap();
    assert_eq!((page.items[0].name.as_str(), page.next), ("root", None));
    assert!(matches!(delete(&scratch.db, &by(), user.id, Some(1)), Err(DbError::Stale)));
    delete(&scratch.db, &by(), user.id, Some(2)).unwrap();
    assert!(matches!(delete(&scratch.db, &by(), user.id, None), Err(DbError::NotFound("user"))));
    assert_eq!(
        scratch.actions(),
        ["user.create", "user.create", "user.create.refused", "user.update", "user.delete"]
    );
}

#[test]
fn the_last_administrator_who_can_log_in_stays() {
    let scratch = Scratch::new();
    let last = add(&scratch, "root", Role::Administrator);
    let other = add(&scratch, "ann", Role::Administrator);
    update(&scratch.db, &by(), other.id, None, &patch(None, Some(true))).unwrap();
    for change in [patch(Some(Role::Operator), None), patch(None, Some(true))] {
        let refused = update(&scratch.db, &by(), last.id, None, &change);
        assert!(matches!(refused, Err(DbError::Refused(_))));
    }
    assert!(matches!(delete(&scratch.db, &by(), last.id, None), Err(DbError::Refused(_))));
    assert_eq!(scratch.actions()[3..], ["user.update.refused", "user.update.refused", "user.delete.refused"]);
    update(&scratch.db, &by(), other.id, None, &patch(None, Some(false))).unwrap();
    delete(&scratch.db, &by(), last.id, None).unwrap();
}

#[test]
fn a_password_has_a_length_and_is_kept_as_argon2id() {
    let scratch = Scratch::new();
    for password in ["eleven char", &"x".repeat(1025)] {
        let new = NewUser { name: "ann".parse().unwrap(), role: Role::Viewer, password: password.to_owned() };
        assert!(matches!(create(&scratch.db, &by(), &new), Err(DbError::Invalid(_))));
    }
    add(&scratch, "ann", Role::Viewer);
    let kept: String = scratch
        .db
        .read(|file| Ok(file.query_row("SELECT password FROM users", [], |row| row.get(0))?))
        .unwrap();
    assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
}

#[test]
fn a_session_stands_for_its_user_until_it_ends() {
    let scratch = Scratch::new();
    let user = add(&scratch, "ann", Role::Operator);
    let begun = begin(&scratch, "Ann");
    assert_eq!(begun.user, user);
    let principal = session(&scratch.db, &begun.token).unwrap().unwrap();
    assert_eq!(
        (principal.user_id, principal.name.as_str(), principal.role),
        (user.id, "ann", Role::Operator)
    );
    assert!(principal.may_change(Some(&begun.csrf)));
    assert!(
        !principal.may_change(None) && !principal.may_change(Some("")) && !principal.may_change(Some("x"))
    );
    assert_eq!(principal.actor("192.0.2.1", new_id()).who, "user:ann");
    assert!(!format!("{principal:?}").contains(&begun.csrf));
    update(&scratch.db, &by(), user.id, None, &patch(Some(Role::Viewer), None)).unwrap();
    assert_eq!(session(&scratch.db, &begun.token).unwrap().unwrap().role, Role::Viewer);
    logout(&scratch.db, &by(), &begun.token).unwrap();
    logout(&scratch.db, &by(), &begun.token).unwrap();
    assert_eq!(session(&scratch.db, &begun.token).unwrap(), None);
    assert_eq!(scratch.actions(), ["user.create", "login.ok", "user.update", "logout"]);
}

#[test]
fn a_session_ends_when_left_alone_and_when_too_old() {
    let scratch = Scratch::new();
    add(&scratch, "ann", Role::Viewer);
    let begun = begin(&scratch, "ann");
    let lives = || session(&scratch.db, &begun.token).unwrap().is_some();
    for _ in 0..24 {
        scratch.pass_ms(29 * MINUTE_MS);
        assert!(lives());
    }
    scratch.pass_ms(24 * MINUTE_MS);
    assert!(!lives(), "after twelve hours");
    let begun = begin(&scratch, "ann");
    scratch.pass_ms(30 * MINUTE_MS);
    assert_eq!(session(&scratch.db, &begun.token).unwrap(), None, "after half an hour alone");
    begin(&scratch, "ann");
    assert_eq!(scratch.count("sessions"), 1, "what has ended is swept out");
}

#[test]
fn a_disabled_or_deleted_user_has_nothing_that_holds() {
    let scratch = Scratch::new();
    for end in ["disable", "delete"] {
        let user = add(&scratch, end, Role::Viewer);
        let begun = begin(&scratch, end);
        let made = add_token(&scratch, &user, "ci", Role::Viewer).unwrap();
        if end == "disable" {
            update(&scratch.db, &by(), user.id, None, &patch(None, Some(true))).unwrap();
        } else {
            delete(&scratch.db, &by(), user.id, None).unwrap();
        }
        assert_eq!(session(&scratch.db, &begun.token).unwrap(), None);
        assert_eq!(token(&scratch.db, &made.secret).unwrap(), None);
        assert!(is_refused(&log_in(&scratch, end, PASSWORD, "192.0.2.1")));
    }
}

#[test]
fn a_refused_login_leaves_a_record_that_tells_no_secret() {
    let scratch = Scratch::new();
    add(&scratch, "ann", Role::Viewer);
    let begun = begin(&scratch, "ann");
    assert!(is_refused(&log_in(&scratch, "ann", "wrong password", "192.0.2.1")));
    assert!(is_refused(&log_in(&scratch, "my.secret.typed.as.name", "x", "192.0.2.1")));
    assert!(is_refused(&log_in(&scratch, &"n".repeat(10_000), &"x".repeat(10_000), "192.0.2.1")));
    assert_eq!(
        scratch.actions(),
        ["user.create", "login.ok", "login.refused", "login.refused", "login.refused"]
    );
    let audit = audit_text(&scratch);
    for secret in ["wrong password", "my.secret", PASSWORD, &begun.token, &begun.csrf, "argon2"] {
        assert!(!audit.contains(secret), "{secret}");
    }
    assert_eq!(scratch.count("lockouts WHERE subject LIKE '%secret%'"), 0);
    assert!(audit.contains(r#""subject":"user:ann""#) && audit.contains("192.0.2.1"));
}

#[test]
fn an_account_is_locked_for_longer_each_time_known_or_not() {
    for name in ["ann", "nobody"] {
        let scratch = Scratch::new();
        add(&scratch, "ann", Role::Viewer);
        let mut at = 0;
        // From ever another address, so that it is the account that counts.
        let mut wrong = || {
            at += 1;
            log_in(&scratch, name, "wrong password", &format!("192.0.2.{at}"))
        };
        for _ in 0..5 {
            assert!(is_refused(&wrong()));
        }
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(locked_minutes(&scratch, &wrong()), Some(minutes), "{name}");
            let right = log_in(&scratch, name, PASSWORD, "198.51.100.1");
            assert_eq!(locked_minutes(&scratch, &right), Some(minutes), "the right one is not tried either");
            scratch.pass_ms(minutes * MINUTE_MS);
            assert!(is_refused(&wrong()));
        }
        assert!(scratch.actions().contains(&"login.locked".to_owned()));
    }
}

#[test]
fn the_right_password_or_time_or_an_administrator_ends_a_lockout() {
    let scratch = Scratch::new();
    let user = add(&scratch, "ann", Role::Viewer);
    let mut at = 0;
    let mut fail = |times| {
        for _ in 0..times {
            at += 1;
            assert!(is_refused(&log_in(&scratch, "ann", "wrong password", &format!("192.0.2.{at}"))));
        }
    };
    fail(4);
    let _ = begin(&scratch, "ann");
    fail(4);
    scratch.pass_ms(24 * 60 * MINUTE_MS);
    fail(5);
    assert!(matches!(log_in(&scratch, "ann", PASSWORD, "198.51.100.1"), LoginOutcome::Locked { .. }));
    unlock(&scratch.db, &by(), &user.name).unwrap();
    let _ = begin(&scratch, "ann");
}

#[test]
fn an_address_is_locked_whoever_is_tried_and_one_good_account_does_not_excuse_it() {
    let scratch = Scratch::new();
    for name in ["ann", "bob", "eve"] {
        add(&scratch, name, Role::Viewer);
    }
    for (name, address) in
        [("ann", "2001:db8::1"), ("bob", "2001:db8::2"), ("x", "2001:db8::3"), ("y", "2001:db8::4")]
    {
        assert!(is_refused(&log_in(&scratch, name, "wrong password", address)));
    }
    assert!(matches!(log_in(&scratch, "eve", PASSWORD, "2001:db8::5"), LoginOutcome::Session(_)));
    assert!(is_refused(&log_in(&scratch, "z", "wrong password", "2001:db8::6")));
    assert_eq!(locked_minutes(&scratch, &log_in(&scratch, "eve", PASSWORD, "2001:db8::7")), Some(1));
    assert!(matches!(log_in(&scratch, "eve", PASSWORD, "2001:db8:0:1::1"), LoginOutcome::Session(_)));
    scratch.pass_ms(MINUTE_MS);
    assert!(matches!(log_in(&scratch, "eve", PASSWORD, "2001:db8::7"), LoginOutcome::Session(_)));
}

#[test]
fn many_guesses_at_once_are_no_more_guesses() {
    let scratch = Scratch::new();
    add(&scratch, "ann", Role::Viewer);
    let wrong = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..24)
            .map(|at: u32| {
                let scratch = &scratch;
                let password = if at == 23 { PASSWORD } else { "wrong password" };
                scope.spawn(move || log_in(scratch, "ann", password, &format!("192.0.2.{at}")))
            })
            .collect();
        let outcomes: Vec<_> = guesses.into_iter().map(|guess| guess.join().unwrap()).collect();
        outcomes.iter().filter(|outcome| is_refused(outcome)).count()
    });
    // Four before the right one comes by, and five after it.
    assert!(wrong <= 9, "{wrong} were told that they are wrong");
    let refused = scratch.actions().iter().filter(|action| *action == "login.refused").count();
    assert_eq!(refused, wrong);
}

#[test]
fn another_password_ends_all_sessions() {
    let scratch = Scratch::new();
    let user = add(&scratch, "ann", Role::Viewer);
    let sessions = [begin(&scratch, "ann"), begin(&scratch, "ann")];
    let alive =
        || sessions.iter().filter(|begun| session(&scratch.db, &begun.token).unwrap().is_some()).count();
    let change = |current: &str, new: &str| {
        let change = PasswordChange { current: current.into(), new: new.into() };
        change_password(&scratch.db, &from("192.0.2.1"), user.id, &change)
    };
    assert!(matches!(change("wrong password", "another password"), Err(DbError::Refused(_))));
    assert!(matches!(change(PASSWORD, "short"), Err(DbError::Invalid(_))));
    assert_eq!(alive(), 2);
    assert_eq!(change(PASSWORD, "another password").unwrap().version, 2);
    assert_eq!(alive(), 0);
    assert!(is_refused(&log_in(&scratch, "ann", PASSWORD, "192.0.2.1")));
    let patch = UserPatch { password: Some(PASSWORD.into()), ..UserPatch::default() };
    update(&scratch.db, &by(), user.id, Some(2), &patch).unwrap();
    let begun = begin(&scratch, "ann");
    logout_everywhere(&scratch.db, &by(), user.id).unwrap();
    assert_eq!(session(&scratch.db, &begun.token).unwrap(), None);
    assert!(!audit_text(&scratch).contains("another password"));
}

#[test]
fn a_user_has_so_many_sessions_and_the_oldest_gives_way() {
    let scratch = Scratch::new();
    add(&scratch, "ann", Role::Viewer);
    let first = begin(&scratch, "ann");
    for _ in 0..32 {
        scratch.pass_ms(1);
        begin(&scratch, "ann");
    }
    assert_eq!(scratch.count("sessions"), 32);
    assert_eq!(session(&scratch.db, &first.token).unwrap(), None);
}

fn add_token(scratch: &Scratch, user: &User, name: &str, role: Role) -> Result<NewApiTokenSecret, DbError> {
    let new = NewApiToken { name: name.parse().unwrap(), role, expires_in_seconds: 3600 };
    create_token(&scratch.db, &by(), user.id, &new)
}

#[test]
fn a_token_stands_for_its_user_until_it_expires_or_is_revoked() {
    let scratch = Scratch::new();
    let user = add(&scratch, "ann", Role::Operator);
    let made = add_token(&scratch, &user, "ci", Role::Operator).unwrap();
    assert!(made.secret.starts_with("slapi1"));
    let principal = token(&scratch.db, &made.secret).unwrap().unwrap();
    assert_eq!(principal.actor("", new_id()).who, "token:ann/ci");
    assert!(principal.may_change(None));
    assert_eq!(token(&scratch.db, &made.secret[..made.secret.len() - 1]).unwrap(), None);
    assert_eq!(session(&scratch.db, &made.secret).unwrap(), None);
    assert!(matches!(add_token(&scratch, &user, "ci", Role::Viewer), Err(DbError::Conflict(_))));
    scratch.pass_ms(3_600_000);
    assert_eq!(token(&scratch.db, &made.secret).unwrap(), None);
    let made = add_token(&scratch, &user, "ci", Role::Viewer).unwrap();
    assert!(token(&scratch.db, &made.secret).unwrap().is_some());
    revoke_token(&scratch.db, &by(), made.token.id).unwrap();
    revoke_token(&scratch.db, &by(), made.token.id).unwrap();
    assert_eq!(token(&scratch.db, &made.secret).unwrap(), None);
    assert_eq!(
        scratch.actions(),
        ["user.create", "token.create", "token.create.refused", "token.create", "token.revoke"]
    );
    assert!(!audit_text(&scratch).contains("slapi1"));
    let page = scratch.db.read(|file| list_tokens(file, Some(user.id), None, 1)).unwrap();
    let rest = scratch.db.read(|file| list_tokens(file, None, page.next.as_deref(), 9)).unwrap();
    assert!(page.items[0].used_ms.is_some() && page.items[0].revoked_ms.is_none());
    assert!(rest.items[0].revoked_ms.is_some() && rest.next.is_none());
}

#[test]
fn a_token_allows_no_more_than_its_user_may() {
    let scratch = Scratch::new();
    let user = add(&scratch, "ann", Role::Operator);
    assert!(matches!(add_token(&scratch, &user, "ci", Role::Administrator), Err(DbError::Refused(_))));
    let made = add_token(&scratch, &user, "ci", Role::Operator).unwrap();
    let role = || token(&scratch.db, &made.secret).unwrap().unwrap().role;
    assert_eq!(role(), Role::Operator);
    update(&scratch.db, &by(), user.id, None, &patch(Some(Role::Viewer), None)).unwrap();
    assert_eq!(role(), Role::Viewer);
    update(&scratch.db, &by(), user.id, None, &patch(Some(Role::Administrator), None)).unwrap();
    assert_eq!(role(), Role::Operator);
}

#[test]
fn what_is_kept_of_secrets_is_their_hash() {
    let scratch = Scratch::new();
    let user = add(&scratch, "ann", Role::Operator);
    let begun = begin(&scratch, "ann");
    let made = add_token(&scratch, &user, "ci", Role::Operator).unwrap();
    for name in ["control.db", "control.db-wal"] {
        let bytes = std::fs::read(scratch.dir.path().join(name)).unwrap();
        for secret in [&*begun.token, &made.secret, PASSWORD] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{name}");
        }
    }
}
