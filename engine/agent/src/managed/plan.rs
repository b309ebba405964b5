//! What is to be done so that what runs becomes what is desired: a pure function, called after everything that happens.
//!
//! Level-triggered: it is told what is desired and what is there, never what has changed. Owns no process and no clock.

use crate::managed::document::{RunKey, Wish};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Children at a time; further runs wait for one to end.
pub(crate) const CHILDREN_MAX: usize = 64;
/// What a child has from being asked to end until it is made to.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What tells work from other work: see `Work::spec`.
pub(crate) type Spec = [u8; 32];

/// What is desired of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) wish: Wish,
    pub(crate) spec: Spec,
    /// Whether it can begin: a destination has to know of a source.
    pub(crate) ready: bool,
}

/// How it stands with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Without a child, which may be started from then on.
    Waiting { from: Option<Instant> },
    /// With a child, for that work.
    Running { spec: Spec },
    /// With a child that was asked to end.
    Stopping { since: Instant, killed: bool },
    /// Without a child, as was wished.
    Settled { wish: Wish },
    /// That work came to an end.
    Ended { spec: Spec },
}

impl Phase {
    pub(crate) fn has_child(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Stopping { .. })
    }
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start a child.
    Start(RunKey),
    /// Ask the child to end.
    Terminate(RunKey),
    /// Make the child end.
    Kill(RunKey),
    /// The run has no child and is to have none: it is as wished.
    Settle(RunKey, Wish),
    /// The run is not desired and has no child.
    Forget(RunKey),
}

/// The steps that are due now. A job has one child at a time, whichever run it is for, since they share a state
/// directory.
pub(crate) fn plan(
    now: Instant,
    wanted: &BTreeMap<RunKey, Wanted>,
    runs: &BTreeMap<RunKey, Phase>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut busy: BTreeSet<[u8; 16]> =
        runs.iter().filter(|(_, phase)| phase.has_child()).map(|(key, _)| key.job).collect();
    let mut children = runs.values().filter(|phase| phase.has_child()).count();
    for (&key, phase) in runs {
        let wanted = wanted.get(&key);
        match *phase {
            Phase::Running { spec } => {
                if wanted.is_none_or(|wanted| wanted.wish != Wish::Run || wanted.spec != spec) {
                    steps.push(Step::Terminate(key));
                }
            }
            Phase::Stopping { since, killed } => {
                if !killed && now >= since + GRACE {
                    steps.push(Step::Kill(key));
                }
            }
            Phase::Waiting { .. } | Phase::Settled { .. } | Phase::Ended { .. } if wanted.is_none() => {
                steps.push(Step::Forget(key));
            }
            Phase::Waiting { .. } | Phase::Settled { .. } | Phase::Ended { .. } => {}
        }
    }
    for (&key, wanted) in wanted {
        let phase = runs.get(&key).copied().unwrap_or(Phase::Waiting { from: None });
        let open = match phase {
            Phase::Running { .. } | Phase::Stopping { .. } => false,
            Phase::Ended { spec } => spec != wanted.spec,
            Phase::Settled { wish } => wish != wanted.wish,
            Phase::Waiting { .. } => true,
        };
        if !open {
            continue;
        }
        match wanted.wish {
            Wish::Pause | Wish::Stop => steps.push(Step::Settle(key, wanted.wish)),
            Wish::Run => {
                let due = !matches!(phase, Phase::Waiting { from: Some(from) } if now < from);
                if due && wanted.ready && children < CHILDREN_MAX && busy.insert(key.job) {
                    children += 1;
                    steps.push(Step::Start(key));
                }
            }
        }
    }
    steps
}

