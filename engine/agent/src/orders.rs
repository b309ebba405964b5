//! What whoever started this process may tell it while it runs, on its standard input: lines of text.
//!
//! `limit N` sets the limit of rate to N bytes a second, `limit none` takes it away. The end of the input ends the
//! process as SIGTERM does: a child does not outlive the agent that it works for.

use rustix::process::{Signal, getpid, kill_process};
use sealift_net::Limiter;
use sealift_proto::rate::Rate;
use std::io::{self, BufRead, Read as _};
use std::sync::Arc;

/// Characters in an order.
const ORDER_CHARS_MAX: u64 = 256;

/// The order that sets this limit, as a line.
pub(crate) fn limit(rate: Option<Rate>) -> String {
    rate.map_or_else(|| "limit none\n".into(), |rate| format!("limit {}\n", rate.bytes_per_second()))
}

/// Follows orders from now on, on a thread of its own.
///
/// # Errors
/// If that cannot be started.
pub fn follow(limiter: Arc<Limiter>) -> io::Result<()> {
    let follow = move || {
        obey(io::stdin().lock(), &limiter);
        // It is there: it is this one.
        let _ = kill_process(getpid(), Signal::TERM);
    };
    std::thread::Builder::new().name("sealift-orders".into()).spawn(follow).map(drop)
}

/// Obeys until there is no more, or what comes is no order: whoever says such things is not who is to be obeyed.
fn obey(mut orders: impl BufRead, limiter: &Limiter) {
    let mut line = String::new();
    loop {
        line.clear();
        match (&mut orders).take(ORDER_CHARS_MAX).read_line(&mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        match parse(&line) {
            Some(rate) => limiter.set(rate),
            None => return,
        }
    }
}

fn parse(line: &str) -> Option<Option<Rate>> {
    match line.strip_suffix('\n')?.strip_prefix("limit ")? {
        "none" => Some(None),
        number => Some(Some(Rate::new(number.parse().ok()?).ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_understood_as_they_are_given() {
        for rate in [None, Some(Rate::new(8192).unwrap()), Some(Rate::new(u64::MAX).unwrap())] {
            assert_eq!(parse(&limit(rate)), Some(rate));
        }
        for wrong in ["", "\n", "limit\n", "limit 5\n", "limit 9000", "limit -1\n", "stop\n"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_order_ends_it() {
        let limiter = Limiter::new(None);
        obey(&b"limit 9000\nlimit 10000\nelse\nlimit 11000\n"[..], &limiter);
        assert_eq!(limiter.rate(), Rate::new(10_000).ok());
        obey(&b"limit none\n"[..], &limiter);
        assert_eq!(limiter.rate(), None);
        obey(&vec![b'x'; 1 << 20][..], &limiter);
        assert_eq!(limiter.rate(), None);
    }
}
