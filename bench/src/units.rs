//! Numbers as people write and read them.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a size: a number of bytes, or a number before `B`, `KiB`, `MiB`, `GiB` or `TiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text.strip_suffix('B').unwrap_or(text), 1));
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(format!("{text:?} is no size; write it as 512, 16KiB, 256MiB or 4GiB")),
    }
}

/// Reads a number of things, with `_` allowed between digits.
pub fn parse_count(text: &str) -> Result<u64, String> {
    match text.replace('_', "").parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("{text:?} is no number of files")),
    }
}

/// Reads a rate in bits a second: a number, or a number before `K`, `M` or `G` for powers of 1000.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    const POWERS: [(char, u64); 3] = [('K', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
    let (number, unit) =
        POWERS.iter().find_map(|(name, unit)| Some((text.strip_suffix(*name)?, *unit))).unwrap_or((text, 1));
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(rate) if rate > 0 => Ok(rate),
        _ => Err(format!("{text:?} is no rate; write it as 500K, 200M or 1G, in bits a second")),
    }
}

/// Reads a time: a number before `us`, `ms` or `s`, up to an hour.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let parts = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
    let seconds = parts.and_then(|(number, unit)| Some(number.parse::<f64>().ok()? * unit));
    match seconds {
        Some(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("{text:?} is no time; write it as 500us, 100ms or 1s")),
    }
}

/// Reads a share as a percentage: `1%` is 0.01.
pub fn parse_share(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok()) {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("{text:?} is no percentage; write it as 1% or 0.5%")),
    }
}

/// A rate in the largest unit that leaves no remainder.
#[must_use]
pub fn show_rate(rate: u64) -> String {
    let units = [("Gb/s", 1_000_000_000), ("Mb/s", 1_000_000), ("kb/s", 1_000)];
    match units.iter().find(|(_, unit)| rate.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{} {name}", rate / unit),
        None => format!("{rate} b/s"),
    }
}

/// A size in the largest unit that leaves no remainder, as [`parse_bytes`] reads it.
#[must_use]
pub fn exact_bytes(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// A size, rounded.
#[must_use]
pub fn show_bytes(bytes: f64) -> String {
    match UNITS.iter().map(|(name, unit)| (name, bytes / *unit as f64)).find(|(_, size)| *size >= 1.0) {
        Some((name, size)) => format!("{size:.1} {name}"),
        None => format!("{bytes:.0} B"),
    }
}

/// Seconds with about three digits that count.
#[must_use]
pub fn show_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 0.1 => format!("{:.2} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.3} s"),
        s => format!("{s:.1} s"),
    }
}

/// A number of things, with its digits in groups.
#[must_use]
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number and what there are, as in "1 thread" and "2 threads".
#[must_use]
pub fn several(count: u64, what: &str) -> String {
    format!("{} {what}{}", show_count(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in
            [("512", 512), ("100B", 100), ("16KiB", 16 << 10), ("1MiB", 1 << 20), ("4GiB", 4 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "GiB", "4GB", "4 GiB", "1.5GiB", "99999999999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        for bytes in [1, 1023, 1024, 1 << 20, 3 << 29, 5 << 40] {
            assert_eq!(parse_bytes(&exact_bytes(bytes)), Ok(bytes));
        }
        assert_eq!(parse_count("1_000_000"), Ok(1_000_000));
        assert!(parse_count("0").is_err());
    }

    #[test]
    fn links_are_described_by_rates_times_and_shares() {
        for (text, rate, shown) in
            [("200M", 200_000_000, "200 Mb/s"), ("1G", 1_000_000_000, "1 Gb/s"), ("1500", 1500, "1500 b/s")]
        {
            assert_eq!(parse_rate(text), Ok(rate));
            assert_eq!(show_rate(rate), shown);
        }
        assert_eq!(parse_time("2.5ms"), Ok(Duration::from_micros(2500)));
        assert_eq!((parse_time("1s"), parse_time("0us")), (Ok(Duration::from_secs(1)), Ok(Duration::ZERO)));
        assert_eq!((parse_share("1%"), parse_share("0%")), (Ok(0.01), Ok(0.0)));
        for text in ["", "x", "0", "-1M", "1T", "1.5M"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        for text in ["", "5", "-1s", "NaNs", "infs", "2h", "99999s"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        for text in ["1", "-1%", "101%", "NaN%", "%"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_count(999), "999");
        assert_eq!((several(1, "file"), several(1000, "file")), ("1 file".into(), "1,000 files".into()));
        assert_eq!(show_bytes(1_572_864.0), "1.5 MiB");
        assert_eq!(show_bytes(12.0), "12 B");
        assert_eq!(show_seconds(0.0123), "12.30 ms");
        assert_eq!(show_seconds(1.5), "1.500 s");
    }
}
