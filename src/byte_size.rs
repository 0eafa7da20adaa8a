//! Sizes in bytes as people write them and as they are shown to them: one reader and one writer for every front end.
//!
//! Units are those of the GNU coreutils (<https://www.gnu.org/software/coreutils/manual/html_node/Block-size.html>): a letter
//! alone and a letter with `iB` are powers of 1024, a letter with `B` is a power of 1000. Unlike there, any case is taken, and
//! a fraction is.

use serde::de::{Deserializer, Error, Visitor};
use std::fmt;

/// Letters of the units, by rising power.
const LETTERS: [u8; 5] = [b'k', b'm', b'g', b't', b'p'];

/// What a size looks like, for messages.
pub(crate) const SIZE_EXAMPLES: &str = "256M or 256MiB (1024-based), 256MB (1000-based), 1.5GB or 1000000";

/// Reads a size: digits, perhaps with a fraction, and a unit of any case (`K`, `KiB`, `kB`, and so on with M, G, T and P; `B`
/// or nothing for bytes), perhaps behind spaces. A fraction of a byte is dropped. `None` for any other text, for a fraction of
/// plain bytes, and for more than 64 bits.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start_matches(' ');
    let factor: u128 = match *unit.to_ascii_lowercase().as_bytes() {
        [] => 1,
        // A small b alone is a block of 512 bytes to the GNU coreutils.
        [b'b'] if unit == "B" => 1,
        [letter] | [letter, b'i', b'b'] => 1024_u128.pow(power_of(letter)?),
        [letter, b'b'] => 1000_u128.pow(power_of(letter)?),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_complete = !whole.is_empty() && fraction.is_empty() != number.contains('.');
    // 18 digits of a fraction are more than any unit has bytes.
    if !is_complete || fraction.len() > 18 || factor == 1 && !fraction.is_empty() {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?) * factor;
    let fraction = match fraction {
        "" => 0,
        digits => u128::from(digits.parse::<u64>().ok()?) * factor / 10_u128.pow(digits.len() as u32),
    };
    u64::try_from(whole + fraction).ok()
}

/// The power of a lower-case letter of a unit.
fn power_of(letter: u8) -> Option<u32> {
    LETTERS.iter().position(|known| *known == letter).map(|index| index as u32 + 1)
}

/// A number of bytes for people, in decimal units: `999 B`, `12.3 MB`.
pub(crate) fn format_bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = n as f64;
    let mut unit = 0;
    // From 999.5 on a value would be rounded to 1000.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Reads a size of a configuration: a number of bytes, or a text as by [`parse_size`]. For `serde(deserialize_with)`.
///
/// # Errors
/// It is neither, or does not fit the type of the field.
pub(crate) fn deserialize_size<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    let bytes = deserializer.deserialize_any(SizeVisitor)?;
    T::try_from(bytes).map_err(|_| D::Error::custom("the size is too large"))
}

/// Takes a size as a number or as a text.
struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a size such as {SIZE_EXAMPLES}")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::custom("a size cannot be negative"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        // A number of TOML has 63 bits, and a configuration is printed as it was read.
        let size = parse_size(text).filter(|bytes| i64::try_from(*bytes).is_ok());
        size.ok_or_else(|| E::custom(format!("{text:?} is no size such as {SIZE_EXAMPLES}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Units as documented; signs, unknown units, broken numbers and overflows are refused.
    #[test]
    fn sizes_are_read_as_documented() {
        for (text, bytes) in [
            ("256M", 256 << 20),
            ("256MiB", 256 << 20),
            ("256m", 256 << 20),
            ("256mib", 256 << 20),
            ("256MB", 256_000_000),
            ("256mb", 256_000_000),
            ("1.5GB", 1_500_000_000),
            ("1.5G", 3 << 29),
            ("0.1k", 102),
            ("7", 7),
            ("7B", 7),
            ("2kB", 2000),
            ("2KB", 2000),
            ("1 KiB", 1024),
            ("1T", 1 << 40),
            ("1PB", 1_000_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        let wrong = ["", "MiB", "1.5", "1.5B", "-1", "+1", "1.", ".5G", "1..5G", "1.5.5G", "7b", "1Mi", "1E", "1K B"];
        wrong.iter().for_each(|text| assert_eq!(parse_size(text), None, "{text}"));
        let large = ["18446744073709551616", "99999999999GiB", "16384P", "1.0000000000000000001P", "1MiB1"];
        large.iter().for_each(|text| assert_eq!(parse_size(text), None, "{text}"));
    }

    /// Sizes for people have one decimal digit and decimal units.
    #[test]
    fn sizes_are_shown_in_decimal_units() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (u64::MAX, "18446.7 PB")];
        cases.iter().for_each(|(bytes, text)| assert_eq!(format_bytes(*bytes), *text));
    }

    proptest! {
        /// A number with a unit is the product, in any case of letters; a fraction is that share of the unit, rounded down.
        #[test]
        fn a_size_round_trips(
            n in 0..16_000_u64,
            thousandths in proptest::option::of(0..1000_u64),
            power in 1..=5_u32,
            form in 0..3_usize,
            spaces in 0..3_usize,
            lower in any::<bool>(),
        ) {
            let letter = char::from(LETTERS[power as usize - 1]).to_ascii_uppercase();
            let (base, unit) = [(1024_u128, letter.to_string()), (1024, format!("{letter}iB")), (1000, format!("{letter}B"))]
                [form].clone();
            let fraction = thousandths.map_or(String::new(), |digits| format!(".{digits:03}"));
            let text = format!("{n}{fraction}{}{unit}", " ".repeat(spaces));
            let text = if lower { text.to_lowercase() } else { text };
            let expected = (u128::from(n) * 1000 + u128::from(thousandths.unwrap_or(0))) * base.pow(power) / 1000;
            prop_assert_eq!(parse_size(&text).map(u128::from), Some(expected));
        }

        /// What is shown can be read, and comes within the digit that is shown.
        #[test]
        fn what_is_shown_can_be_read(n in 0..u64::MAX / 2) {
            let read = parse_size(&format_bytes(n)).unwrap();
            prop_assert!(read.abs_diff(n) as f64 <= n as f64 * 0.051);
        }
    }
}
