//! The model keeps its promises, whatever comes.

use super::*;
use proptest::prelude::*;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

fn packet(bytes: u64) -> Packet {
    Packet { flow: 0, bytes, payload_bytes: bytes.saturating_sub(28) }
}

fn spec() -> LinkSpec {
    LinkSpec { rate: 200_000_000, delay: Duration::from_millis(50), ..LinkSpec::default() }
}

/// So many packets of 1500 bytes, one each `gap`.
fn even(link: &mut Link, packets: u64, gap: u64) -> Vec<Fate> {
    (0..packets).map(|number| link.offer(number * gap, packet(1500))).collect()
}

fn arrivals(fates: &[Fate]) -> Vec<u64> {
    let arrival = |fate: &Fate| match fate {
        Fate::Arrives(at) => Some(*at),
        Fate::Lost | Fate::Overflows => None,
    };
    fates.iter().filter_map(arrival).collect()
}

#[test]
fn an_empty_link_takes_its_delay_and_the_time_of_sending() {
    let mut link = Link::new(spec(), 1);
    // 1500 bytes at 200 Mb/s are 60 µs.
    assert_eq!(link.offer(0, packet(1500)), Fate::Arrives(50 * MILLISECOND + 60_000));
    assert_eq!(link.offer(SECOND, packet(1500)), Fate::Arrives(SECOND + 50 * MILLISECOND + 60_000));
    assert_eq!(link.tally().queueing.longest(), Duration::ZERO);
}

#[test]
fn a_full_link_sends_at_its_rate_and_drops_the_rest() {
    let mut link = Link::new(spec(), 1);
    // Twice its rate, for two seconds.
    let fates = even(&mut link, 66_666, 30_000);
    let arrived = arrivals(&fates);
    let lasted = arrived.last().unwrap() - arrived[0];
    let rate = arrived.len() as f64 * 1500.0 * 8.0 / (lasted as f64 / 1e9);
    assert!((rate / 200e6 - 1.0).abs() < 0.001, "{rate}");
    let all = link.tally().all();
    assert_eq!(all.overflowed.packets + arrived.len() as u64, 66_666);
    assert_eq!(all.lost.packets, 0);
    let longest = link.tally().queueing.longest();
    assert!(longest <= Duration::from_millis(100) && longest > Duration::from_millis(99), "{longest:?}");
}

#[test]
fn about_as_many_are_lost_and_reordered_as_was_asked_for() {
    let mut link = Link::new(LinkSpec { loss: 0.01, reorder: 0.05, ..spec() }, 7);
    let fates = even(&mut link, 100_000, 100_000);
    let lost = link.tally().all().lost.packets;
    assert!((900..1100).contains(&lost), "{lost}");
    let arrived = arrivals(&fates);
    assert_eq!(arrived.len() as u64, 100_000 - lost);
    let overtaken = arrived.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((4000..5500).contains(&overtaken), "{overtaken}");
}

#[test]
fn jitter_wanders_through_its_range() {
    let jitter = Duration::from_millis(20);
    let mut link = Link::new(LinkSpec { jitter, ..spec() }, 3);
    let fates = even(&mut link, 50_000, 200_000);
    let extra: Vec<u64> =
        arrivals(&fates).iter().zip(0..).map(|(at, number)| at - number * 200_000 - 50_060_000).collect();
    let mean = extra.iter().sum::<u64>() as f64 / extra.len() as f64;
    assert!((mean / 10e6 - 1.0).abs() < 0.1, "{mean}");
    assert!(
        *extra.iter().max().unwrap() > 18 * MILLISECOND && *extra.iter().min().unwrap() < 2 * MILLISECOND
    );
}

#[test]
fn what_happens_to_one_packet_does_not_change_the_luck_of_others() {
    let lossy = LinkSpec { loss: 0.3, ..spec() };
    let (mut one, mut other) = (Link::new(lossy, 5), Link::new(LinkSpec { reorder: 0.5, ..lossy }, 5));
    let lost = |fates: Vec<Fate>| fates.iter().map(|fate| *fate == Fate::Lost).collect::<Vec<_>>();
    assert_eq!(lost(even(&mut one, 1000, 60_000)), lost(even(&mut other, 1000, 60_000)));
}

