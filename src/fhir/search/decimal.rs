//! Decimal numbers with the precision that they are written with (R4 search, numbers).

use std::cmp::Ordering;

use crate::casts::to_u32;

/// Most digits of a number that are compared.
const DIGITS_MAX: usize = 30;
/// Largest exponent of a number that a search gives, either way.
const EXPONENT_MAX: i32 = 60;
/// Largest exponent of any number, either way; one beyond it stands for all that are.
const EXPONENT_LIMIT: i32 = 1_000_000;

/// A decimal number: digits times a power of ten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    /// Reads a number of a search; `None` if it is none, or has more digits or a larger exponent than are compared.
    pub(crate) fn parse(text: &str) -> Option<Decimal> {
        let number = Decimal::read(text)?;
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        (digits <= DIGITS_MAX && number.exponent.abs() <= EXPONENT_MAX).then_some(number)
    }

    /// Reads a number as JSON writes it, and a leading `+`; `None` if it is none. Digits beyond the thirtieth that counts are
    /// dropped.
    pub(crate) fn read(text: &str) -> Option<Decimal> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) || mantissa.ends_with('.') {
            return None;
        }
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let kept = &digits[..digits.len().min(DIGITS_MAX)];
        let dropped = digits.len() - kept.len();
        let exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()? + i64::try_from(dropped).ok()?;
        let limit = i64::from(EXPONENT_LIMIT);
        let exponent = i32::try_from(exponent.clamp(-limit, limit)).ok()?;
        let digits: i128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
        Some(Decimal { digits: if text.starts_with('-') { -digits } else { digits }, exponent })
    }

    /// Digits, and the power of ten that they are multiplied by.
    pub(crate) fn parts(self) -> (i128, i32) {
        (self.digits, self.exponent)
    }

    /// The number of these parts; `None` if [`Decimal::read`] gives none such.
    pub(crate) fn from_parts(digits: i128, exponent: i32) -> Option<Decimal> {
        let is_possible = digits.unsigned_abs() < 10u128.pow(to_u32(DIGITS_MAX)) && exponent.abs() <= EXPONENT_LIMIT;
        is_possible.then_some(Decimal { digits, exponent })
    }

    /// The numbers that equal one of this precision, from the first to the one behind the last: half a unit of the last digit
    /// to either side. With an exponent it is half of a tenth of that unit, as R4's example of `1e2` has it.
    pub(crate) fn range(self, text: &str) -> (Decimal, Decimal) {
        let has_exponent = text.contains(['e', 'E']);
        // In hundredths of the last digit's unit.
        let half = if has_exponent { 5 } else { 50 };
        let at = |distance: i128| Decimal { digits: self.digits * 100 + distance, exponent: self.exponent - 2 };
        (at(-half), at(half))
    }

    /// The numbers that are about this one: a tenth of it to either side.
    pub(crate) fn about(self) -> (Decimal, Decimal) {
        let tenth = self.digits.abs();
        let at = |distance: i128| Decimal { digits: self.digits * 10 + distance, exponent: self.exponent - 1 };
        (at(-tenth), at(tenth))
    }
}

/// Reads an exponent; one that is beyond the limit is the limit.
fn read_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let limit = if text.starts_with('-') { -EXPONENT_LIMIT } else { EXPONENT_LIMIT };
    Some(text.parse::<i32>().map_or(limit, |exponent| exponent.clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT)))
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        if self.digits.signum() != other.digits.signum() || self.digits == 0 {
            return self.digits.signum().cmp(&other.digits.signum());
        }
        let least = self.exponent.min(other.exponent);
        let scaled = |number: &Decimal| {
            let steps = u32::try_from(number.exponent - least).ok()?;
            number.digits.checked_mul(10i128.checked_pow(steps)?)
        };
        match (scaled(self), scaled(other)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // One of them is beyond all that the other can be.
            (a, _) => match (a.is_none(), self.digits > 0) {
                (true, true) | (false, false) => Ordering::Greater,
                _ => Ordering::Less,
            },
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// Numbers are compared by value, whatever they are written like.
    #[test]
    fn numbers_are_ordered() {
        let ordered = ["-1e3", "-5.40", "-0.1", "0", "0.01", "5.4", "5.41", "99", "100.5", "1e3", "9e59"];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(number(a).cmp(&number(b)), i.cmp(&j), "{a} {b}");
            }
        }
        for same in [["5.4", "5.40"], ["1e2", "100"], ["0", "-0.00"], ["100e-2", "1"]] {
            assert_eq!(number(same[0]), number(same[1]));
        }
        for wrong in ["", ".", "1.", "e5", "1e", "--1", "0x1", "1_0", "1e99", &"9".repeat(31)] {
            assert!(Decimal::parse(wrong).is_none(), "{wrong}");
        }
        // Numbers of documents may have any length.
        let read = |text: &str| Decimal::read(text).unwrap();
        let tenth = read("0.1000000000000000055511151231257827021181583404541015625");
        assert!(tenth > number("0.1") && tenth < number("0.10000000000000001"));
        assert_eq!(read(&format!("0.{}", "0".repeat(68))), number("0"));
        assert!(read("1e999999999999") > number("9e59") && read("-1e999999") < number("-9e59"));
        assert!(read("1e-999999") > number("0") && read("1e-999999") < number("1e-59"));
        assert!(read(&"9".repeat(40)) > number(&"9".repeat(30)));
        assert!(Decimal::read("1e").is_none() && Decimal::read("1e+").is_none());
    }

    /// The examples of R4's page on search: `100`, `100.00` and `1e2`.
    #[test]
    fn precision_is_what_is_written() {
        for (text, from, to) in [("100", "99.5", "100.5"), ("100.00", "99.995", "100.005"), ("1e2", "95", "105")] {
            let (low, high) = number(text).range(text);
            assert_eq!((low, high), (number(from), number(to)), "{text}");
        }
        assert_eq!(number("-50").about(), (number("-55"), number("-45")));
    }
}
