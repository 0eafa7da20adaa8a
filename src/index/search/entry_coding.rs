//! The values that a parameter has in one row, as bytes of a search column, and back.
//!
//! Systems and units stand once in the names of a column, and entries have their numbers. Integers are of variable length,
//! seven bits a byte (LEB128). What is read is checked: a stranger may have written it.

use std::collections::HashMap;

use crate::error::CorruptIndex;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::decimal::Decimal;
use crate::fhir::search::value::{ParameterValue, ParameterValues};

/// First byte of an entry without an element, and of one with.
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
/// The whole of an entry of a row whose members are nested too deep to be read.
pub(crate) const UNREADABLE: u8 = 2;

/// First byte of each value.
const TOKEN: u8 = 0;
const CODE: u8 = 1;
const TIME: u8 = 2;
const TEXT: u8 = 3;
const CANONICAL: u8 = 4;
const REFERENCE: u8 = 5;
const NUMBER: u8 = 6;
const QUANTITY: u8 = 7;

/// Most bytes of an integer of 128 bits.
const INTEGER_BYTES_MAX: u32 = 19;

/// What is said of bytes that are no entry.
const MALFORMED: CorruptIndex = CorruptIndex("an entry of a search column is none");

/// Names in the order of their numbers, from 1; 0 is that of none.
#[derive(Default)]
pub(crate) struct NameWriter {
    numbers: HashMap<String, usize>,
    /// The names: the bytes of each after their number.
    pub bytes: Vec<u8>,
}

impl NameWriter {
    /// The number of a name, which is added if it is new.
    fn number(&mut self, name: Option<&str>) -> u128 {
        let Some(name) = name else { return 0 };
        if let Some(number) = self.numbers.get(name) {
            return *number as u128;
        }
        let number = self.numbers.len() + 1;
        self.numbers.insert(name.to_string(), number);
        put_text(name, &mut self.bytes);
        number as u128
    }
}

/// Reads the names of a column.
///
/// # Errors
/// [`CorruptIndex`] if they are none.
pub(crate) fn read_names(mut bytes: &[u8]) -> Result<Vec<&str>, CorruptIndex> {
    let mut names = Vec::new();
    while !bytes.is_empty() {
        names.push(take_text(&mut bytes)?);
    }
    Ok(names)
}

/// Appends an entry to `out`.
pub(crate) fn encode(found: &ParameterValues<'_>, names: &mut NameWriter, out: &mut Vec<u8>) {
    out.push(if found.is_present { PRESENT } else { ABSENT });
    for value in &found.values {
        match value {
            ParameterValue::Token { system, code, is_code } => {
                out.push(if *is_code { CODE } else { TOKEN });
                put_integer(names.number(*system), out);
                put_text(code, out);
            }
            ParameterValue::Time(span) => {
                out.push(TIME);
                out.extend_from_slice(&span.start.to_le_bytes());
                out.extend_from_slice(&span.end.to_le_bytes());
            }
            ParameterValue::Text(text) => put_tagged(TEXT, text, out),
            ParameterValue::Canonical(text) => put_tagged(CANONICAL, text, out),
            ParameterValue::Reference(text) => put_tagged(REFERENCE, text, out),
            ParameterValue::Number(number) => {
                out.push(NUMBER);
                put_number(Some(*number), out);
            }
            ParameterValue::Quantity { low, high, system, code, unit } => {
                out.push(QUANTITY);
                put_number(*low, out);
                put_number(*high, out);
                [system, code, unit].into_iter().for_each(|name| put_integer(names.number(*name), out));
            }
        }
    }
}

