//! A database with agents, jobs and a clock, for tests.

use super::{EnrolRequest, Hello, Said, create_token, enrol, hello, join_group};
use crate::db::{Actor, Db, DbError, MasterKey, Write, jobs, new_id, runs};
use crate::documents;
use rusqlite::Connection;
use sealift_api::agent::job_status::State;
use sealift_api::agent::{Document, HostFacts, JobStatus};
use sealift_api::rest::{
    Agent, AgentState, Job, NewEnrolmentToken, NewEnrolmentTokenSecret, NewJob, Run, RunAgent,
};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) dir: TempDir,
    now_ms: Arc<AtomicI64>,
}

/// Who an operator is.
pub(crate) fn operator() -> Actor {
    Actor { who: "user:op".into(), address: "192.0.2.1".into(), request_id: new_id() }
}

/// The key of the agent of a name.
pub(crate) fn key(name: &str) -> [u8; 32] {
    Sha256::digest(name).into()
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let now_ms = Arc::new(AtomicI64::new(1_800_000_000_000));
        let clock = Arc::clone(&now_ms);
        let db = Db::create(&dir.path().join("control.db"), MasterKey::generate().unwrap()).unwrap();
        let db = db.with_clock(Arc::new(move || clock.load(Ordering::Relaxed)));
        Self { db, dir, now_ms }
    }

    pub(crate) fn with_agents(names: &[&str]) -> Self {
        let world = Self::new();
        for name in names {
            world.enrolled(name);
        }
        world
    }

    pub(crate) fn pass_ms(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) fn write<T>(&self, work: impl FnOnce(&mut Write<'_>) -> Result<T, DbError>) -> T {
        self.try_write(work).unwrap()
    }

    pub(crate) fn try_write<T>(
        &self,
        work: impl FnOnce(&mut Write<'_>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        self.db.write(&operator(), work)
    }

    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> T {
        self.db.read(work).unwrap()
    }

    pub(crate) fn token(&self, approve: bool, uses: u32, seconds: u32) -> NewEnrolmentTokenSecret {
        let new = NewEnrolmentToken {
            name: "rack-1".parse().unwrap(),
            approve,
            group: None,
            uses,
            expires_in_seconds: seconds,
        };
        self.write(|w| create_token(w, &new))
    }

    pub(crate) fn enrol(&self, token: &str, name: &str, key: [u8; 32]) -> Result<Agent, DbError> {
        let facts = HostFacts { hostname: name.into(), cores: 4, ..HostFacts::default() };
        let request = EnrolRequest { token, name, key, facts: &facts, address: "192.0.2.7" };
        enrol(&self.db, &Actor::anonymous("192.0.2.7", new_id()), &request)
    }

    /// An agent that is approved.
    pub(crate) fn enrolled(&self, name: &str) -> Uuid {
        let secret = self.token(true, 1, 60).secret;
        let agent = self.enrol(&secret, name, key(name)).unwrap();
        assert_eq!(agent.state, AgentState::Approved);
        agent.id
    }

    pub(crate) fn id(&self, name: &str) -> Uuid {
        self.agent(name).id
    }

    pub(crate) fn agent(&self, name: &str) -> Agent {
        self.read(|db| super::by_name(db, &name.parse().unwrap()))
    }

    pub(crate) fn group(&self, group: &str, names: &[&str]) {
        for name in names {
            self.write(|w| join_group(w, self.id(name), &group.parse().unwrap()));
        }
    }

    pub(crate) fn hello(&self, name: &str, incarnation: &[u8]) -> Option<Vec<u8>> {
        let facts = HostFacts::default();
        let said = Said { incarnation, document: 0, facts: &facts, address: "192.0.2.7" };
        let id = self.id(name);
        match self.write(|w| hello(w, id, &said)) {
            Hello::Accepted { incarnation } => Some(incarnation.to_vec()),
            Hello::Quarantined => None,
        }
    }

    pub(crate) fn actions(&self) -> Vec<String> {
        self.read(|db| {
            let mut statement = db.prepare("SELECT action FROM audit ORDER BY number")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
    }

    /// The whole audit log as text.
    pub(crate) fn audit_text(&self) -> String {
        self.read(|db| {
            let sql = "SELECT group_concat(action || ' ' || subject || ' ' || ifnull(before, '') || ' ' || \
                ifnull(after, ''), char(10)) FROM audit";
            Ok(db.query_row(sql, [], |row| row.get(0))?)
        })
    }

    pub(crate) fn new_job(&self, name: &str, kind: &str, from: &[&str], to: &[&str]) -> Result<Job, DbError> {
        let spec = serde_json::json!({ "kind": kind, "from": from, "to": to });
        let new = NewJob { name: name.parse().unwrap(), spec: serde_json::from_value(spec).unwrap() };
        self.try_write(|w| jobs::create(w, &new))
    }

    pub(crate) fn job(&self, kind: &str, from: &[&str], to: &[&str]) -> Job {
        self.new_job("models", kind, from, to).unwrap()
    }

    pub(crate) fn start(&self, job: &Job) -> Run {
        self.write(|w| runs::start(w, job.id)).0
    }

    pub(crate) fn run(&self, id: Uuid) -> Run {
        self.read(|db| runs::get(db, id))
    }

    /// How an agent stands in a run, with a source.
    pub(crate) fn part(&self, run: &Run, agent: &str, source: &str) -> RunAgent {
        let detail = self.read(|db| runs::detail(db, run.id));
        let is_it = |part: &&RunAgent| part.agent.as_str() == agent && part.source.as_str() == source;
        detail.agents.iter().find(is_it).unwrap().clone()
    }

    /// An agent's report of its part with a source, and whom that concerns.
    pub(crate) fn says(
        &self,
        run: &Run,
        agent: &str,
        source: &str,
        state: State,
        change: impl FnOnce(&mut JobStatus),
    ) -> Vec<String> {
        let job = self.read(|db| jobs::get(db, run.job_id));
        let part = documents::assignment_id(job.spec.kind, job.id, self.id(source));
        let mut status = JobStatus {
            job_id: part.as_bytes().to_vec(),
            run_id: run.id.as_bytes().to_vec(),
            state: state.into(),
            ..JobStatus::default()
        };
        change(&mut status);
        let affected = self.write(|w| runs::report(w, self.id(agent), &[status]));
        let names = affected.iter().map(|id| self.read(|db| super::get(db, *id)).name.to_string());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// A source listens.
    pub(crate) fn listens(&self, run: &Run, source: &str) -> Vec<String> {
        let addresses = vec![format!("{source}.example:3939"), "no address".into()];
        self.says(run, source, source, State::Running, |status| status.addresses = addresses)
    }

    pub(crate) fn document(&self, name: &str) -> Document {
        let id = self.id(name);
        self.write(|w| documents::current(w, id))
    }
}
