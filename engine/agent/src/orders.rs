//! What whoever started this process may tell it while it runs, on its standard input: lines of text.
//!
//! `limit UP DOWN` sets the limits of rate, each bytes a second or `none`; `limit N` sets both. The end of the input ends the
//! process as SIGTERM does: a child does not outlive the agent that it works for.

use crate::pace::Pace;
use rustix::process::{Signal, getpid, kill_process};
use sealift_proto::rate::{BothWays, Rate};
use std::io::{self, BufRead, Read as _};

/// Characters in an order.
const ORDER_CHARS_MAX: u64 = 256;

/// The order that sets these limits, as a line.
pub(crate) fn limit(limits: BothWays) -> String {
    let word =
        |rate: Option<Rate>| rate.map_or_else(|| "none".into(), |rate| rate.bytes_per_second().to_string());
    format!("limit {} {}\n", word(limits.up), word(limits.down))
}

/// Follows orders from now on, on a thread of its own.
///
/// # Errors
/// If that cannot be started.
pub fn follow(pace: Pace) -> io::Result<()> {
    let follow = move || {
        obey(io::stdin().lock(), &pace);
        // It is there: it is this one.
        let _ = kill_process(getpid(), Signal::TERM);
    };
    std::thread::Builder::new().name("sealift-orders".into()).spawn(follow).map(drop)
}

/// Obeys until there is no more, or what comes is no order: whoever says such things is not who is to be obeyed.
fn obey(mut orders: impl BufRead, pace: &Pace) {
    let mut line = String::new();
    loop {
        line.clear();
        match (&mut orders).take(ORDER_CHARS_MAX).read_line(&mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        match parse(&line) {
            Some(limits) => pace.set(limits),
            None => return,
        }
    }
}

fn parse(line: &str) -> Option<BothWays> {
    let limit = |word: &str| match word {
        "none" => Some(None),
        number => Some(Some(Rate::new(number.parse().ok()?).ok()?)),
    };
    match line.strip_suffix('\n')?.strip_prefix("limit ")?.split_once(' ') {
        Some((up, down)) => Some(BothWays { up: limit(up)?, down: limit(down)? }),
        // As agents say it that are older than their children.
        None => limit(line.strip_suffix('\n')?.strip_prefix("limit ")?).map(BothWays::each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_understood_as_they_are_given() {
        let rates = [None, Some(Rate::new(8192).unwrap()), Some(Rate::new(u64::MAX).unwrap())];
        for up in rates {
            for down in rates {
                let limits = BothWays { up, down };
                assert_eq!(parse(&limit(limits)), Some(limits));
            }
        }
        assert_eq!(parse("limit none\n"), Some(BothWays::default()));
        assert_eq!(parse("limit 9000\n"), Some(BothWays::each(Rate::new(9000).ok())));
        let wrong =
            ["", "\n", "limit\n", "limit 5\n", "limit 9000", "limit -1\n", "stop\n", "limit 9000 5\n"];
        for wrong in wrong.into_iter().chain(["limit 9000 9000 9000\n", "limit  9000\n"]) {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_order_ends_it() {
        let pace = Pace::default();
        obey(&b"limit 9000 none\nlimit 10000 20000\nelse\nlimit 11000 11000\n"[..], &pace);
        assert_eq!((pace.up.rate(), pace.down.rate()), (Rate::new(10_000).ok(), Rate::new(20_000).ok()));
        obey(&b"limit none none\n"[..], &pace);
        assert_eq!((pace.up.rate(), pace.down.rate()), (None, None));
        obey(&vec![b'x'; 1 << 20][..], &pace);
        assert_eq!(pace.up.rate(), None);
    }
}