/// Reads an entry; `None` for a row that could not be read.
///
/// # Errors
/// [`CorruptIndex`] if the bytes are no entry.
pub(crate) fn decode<'b>(mut bytes: &'b [u8], names: &[&'b str]) -> Result<Option<ParameterValues<'b>>, CorruptIndex> {
    let rest = &mut bytes;
    let is_present = match take_byte(rest)? {
        ABSENT => false,
        PRESENT => true,
        UNREADABLE if rest.is_empty() => return Ok(None),
        _ => return Err(MALFORMED),
    };
    let mut values = Vec::new();
    while !rest.is_empty() {
        values.push(match take_byte(rest)? {
            form @ (TOKEN | CODE) => {
                let system = take_name(rest, names)?;
                ParameterValue::Token { system, code: take_text(rest)?, is_code: form == CODE }
            }
            TIME => ParameterValue::Time(TimeSpan { start: take_wide(rest)?, end: take_wide(rest)? }),
            TEXT => ParameterValue::Text(take_text(rest)?),
            CANONICAL => ParameterValue::Canonical(take_text(rest)?),
            REFERENCE => ParameterValue::Reference(take_text(rest)?),
            NUMBER => ParameterValue::Number(take_number(rest)?.ok_or(MALFORMED)?),
            QUANTITY => ParameterValue::Quantity {
                low: take_number(rest)?,
                high: take_number(rest)?,
                system: take_name(rest, names)?,
                code: take_name(rest, names)?,
                unit: take_name(rest, names)?,
            },
            _ => return Err(MALFORMED),
        });
    }
    Ok(Some(ParameterValues { is_present, values }))
}

/// Appends an integer.
fn put_integer(mut number: u128, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

/// Appends a text after its length.
fn put_text(text: &str, out: &mut Vec<u8>) {
    put_integer(text.len() as u128, out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a text after its tag and length.
fn put_tagged(tag: u8, text: &str, out: &mut Vec<u8>) {
    out.push(tag);
    put_text(text, out);
}

/// Appends a number: exponent plus one step of room for none, then digits, signs in the lowest bit.
fn put_number(number: Option<Decimal>, out: &mut Vec<u8>) {
    let Some((digits, exponent)) = number.map(Decimal::parts) else { return out.push(0) };
    put_integer(zigzag(i128::from(exponent)) + 1, out);
    put_integer(zigzag(digits), out);
}

/// A signed integer as an unsigned one, small where its size is.
fn zigzag(number: i128) -> u128 {
    (number << 1 ^ number >> 127) as u128
}

/// The reverse of [`zigzag`].
fn unzigzag(number: u128) -> i128 {
    (number >> 1) as i128 ^ -((number & 1) as i128)
}

/// Takes a byte.
fn take_byte(bytes: &mut &[u8]) -> Result<u8, CorruptIndex> {
    let (first, rest) = bytes.split_first().ok_or(MALFORMED)?;
    *bytes = rest;
    Ok(*first)
}

/// Takes an integer.
fn take_integer(bytes: &mut &[u8]) -> Result<u128, CorruptIndex> {
    let mut number = 0;
    for place in 0..INTEGER_BYTES_MAX {
        let byte = take_byte(bytes)?;
        number |= u128::from(byte & 0x7f).checked_shl(place * 7).ok_or(MALFORMED)?;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(MALFORMED)
}

/// Takes a text.
fn take_text<'b>(bytes: &mut &'b [u8]) -> Result<&'b str, CorruptIndex> {
    let length = usize::try_from(take_integer(bytes)?).map_err(|_| MALFORMED)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(MALFORMED)?;
    *bytes = rest;
    str::from_utf8(text).map_err(|_| MALFORMED)
}

/// Takes an integer of 16 bytes.
fn take_wide(bytes: &mut &[u8]) -> Result<i128, CorruptIndex> {
    let (number, rest) = bytes.split_first_chunk().ok_or(MALFORMED)?;
    *bytes = rest;
    Ok(i128::from_le_bytes(*number))
}

/// Takes the number of a name.
fn take_name<'b>(bytes: &mut &'b [u8], names: &[&'b str]) -> Result<Option<&'b str>, CorruptIndex> {
    match usize::try_from(take_integer(bytes)?).map_err(|_| MALFORMED)? {
        0 => Ok(None),
        number => names.get(number - 1).copied().map(Some).ok_or(MALFORMED),
    }
}

/// Takes a number, or none.
fn take_number(bytes: &mut &[u8]) -> Result<Option<Decimal>, CorruptIndex> {
    let exponent = take_integer(bytes)?;
    if exponent == 0 {
        return Ok(None);
    }
    let exponent = i32::try_from(unzigzag(exponent - 1)).map_err(|_| MALFORMED)?;
    Decimal::from_parts(unzigzag(take_integer(bytes)?), exponent).ok_or(MALFORMED).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A number of any size.
    fn any_number() -> impl Strategy<Value = Decimal> {
        "-?[0-9]{1,40}(\\.[0-9]{1,9})?([eE]-?[0-9]{1,9})?".prop_map(|text| Decimal::read(&text).unwrap())
    }

    proptest! {
        /// Entries are read as they were written, and no bytes at all make the reader fail.
        #[test]
        fn entries_come_back(
            is_present: bool,
            texts in proptest::collection::vec("[a-zé|/]{0,20}", 6),
            numbers in proptest::collection::vec(any_number(), 3),
            span in (any::<i128>(), any::<i128>()),
            noise in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let values = vec![
                ParameterValue::Token { system: Some(&texts[0]), code: &texts[1], is_code: false },
                ParameterValue::Token { system: None, code: &texts[2], is_code: true },
                ParameterValue::Time(TimeSpan { start: span.0, end: span.1 }),
                ParameterValue::Text(&texts[3]),
                ParameterValue::Canonical(&texts[4]),
                ParameterValue::Reference(&texts[5]),
                ParameterValue::Number(numbers[0]),
                ParameterValue::Quantity { low: Some(numbers[1]), high: None, system: Some(&texts[0]), code: None, unit: Some(&texts[1]) },
                ParameterValue::Quantity { low: None, high: Some(numbers[2]), system: None, code: Some(&texts[2]), unit: None },
            ];
            let found = ParameterValues { is_present, values };
            let (mut names, mut bytes) = (NameWriter::default(), Vec::new());
            encode(&found, &mut names, &mut bytes);
            let read = read_names(&names.bytes).unwrap();
            prop_assert_eq!(decode(&bytes, &read), Ok(Some(found)));
            for cut in 0..bytes.len() {
                decode(&bytes[..cut], &read).ok();
            }
            decode(&noise, &read).ok();
            read_names(&noise).ok();
            prop_assert_eq!(decode(&[UNREADABLE], &read), Ok(None));
        }
    }
}
