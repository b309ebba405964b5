//! Numbers as people write and read them.

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
