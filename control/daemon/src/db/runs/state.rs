//! The rules of runs, as functions of their arguments alone.

use sealift_api::agent::job_status::State as Said;
use sealift_api::rest::{RunAgentState, RunRole, RunState};

/// How an agent stands in a run, after it has said how it does.
///
/// An agent that has ended its part stays ended, whatever it says: a report may be late, and an agent that lost its
/// memory may begin again. In a run that is over nobody's state changes. Else the agent knows best: one that runs in a
/// paused run has not heard of the pause yet, and one that waits after it ran was started anew.
#[must_use]
pub fn observed(run: RunState, now: RunAgentState, said: Said) -> RunAgentState {
    if run.is_over() || now.is_over() {
        return now;
    }
    match said {
        Said::Unspecified => now,
        Said::Waiting => RunAgentState::Waiting,
        Said::Running => RunAgentState::Running,
        Said::Paused => RunAgentState::Paused,
        Said::Done => RunAgentState::Done,
        Said::Partial => RunAgentState::Partial,
        Said::Failed => RunAgentState::Failed,
        Said::Stopped => RunAgentState::Stopped,
    }
}

/// How a run stands, by how its agents do. It goes on until all destinations have ended; then they decide: all done is
/// done, unless a source could not read everything; nothing anywhere is failed, or stopped if all of them were; else it
/// is partial.
#[must_use]
pub fn derived(run: RunState, agents: impl IntoIterator<Item = (RunRole, RunAgentState)>) -> RunState {
    if run.is_over() {
        return run;
    }
    let mut destinations = Vec::new();
    let mut whole = true;
    for (role, state) in agents {
        match role {
            RunRole::Source => whole &= state != RunAgentState::Partial,
            RunRole::Destination => destinations.push(state),
        }
    }
    let all = |state| destinations.iter().all(|other| *other == state);
    if !destinations.iter().all(|state| state.is_over()) {
        run
    } else if all(RunAgentState::Done) {
        if whole { RunState::Done } else { RunState::Partial }
    } else if all(RunAgentState::Stopped) {
        RunState::Stopped
    } else if destinations.iter().all(|s| matches!(s, RunAgentState::Failed | RunAgentState::Stopped)) {
        RunState::Failed
    } else {
        RunState::Partial
    }
}

/// How a source stands that has not ended when its run does: it has given all that was taken.
#[must_use]
pub(super) fn source_at_end(run: RunState) -> RunAgentState {
    match run {
        RunState::Stopped => RunAgentState::Stopped,
        RunState::Failed => RunAgentState::Failed,
        RunState::Running | RunState::Paused | RunState::Done | RunState::Partial => RunAgentState::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RunAgentState::{Done, Failed, Partial, Paused, Running, Stopped, Waiting};

    const SAID: [(Said, Option<RunAgentState>); 8] = [
        (Said::Unspecified, None),
        (Said::Waiting, Some(Waiting)),
        (Said::Running, Some(Running)),
        (Said::Paused, Some(Paused)),
        (Said::Done, Some(Done)),
        (Said::Partial, Some(Partial)),
        (Said::Failed, Some(Failed)),
        (Said::Stopped, Some(Stopped)),
    ];

    #[test]
    fn what_has_ended_stays_ended() {
        for run in RunState::ALL {
            for now in [Done, Partial, Failed, Stopped] {
                for (said, _) in SAID {
                    assert_eq!(observed(*run, now, said), now, "{run} {now} {said:?}");
                }
            }
        }
    }

    #[test]
    fn in_a_run_that_is_over_nothing_changes() {
        for run in [RunState::Done, RunState::Partial, RunState::Failed, RunState::Stopped] {
            for now in RunAgentState::ALL {
                for (said, _) in SAID {
                    assert_eq!(observed(run, *now, said), *now, "{run} {now} {said:?}");
                }
            }
        }
    }

    #[test]
    fn else_the_agent_knows_best() {
        for run in [RunState::Running, RunState::Paused] {
            for now in [Waiting, Running, Paused] {
                for (said, state) in SAID {
                    assert_eq!(observed(run, now, said), state.unwrap_or(now), "{run} {now} {said:?}");
                }
            }
        }
    }

    /// All ways in which up to three destinations can stand.
    fn all_destinations() -> Vec<Vec<RunAgentState>> {
        let mut all: Vec<Vec<RunAgentState>> = vec![vec![]];
        let mut longest = all.clone();
        for _ in 0..3 {
            longest = longest
                .iter()
                .flat_map(|states| {
                    RunAgentState::ALL.iter().map(|state| [states.as_slice(), &[*state]].concat())
                })
                .collect();
            all.extend_from_slice(&longest);
        }
        all.retain(|states| !states.is_empty());
        all
    }

    #[test]
    fn a_run_stands_as_its_destinations_do() {
        for states in all_destinations() {
            for source in RunAgentState::ALL {
                for run in RunState::ALL {
                    let rows = states.iter().map(|state| (RunRole::Destination, *state));
                    let found = derived(*run, rows.chain([(RunRole::Source, *source)]));
                    let any = |wanted: &[RunAgentState]| states.iter().any(|state| wanted.contains(state));
                    let only = |wanted: &[RunAgentState]| states.iter().all(|state| wanted.contains(state));
                    let expected = match () {
                        () if run.is_over() => *run,
                        () if any(&[Waiting, Running, Paused]) => *run,
                        () if only(&[Done]) && *source == Partial => RunState::Partial,
                        () if only(&[Done]) => RunState::Done,
                        () if any(&[Done, Partial]) => RunState::Partial,
                        () if only(&[Stopped]) => RunState::Stopped,
                        () => RunState::Failed,
                    };
                    assert_eq!(found, expected, "{run} {source} {states:?}");
                }
            }
        }
    }
}
