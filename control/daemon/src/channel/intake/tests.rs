//! What agents say comes into the database: together, in order, and acknowledged only from there.

use super::*;
use crate::ca::Authority;
use crate::db::agents::world::{World, operator};
use sealift_api::agent::job_status::State;
use sealift_api::rest::{Run, RunAgentState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Patience with a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    world: World,
    hub: Arc<Hub>,
    run: Run,
}

fn scene(destinations: usize) -> Scene {
    let names: Vec<_> = (0..destinations).map(|at| format!("d{at}")).collect();
    let world = World::with_agents(&["source"]);
    let mut to = Vec::new();
    for name in &names {
        world.enrolled(name);
        to.push(format!("{name}:/to"));
    }
    let to: Vec<_> = to.iter().map(String::as_str).collect();
    let job = world.job("distribution", &["source:/from"], &to);
    let run = world.start(&job);
    let authority = Arc::new(Authority::create(&world.db, &operator()).unwrap());
    let hub = Hub::new(world.db.clone(), authority);
    Scene { world, hub, run }
}

impl Scene {
    fn status(&self, state: State, bytes: u64) -> JobStatus {
        JobStatus {
            job_id: self.run.job_id.as_bytes().to_vec(),
            run_id: self.run.id.as_bytes().to_vec(),
            state: state.into(),
            bytes,
            ..JobStatus::default()
        }
    }

    fn by(&self) -> Actor {
        Actor { who: "agent:d0".into(), ..operator() }
    }

    /// Transactions since the last look: each is one frame in the log that ends a commit, of which SQLite tells nothing;
    /// so they are counted by the version that another connection sees.
    async fn until(&self, agent: &str, bytes: u64) {
        let done = async {
            while self.world.part(&self.run, agent, "source").bytes != bytes {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.expect("it is written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_many_comes_in_few_transactions() {
    let scene = scene(40);
    let watch = rusqlite::Connection::open(scene.world.dir.path().join("control.db")).unwrap();
    let version = || watch.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
    let agents: Vec<_> = (0..40).map(|at| scene.world.id(&format!("d{at}"))).collect();
    let mut versions = std::collections::BTreeSet::from([version()]);
    for bytes in 1..=10 {
        for agent in &agents {
            progress(&scene.hub, *agent, scene.by(), vec![scene.status(State::Running, bytes)]).await;
        }
        versions.insert(version());
    }
    for at in 0..40 {
        scene.until(&format!("d{at}"), 10).await;
        versions.insert(version());
    }
    // Of 400 reports. On a machine that hangs, more than one turn of the clock.
    assert!(versions.len() < 40, "{versions:?}");
    assert_eq!(scene.world.part(&scene.run, "d7", "source").state, RunAgentState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_waited_for_is_on_the_disk_and_progress_before_it_too() {
    let scene = scene(2);
    let agent = scene.world.id("d0");
    for bytes in 1..=20 {
        progress(&scene.hub, agent, scene.by(), vec![scene.status(State::Running, bytes)]).await;
    }
    let ended = vec![scene.status(State::Done, 21)];
    let work = move |write: &mut Write<'_>| runs::report(write, agent, &ended);
    write(&scene.hub, agent, scene.by(), 0, work).await.unwrap();
    let part = scene.world.part(&scene.run, "d0", "source");
    assert_eq!((part.state, part.bytes), (RunAgentState::Done, 21));
    // Progress that came late changes nothing any more.
    progress(&scene.hub, agent, scene.by(), vec![scene.status(State::Running, 5)]).await;
    scene.hub.finish();
    assert_eq!(scene.world.part(&scene.run, "d0", "source").state, RunAgentState::Done);
    // It is given back once it is told that it is written, which may be a moment later.
    let all = u32::try_from(PENDING_BYTES_MAX).unwrap();
    let free = tokio::time::timeout(Duration::from_secs(30), scene.hub.intake.room.acquire_many(all));
    assert!(free.await.is_ok(), "all room is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_does_not_take_others_with_it() {
    let scene = scene(2);
    let count = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..200_u64 {
        let (hub, by, agent, count) =
            (Arc::clone(&scene.hub), scene.by(), scene.world.id("d0"), Arc::clone(&count));
        tasks.spawn(async move {
            let done = write(&hub, agent, by, 100, move |write| {
                count.fetch_add(1, Ordering::Relaxed);
                write.audit("test.put", &format!("thing:{at}"), None, None)?;
                if at % 2 == 0 { Ok(at) } else { Err(DbError::Stale) }
            });
            assert_eq!(done.await.is_ok(), at % 2 == 0);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(count.load(Ordering::Relaxed), 200);
    let actions = scene.world.actions();
    assert_eq!(actions.iter().filter(|action| *action == "test.put").count(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_panics_leaves_a_way_for_the_next() {
    let scene = scene(1);
    let agent = scene.world.id("d0");
    let bad = write(&scene.hub, agent, scene.by(), 0, |_| -> Result<(), DbError> { panic!("on purpose") });
    assert!(bad.await.is_err());
    let good =
        write(&scene.hub, agent, scene.by(), 0, |write| write.audit("test.put", "thing:1", None, None));
    tokio::time::timeout(PATIENCE, good).await.unwrap().unwrap();
}

#[test]
fn only_what_changes_nothing_but_numbers_is_progress() {
    let status = |state: State, bytes| JobStatus {
        job_id: vec![1],
        state: state.into(),
        bytes,
        ..JobStatus::default()
    };
    let report = |jobs| Report { jobs, events: vec![] };
    let mut known = Known::default();
    let first = report(vec![status(State::Running, 1)]);
    assert!(!known.is_progress(&first));
    known.learn(Known::shapes(&first.jobs));
    assert!(known.is_progress(&report(vec![status(State::Running, 2)])));
    assert!(known.is_progress(&report(vec![])), "a sign of life");
    assert!(!known.is_progress(&report(vec![status(State::Done, 2)])));
    let other = JobStatus { addresses: vec!["a:1".into()], ..status(State::Running, 2) };
    assert!(!known.is_progress(&report(vec![other])));
    let event = sealift_api::agent::Event::default();
    assert!(!known.is_progress(&Report { jobs: vec![], events: vec![event] }));
}
