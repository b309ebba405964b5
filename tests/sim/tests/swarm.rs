//! What is claimed of the swarm, in virtual time. docs/swarm.md has the same at full size.
//!
//! `SEALIFT_TEST_SIM_RECEIVERS` says how many receivers, `SEALIFT_TEST_SIM_SEEDS` how many seeds each scenario is played
//! with. A scenario that fails prints itself, its seed included, which plays it again.

use sealift_sim::{Report, Scenario, run};

fn number(variable: &str, otherwise: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
        Err(_) => otherwise,
    }
}

/// Sixty receivers, or as many as were asked for, and more runs the more they are.
fn crowd() -> Scenario {
    let receivers = number("SEALIFT_TEST_SIM_RECEIVERS", 60);
    Scenario { receivers, runs: receivers.clamp(300, 1000), ..Scenario::default() }
}

/// Plays a scenario with each seed, and has what came of it judged.
fn play(scenario: &Scenario, judge: impl Fn(&Scenario, &Report) -> Result<(), String>) {
    for seed in 1..=u64::from(number("SEALIFT_TEST_SIM_SEEDS", 2)) {
        let scenario = Scenario { seed, ..scenario.clone() };
        let report = run(&scenario);
        let unfinished = match report.unfinished {
            0 => Ok(()),
            unfinished => Err(format!("{unfinished} receivers are not done")),
        };
        if let Err(what) = unfinished.and_then(|()| judge(&scenario, &report)) {
            panic!("{what}\n{scenario:?}\n{report}");
        }
    }
}

fn holds(what: &str, is: f64, at_most: f64) -> Result<(), String> {
    if is <= at_most { Ok(()) } else { Err(format!("{what} is {is:.3}, which is more than {at_most:.3}")) }
}

fn percentile(report: &Report, percent: u32) -> f64 {
    report.percentile_s(percent).unwrap_or(f64::INFINITY)
}

/// What holds of every crowd: the last are not far behind the others, and the source sends little.
fn crowd_is_served(report: &Report) -> Result<(), String> {
    holds("p99 to p50", percentile(report, 99) / percentile(report, 50), 2.0)?;
    holds("what the source sends", report.source_copies(), 3.0)
}

/// Misfortune of a tenth makes neither the time nor the source's part more than half as large again.
fn no_more_than_half_as_much_again(scenario: &Scenario, report: &Report) -> Result<(), String> {
    crowd_is_served(report)?;
    let calm = run(&Scenario { crashes: 0.0, liars: 0.0, ..scenario.clone() });
    for percent in [50, 99] {
        let ratio = percentile(report, percent) / percentile(&calm, percent);
        holds(&format!("p{percent} beside that without misfortune"), ratio, 1.5)?;
    }
    let ratio = report.source_copies() / calm.source_copies();
    holds("what the source sends beside that without misfortune", ratio, 1.5)
}

#[test]
fn p10_eight_receivers_take_little_more_than_one_copy_and_little_longer_than_one() {
    let scenario = Scenario { receivers: 8, runs: 1000, neighbours: 16, ..Scenario::default() };
    play(&scenario, |scenario, report| {
        holds("what the source sends", report.source_copies(), 1.3)?;
        let one = run(&Scenario { receivers: 1, ..scenario.clone() });
        holds("the last beside one alone", percentile(report, 100) / percentile(&one, 100), 1.5)
    });
}

#[test]
fn p10_about_one_copy_crosses_a_slow_link_between_zones() {
    let scenario = Scenario {
        receivers: 8,
        runs: 500,
        neighbours: 16,
        zones: 2,
        zone_mbit: 50.0,
        ..Scenario::default()
    };
    play(&scenario, |_, report| {
        holds("what crosses the link", report.far_copies(), 1.15)?;
        holds("what the source sends", report.source_copies(), 1.3)
    });
}

#[test]
fn about_one_copy_crosses_between_zones_of_many() {
    play(&Scenario { zones: 2, zone_mbit: 50.0, ..crowd() }, |_, report| {
        holds("what crosses the link", report.far_copies(), 1.3)?;
        holds("what the source sends", report.source_copies(), 3.0)
    });
}

#[test]
fn a_crowd_is_done_almost_together_and_the_source_sends_little() {
    play(&crowd(), |_, report| crowd_is_served(report));
}

#[test]
fn crashes_of_a_tenth_cost_less_than_half() {
    play(&Scenario { crashes: 10.0, ..crowd() }, no_more_than_half_as_much_again);
}

#[test]
fn a_tenth_of_liars_cost_less_than_half_and_are_banned() {
    play(&Scenario { liars: 10.0, ..crowd() }, |scenario, report| {
        if report.bans == 0 {
            return Err("nobody was banned".into());
        }
        no_more_than_half_as_much_again(scenario, report)
    });
}

#[test]
fn slow_receivers_do_not_make_the_others_slow() {
    let scenario = Scenario { slow: 10.0, ..crowd() };
    play(&scenario, |scenario, report| {
        let calm = run(&Scenario { slow: 0.0, ..scenario.clone() });
        holds("p50 beside that without them", percentile(report, 50) / percentile(&calm, 50), 1.5)?;
        holds("p85 beside that without them", percentile(report, 85) / percentile(&calm, 85), 2.0)?;
        holds("what the source sends", report.source_copies(), 3.0)
    });
}

#[test]
fn a_swarm_that_was_cut_in_halves_is_done_once_it_is_one_again() {
    play(&Scenario { partition: true, ..crowd() }, |scenario, report| {
        holds("the last beside one alone", percentile(report, 100) / scenario.alone_s(), 4.0)?;
        holds("what the source sends", report.source_copies(), 3.0)
    });
}

#[test]
fn what_the_source_left_behind_once_reaches_everybody() {
    play(&Scenario { source_leaves: true, ..crowd() }, |_, report| crowd_is_served(report));
}

#[test]
fn a_seed_plays_the_same_again() {
    let scenario = Scenario { receivers: 20, runs: 100, crashes: 10.0, liars: 10.0, ..Scenario::default() };
    let one = run(&scenario);
    let same = run(&scenario);
    assert_eq!(one.to_string(), same.to_string());
    let other = run(&Scenario { seed: 2, ..scenario });
    assert_ne!(one.events, other.events);
}
