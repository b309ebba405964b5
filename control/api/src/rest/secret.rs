//! Secrets that requests bring as text.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::ops::Deref;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// A text that is overwritten when it is dropped, and never shown. It is read from JSON in memory alone, with no copy of it
/// elsewhere.
#[derive(Clone, Serialize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(String);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Deref for SecretText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // As it stands there: to have it unescaped would leave pieces of it in a buffer that grows.
        let raw = <&RawValue>::deserialize(from)?;
        let text = unescaped(raw.get()).ok_or_else(|| D::Error::custom("a secret is a string"))?;
        Ok(Self(text))
    }
}

/// A string of JSON, which was found to be well formed. In one piece of memory: it is never longer than it was.
fn unescaped(raw: &str) -> Option<String> {
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    while let Some((plain, escaped)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut after = escaped.chars();
        text.push(match after.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (unit, behind) = hex(after.as_str())?;
                after = behind.chars();
                match unit {
                    // The first half of a pair.
                    0xd800..0xdc00 => {
                        let (low, behind) = hex(behind.strip_prefix("\\u")?)?;
                        after = behind.chars();
                        let low = low.checked_sub(0xdc00).filter(|&low| low < 0x400)?;
                        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + low)?
                    }
                    unit => char::from_u32(unit)?,
                }
            }
            itself @ ('"' | '\\' | '/') => itself,
            _ => return None,
        });
        rest = after.as_str();
    }
    text.push_str(rest);
    Some(std::mem::take(&mut *text))
}

fn hex(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    are_digits.then(|| u32::from_str_radix(digits, 16).ok().map(|unit| (unit, rest)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<String> {
        serde_json::from_str::<SecretText>(json).ok().map(|text| text.to_string())
    }

    #[test]
    fn what_is_read_is_what_serde_reads() {
        let texts = [
            "",
            "plain",
            "-----BEGIN PRIVATE KEY-----\nAB+/=\n",
            "\"\\/\u{8}\u{c}\r\n\t\u{1}\u{7f}",
            "ä€😀 \u{ffff}",
        ];
        for text in texts {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(read(&json).as_deref(), Some(text));
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            assert_eq!(read(&format!("\"{}\"", units.collect::<String>())).as_deref(), Some(text));
        }
        assert_eq!(read(" \"a\\/b\" ").as_deref(), Some("a/b"));
        let wrong = [
            "1",
            "null",
            "[]",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\u+123\"",
            "\"\\ud800\"",
            "\"\\ud800\\n\"",
            "\"\\ud800\\ud800\"",
            "\"\\udc00\"",
            "\"a\nb\"",
            "\"a\" \"b\"",
        ];
        for json in wrong {
            assert!(serde_json::from_str::<String>(json).is_err() && read(json).is_none(), "{json}");
        }
    }

    #[test]
    fn it_is_in_one_piece_of_memory_and_not_shown() {
        let json = format!("\"{}\"", "line\\n".repeat(1000));
        let text: SecretText = serde_json::from_str(&json).unwrap();
        assert_eq!((text.len(), text.0.capacity()), (5000, json.len() - 2), "it never grew");
        assert_eq!(format!("{text:?}"), "SecretText");
        assert_eq!(serde_json::to_string(&text).unwrap(), json);
    }
}