/// When the next step is due by time alone.
pub(crate) fn next_due(runs: &BTreeMap<RunKey, Phase>) -> Option<Instant> {
    let due = |phase: &Phase| match *phase {
        Phase::Waiting { from } => from,
        Phase::Stopping { since, killed: false } => Some(since + GRACE),
        _ => None,
    };
    runs.values().filter_map(due).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(job: u8, run: u8) -> RunKey {
        RunKey { job: [job; 16], run: [run; 16] }
    }

    fn wanted(wish: Wish, spec: u8) -> Wanted {
        Wanted { wish, spec: [spec; 32], ready: true }
    }

    fn one(now: Instant, wanted: Option<Wanted>, phase: Option<Phase>) -> Vec<Step> {
        let wanted = wanted.into_iter().map(|wanted| (key(1, 1), wanted)).collect();
        let runs = phase.into_iter().map(|phase| (key(1, 1), phase)).collect();
        plan(now, &wanted, &runs)
    }

    #[test]
    fn each_wish_meets_each_phase() {
        let now = Instant::now();
        let (run, run_other) = (wanted(Wish::Run, 1), wanted(Wish::Run, 2));
        let (pause, stop) = (wanted(Wish::Pause, 1), wanted(Wish::Stop, 1));
        let running = Phase::Running { spec: [1; 32] };
        let ended = Phase::Ended { spec: [1; 32] };
        let waiting = Phase::Waiting { from: None };
        let later = Phase::Waiting { from: Some(now + GRACE) };
        let paused = Phase::Settled { wish: Wish::Pause };
        let stopping = |ago, killed| Phase::Stopping { since: now - ago, killed };
        let k = key(1, 1);
        for (wanted, phase, steps) in [
            (Some(run), None, vec![Step::Start(k)]),
            (Some(pause), None, vec![Step::Settle(k, Wish::Pause)]),
            (Some(run), Some(waiting), vec![Step::Start(k)]),
            (Some(run), Some(later), vec![]),
            (Some(run), Some(running), vec![]),
            (Some(run_other), Some(running), vec![Step::Terminate(k)]),
            (Some(pause), Some(running), vec![Step::Terminate(k)]),
            (Some(stop), Some(running), vec![Step::Terminate(k)]),
            (None, Some(running), vec![Step::Terminate(k)]),
            (Some(run), Some(stopping(Duration::ZERO, false)), vec![]),
            (Some(run), Some(stopping(GRACE, false)), vec![Step::Kill(k)]),
            (None, Some(stopping(GRACE, true)), vec![]),
            (Some(run), Some(paused), vec![Step::Start(k)]),
            (Some(pause), Some(paused), vec![]),
            (Some(stop), Some(paused), vec![Step::Settle(k, Wish::Stop)]),
            (Some(run), Some(ended), vec![]),
            (Some(pause), Some(ended), vec![]),
            (Some(stop), Some(ended), vec![]),
            (Some(run_other), Some(ended), vec![Step::Start(k)]),
            (None, Some(ended), vec![Step::Forget(k)]),
            (None, Some(waiting), vec![Step::Forget(k)]),
            (Some(Wanted { ready: false, ..run }), None, vec![]),
        ] {
            assert_eq!(one(now, wanted, phase), steps, "{wanted:?} {phase:?}");
        }
    }

    #[test]
    fn a_new_run_waits_until_the_last_run_of_its_job_has_ended() {
        let now = Instant::now();
        let wanted = BTreeMap::from([(key(1, 2), wanted(Wish::Run, 1))]);
        let mut runs = BTreeMap::from([(key(1, 1), Phase::Stopping { since: now, killed: false })]);
        assert_eq!(plan(now, &wanted, &runs), []);
        assert_eq!(next_due(&runs), Some(now + GRACE));
        runs.clear();
        assert_eq!(plan(now, &wanted, &runs), [Step::Start(key(1, 2))]);
    }

    fn any_key() -> impl Strategy<Value = RunKey> {
        (0u8..4, 0u8..3).prop_map(|(job, run)| key(job, run))
    }

    fn any_wish() -> impl Strategy<Value = Wish> {
        prop_oneof![Just(Wish::Run), Just(Wish::Pause), Just(Wish::Stop)]
    }

    fn any_wanted() -> impl Strategy<Value = BTreeMap<RunKey, Wanted>> {
        let one = (any_wish(), 0u8..2, any::<bool>())
            .prop_map(|(wish, spec, ready)| Wanted { ready, ..wanted(wish, spec) });
        proptest::collection::btree_map(any_key(), one, 0..10)
    }

    /// What doing a step brings about.
    fn apply(
        step: Step,
        now: Instant,
        wanted: &BTreeMap<RunKey, Wanted>,
        runs: &mut BTreeMap<RunKey, Phase>,
    ) {
        match step {
            Step::Start(key) => drop(runs.insert(key, Phase::Running { spec: wanted[&key].spec })),
            Step::Terminate(key) => drop(runs.insert(key, Phase::Stopping { since: now, killed: false })),
            Step::Kill(key) => drop(runs.insert(key, Phase::Stopping { since: now, killed: true })),
            Step::Settle(key, wish) => drop(runs.insert(key, Phase::Settled { wish })),
            Step::Forget(key) => drop(runs.remove(&key)),
        }
    }

    proptest! {
        /// Documents come, children end as they like: a job never has two children, no step is repeated, and once
        /// documents stay away and children that were asked end, everything is as desired.
        #[test]
        fn what_runs_becomes_what_is_desired(
            documents in proptest::collection::vec(any_wanted(), 1..5),
            ends in proptest::collection::vec((any_key(), any::<bool>()), 0..20),
        ) {
            let mut now = Instant::now();
            let mut runs = BTreeMap::new();
            for wanted in &documents {
                for (key, well) in &ends {
                    let steps = plan(now, wanted, &runs);
                    for step in &steps {
                        apply(*step, now, wanted, &mut runs);
                    }
                    let jobs: Vec<_> =
                        runs.iter().filter(|(_, p): &(_, &Phase)| p.has_child()).map(|(k, _)| k.job).collect();
                    prop_assert_eq!(jobs.iter().collect::<BTreeSet<_>>().len(), jobs.len());
                    // Nothing that was done is due again.
                    let again = plan(now, wanted, &runs);
                    prop_assert!(again.iter().all(|step| !steps.contains(step)), "{:?} {:?}", steps, again);
                    match runs.get(key).copied() {
                        Some(Phase::Running { spec }) if *well => drop(runs.insert(*key, Phase::Ended { spec })),
                        Some(phase) if phase.has_child() => {
                            runs.insert(*key, Phase::Waiting { from: Some(now + Duration::from_secs(1)) });
                        }
                        _ => {}
                    }
                    now += Duration::from_secs(1);
                }
            }
            let wanted = documents.last().expect("one at least");
            for _ in 0..20 {
                now += GRACE;
                for step in plan(now, wanted, &runs) {
                    apply(step, now, wanted, &mut runs);
                }
                for phase in runs.values_mut() {
                    if let Phase::Stopping { .. } = phase {
                        *phase = Phase::Waiting { from: None };
                    }
                }
            }
            for (key, phase) in &runs {
                let wanted = wanted.get(key);
                prop_assert!(wanted.is_some(), "{:?} is left", key);
                let wanted = wanted.expect("just looked");
                let right = match phase {
                    Phase::Running { spec } => wanted.wish == Wish::Run && *spec == wanted.spec,
                    // What is to run waits for a source, or for another run of its job.
                    Phase::Settled { wish } => *wish == wanted.wish || wanted.wish == Wish::Run,
                    Phase::Ended { spec } => *spec == wanted.spec || wanted.wish == Wish::Run,
                    Phase::Waiting { .. } => wanted.wish == Wish::Run,
                    Phase::Stopping { .. } => false,
                };
                prop_assert!(right, "{:?} {:?}", wanted, phase);
            }
        }

        #[test]
        fn there_are_never_more_children_than_allowed(jobs in 0u8..200) {
            let wanted: BTreeMap<_, _> = (0..jobs).map(|job| (key(job, 0), wanted(Wish::Run, 0))).collect();
            let steps = plan(Instant::now(), &wanted, &BTreeMap::new());
            prop_assert_eq!(steps.len(), usize::from(jobs).min(CHILDREN_MAX));
        }
    }
}