fn specs() -> impl Strategy<Value = LinkSpec> {
    let times = (0..200_u64, 0..50_u64, 0..200_u64);
    (1_000_000..2_000_000_000_u64, times, 0.0..0.5, 0.0..0.5).prop_map(|(rate, times, loss, reorder)| {
        let (delay, jitter, queue) = times;
        LinkSpec {
            rate,
            delay: Duration::from_millis(delay),
            jitter: Duration::from_millis(jitter),
            loss,
            reorder,
            queue: Duration::from_millis(queue),
        }
    })
}

fn comings() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0..3 * MILLISECOND, 20..1500_u64), 1..400)
}

/// When each packet came, its size, and what became of it.
fn run(link: &mut Link, comings: &[(u64, u64)]) -> Vec<(u64, u64, Fate)> {
    let mut now = 0;
    let each = comings.iter().map(|(gap, bytes)| {
        now += gap;
        (now, *bytes, link.offer(now, packet(*bytes)))
    });
    each.collect()
}

proptest! {
    #[test]
    fn the_same_seed_makes_the_same(spec in specs(), comings in comings(), seed: u64) {
        let run = |seed| run(&mut Link::new(spec, seed), &comings);
        prop_assert_eq!(run(seed), run(seed));
    }

    #[test]
    fn nothing_is_early_and_nothing_waits_for_longer_than_the_queue(
        spec in specs(), comings in comings(), seed: u64,
    ) {
        let mut link = Link::new(spec, seed);
        for (now, bytes, fate) in run(&mut link, &comings) {
            if let Fate::Arrives(at) = fate {
                let sending = (bytes * 8_000_000_000).div_ceil(spec.rate);
                let least = now + nanoseconds(spec.delay) + sending;
                let most = least + nanoseconds(spec.queue) + nanoseconds(spec.jitter);
                prop_assert!(at >= least, "{at} {least}");
                prop_assert!(at <= most + if spec.reorder > 0.0 { FALLS_BACK[1] } else { 0 }, "{at} {most}");
            }
        }
        prop_assert!(link.tally().queueing.longest() <= spec.queue);
    }

    #[test]
    fn the_order_is_kept_unless_it_is_to_be_changed(spec in specs(), comings in comings(), seed: u64) {
        let mut link = Link::new(LinkSpec { reorder: 0.0, ..spec }, seed);
        let fates: Vec<Fate> = run(&mut link, &comings).into_iter().map(|(_, _, fate)| fate).collect();
        prop_assert!(arrivals(&fates).is_sorted());
    }

    #[test]
    fn it_is_never_faster_than_its_rate(spec in specs(), comings in comings(), seed: u64) {
        let steady = LinkSpec { reorder: 0.0, jitter: Duration::ZERO, ..spec };
        let mut link = Link::new(steady, seed);
        let arrived: Vec<(u64, u64)> = run(&mut link, &comings)
            .into_iter()
            .filter_map(|(_, bytes, fate)| match fate {
                Fate::Arrives(at) => Some((at, bytes)),
                Fate::Lost | Fate::Overflows => None,
            })
            .collect();
        for (from, (began, _)) in arrived.iter().enumerate() {
            let bits: u64 = arrived[from + 1..].iter().map(|(_, bytes)| bytes * 8).sum();
            let (ended, _) = arrived[arrived.len() - 1];
            prop_assert!(u128::from(ended - began) * u128::from(steady.rate) >= u128::from(bits) * 1_000_000_000);
        }
    }

    #[test]
    fn every_packet_is_counted_once(spec in specs(), comings in comings(), seed: u64) {
        let mut link = Link::new(spec, seed);
        let fates = run(&mut link, &comings);
        let count = |wanted: fn(&Fate) -> bool| {
            let of = fates.iter().filter(|(_, _, fate)| wanted(fate));
            of.fold((0, 0), |(packets, sum), (_, bytes, _)| (packets + 1, sum + bytes))
        };
        let all = link.tally().all();
        let pair = |count: super::super::tally::Count| (count.packets, count.bytes);
        prop_assert_eq!(pair(all.offered), count(|_| true));
        prop_assert_eq!(pair(all.lost), count(|fate| *fate == Fate::Lost));
        prop_assert_eq!(pair(all.overflowed), count(|fate| *fate == Fate::Overflows));
        prop_assert_eq!(pair(all.passed()), count(|fate| matches!(fate, Fate::Arrives(_))));
        prop_assert_eq!(link.tally().queueing.count(), all.offered.packets - all.overflowed.packets);
    }
}
