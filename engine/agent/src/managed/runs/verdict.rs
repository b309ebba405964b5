//! What the end of a child means for its run: a pure function.

use crate::managed::child::Exit;

/// Failures of one run that are not those of a source out of reach, before it is given up.
pub(crate) const FAILURES_MAX: u32 = 5;

/// The part of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Source,
    Destination,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has everything.
    Done,
    /// It has what could be had.
    Partial,
    /// It failed, and would again.
    Failed,
    /// It is tried again, after a pause.
    Again,
    /// It was asked to end, and did before it was done.
    AsAsked,
}

/// Judges an end. `asked`: it was told to end. `interrupted`: it says that somebody else told it. `failures`: earlier
/// ones of this run.
pub(crate) fn verdict(kind: Kind, asked: bool, interrupted: bool, exit: &Exit, failures: u32) -> Verdict {
    let once_more = if failures < FAILURES_MAX { Verdict::Again } else { Verdict::Failed };
    match (kind, exit.code) {
        // Just before it was asked to end, or while.
        (Kind::Destination, Some(0)) => Verdict::Done,
        (Kind::Destination, Some(3)) => Verdict::Partial,
        _ if asked => Verdict::AsAsked,
        // The sentence would be the same: a path that is not there, a place that cannot be written.
        (_, Some(2)) | (Kind::Destination, Some(1)) if !interrupted => Verdict::Failed,
        // The source may be on its way.
        (Kind::Destination, Some(5)) => Verdict::Again,
        // The source may not have the same keys yet (4); somebody or the system killed it; a source lost its port.
        _ => once_more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_code_has_its_meaning() {
        let of = |kind, code, asked, failures| {
            let exit = Exit { code, ..Exit::default() };
            verdict(kind, asked, false, &exit, failures)
        };
        for (code, fresh, tired) in [
            (Some(0), Verdict::Done, Verdict::Done),
            (Some(1), Verdict::Failed, Verdict::Failed),
            (Some(2), Verdict::Failed, Verdict::Failed),
            (Some(3), Verdict::Partial, Verdict::Partial),
            (Some(4), Verdict::Again, Verdict::Failed),
            (Some(5), Verdict::Again, Verdict::Again),
            (None, Verdict::Again, Verdict::Failed),
        ] {
            assert_eq!(of(Kind::Destination, code, false, 0), fresh, "{code:?}");
            assert_eq!(of(Kind::Destination, code, false, FAILURES_MAX), tired, "{code:?}");
        }
        for (code, fresh) in [
            (Some(0), Verdict::Again),
            (Some(1), Verdict::Again),
            (Some(2), Verdict::Failed),
            (None, Verdict::Again),
        ] {
            assert_eq!(of(Kind::Source, code, false, 0), fresh, "{code:?}");
            assert_eq!(of(Kind::Source, code, true, 0), Verdict::AsAsked, "{code:?}");
        }
        assert_eq!(of(Kind::Destination, Some(1), true, 0), Verdict::AsAsked);
        assert_eq!(of(Kind::Destination, Some(0), true, 0), Verdict::Done);
        let interrupted = Exit { code: Some(1), ..Exit::default() };
        assert_eq!(verdict(Kind::Destination, false, true, &interrupted, 0), Verdict::Again);
    }
}
