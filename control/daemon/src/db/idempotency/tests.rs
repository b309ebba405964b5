//! Answers: kept with their change, sealed, for a while.

use super::*;
use crate::db::agents::world::World;

fn user() -> Uuid {
    Uuid::from_bytes([7; 16])
}

fn world() -> World {
    let world = World::new();
    let sql = "INSERT INTO users (id, name, role, password, created_ms, updated_ms) VALUES (?1, 'u', 'viewer', '', 0, 0)";
    world.write(|w| Ok(w.tx().execute(sql, [user().into_bytes()])?));
    world
}

fn request(world: &World, key: &str, body: &str) -> Request {
    Request::new(&world.db, user(), key, &[b"POST /jobs", body.as_bytes()]).unwrap()
}

fn answer(text: &str) -> Answer {
    Answer { status: 201, version: Some(1), body: Zeroizing::new(text.as_bytes().to_vec()) }
}

#[test]
fn an_answer_is_told_again_until_it_is_too_old() {
    let world = world();
    let first = request(&world, "k", "a");
    assert_eq!(known(&world.db, &first).unwrap(), Known::New);
    world.write(|w| keep(w, &first, &answer("made")));
    assert_eq!(known(&world.db, &first).unwrap(), Known::Answered(answer("made")));
    assert_eq!(known(&world.db, &request(&world, "k", "b")).unwrap(), Known::Other);
    assert_eq!(known(&world.db, &request(&world, "other", "a")).unwrap(), Known::New);
    assert!(world.try_write(|w| keep(w, &first, &answer("again"))).is_err());
    world.pass_ms(KEPT_MS);
    assert_eq!(known(&world.db, &first).unwrap(), Known::New);
    world.write(|w| keep(w, &first, &answer("anew")));
    assert_eq!(known(&world.db, &first).unwrap(), Known::Answered(answer("anew")));
}

#[test]
fn what_is_not_kept_leaves_no_answer_and_no_answer_is_readable_in_the_file() {
    let world = world();
    let first = request(&world, "k", "a");
    let failed = world.try_write(|w| {
        keep(w, &first, &answer("slapi1secret"))?;
        Err::<(), _>(DbError::Stale)
    });
    assert!(failed.is_err());
    assert_eq!(known(&world.db, &first).unwrap(), Known::New);
    world.write(|w| keep(w, &first, &answer("slapi1secret")));
    let needle = b"slapi1secret";
    for file in std::fs::read_dir(world.dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(needle.len()).any(|window| window == needle));
    }
}

#[test]
fn a_user_has_so_many() {
    let world = world();
    world.write(|w| {
        for n in 0..=OF_USER_MAX {
            keep(w, &Request { user: user(), key: n.to_string(), hash: [0; 32] }, &answer("x"))?;
        }
        Ok(())
    });
    let count = world
        .read(|db| Ok(db.query_row("SELECT count(*) FROM idempotency", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(count, OF_USER_MAX);
}
