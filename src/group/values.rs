//! Values of a JSON text that not every reader of JSON takes, or that R4's types exclude: halves of surrogate pairs in
//! strings and names, numbers that IEEE 754 does not hold, integers out of their range.
//!
//! One pass over a text in pieces, which the scanner has found to be JSON; on other text what is found is arbitrary, but
//! nothing panics. Nothing is held but the beginnings of two names and of one number.

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueFault {
    /// An escape is half of a surrogate pair.
    LoneSurrogate,
    /// A number that IEEE 754 has as infinite.
    Infinite,
    /// No integer of this range.
    Integer(IntegerRange),
}

/// The integers of a type of R4 (<https://hl7.org/fhir/R4/datatypes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntegerRange {
    /// `integer`.
    Signed,
    /// `unsignedInt`.
    Unsigned,
    /// `positiveInt`.
    Positive,
}

impl ValueFault {
    /// Whether readers of JSON refuse the whole text for it.
    pub(crate) fn is_unreadable(self) -> bool {
        !matches!(self, ValueFault::Integer(_))
    }

    /// What is wrong and what to do; follows the place.
    pub(crate) fn text(self) -> &'static str {
        match self {
            ValueFault::LoneSurrogate => {
                "holds half of a surrogate pair, which many JSON readers refuse with all that stands around it; write the \
                 character whole"
            }
            ValueFault::Infinite => {
                "is a number beyond those that JSON readers hold (1.8e308), which they refuse with all that stands around it; \
                 write a smaller one"
            }
            ValueFault::Integer(IntegerRange::Signed) => {
                "must be an integer from -2147483648 to 2147483647, in digits alone"
            }
            ValueFault::Integer(IntegerRange::Unsigned) => "must be an integer from 0 to 2147483647, in digits alone",
            ValueFault::Integer(IntegerRange::Positive) => "must be an integer from 1 to 2147483647, in digits alone",
        }
    }
}

/// A value that is wrong, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundValue<'a> {
    /// What is wrong.
    pub fault: ValueFault,
    /// Offset of the escape or number in the text, in bytes.
    pub at: u64,
    /// Name of the element of the resource that it stands in; `None` for one with a name that no element of R4 has.
    pub element: Option<&'a str>,
}

/// Longest name that is known, in bytes; no element of R4 has a longer one.
const NAME_BYTES: usize = 64;
/// Bytes of a number that are kept to read it as an integer.
const INTEGER_BYTES: usize = 24;
/// Significant digits that decide whether a number is beyond the largest of IEEE 754, which has 17.
const DIGITS: usize = 20;

/// Names of elements whose numbers are integers, wherever they stand.
const INTEGERS: [(&str, IntegerRange); 3] = [
    ("valueInteger", IntegerRange::Signed),
    ("valueUnsignedInt", IntegerRange::Unsigned),
    ("valuePositiveInt", IntegerRange::Positive),
];

/// The beginning of a string.
#[derive(Clone, Copy)]
struct ShortText {
    bytes: [u8; NAME_BYTES],
    /// Bytes of the whole string, as it is written.
    len: usize,
}

impl ShortText {
    const EMPTY: ShortText = ShortText { bytes: [0; NAME_BYTES], len: 0 };

    /// Appends a part of the string.
    fn extend(&mut self, part: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..) {
            let len = room.len().min(part.len());
            room[..len].copy_from_slice(&part[..len]);
        }
        self.len += part.len();
    }

    /// The string, if it can be the name of an element.
    fn name(&self) -> Option<&str> {
        let name = str::from_utf8(self.bytes.get(..self.len)?).ok()?;
        (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')).then_some(name)
    }
}

/// A number that is being read.
#[derive(Clone, Copy, Default)]
struct NumberText {
    /// Its beginning, and the number of its bytes.
    beginning: [u8; INTEGER_BYTES],
    len: usize,
    /// Its first significant digits.
    digits: [u8; DIGITS],
    count: usize,
    /// Decimal exponent of the first significant digit, without the written exponent.
    scale: i64,
    in_fraction: bool,
    /// Whether the written exponent is being read, and its value.
    in_exponent: bool,
    is_small: bool,
    exponent: i64,
}

impl NumberText {
    /// Reads the next byte of the number.
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.beginning.get_mut(self.len) {
            *place = byte;
        }
        self.len += 1;
        match byte {
            b'.' => self.in_fraction = true,
            b'e' | b'E' => self.in_exponent = true,
            b'-' if self.in_exponent => self.is_small = true,
            b'0'..=b'9' if self.in_exponent => {
                self.exponent = self.exponent.saturating_mul(10).saturating_add(i64::from(byte - b'0'));
            }
            b'0' if self.count == 0 => self.scale -= i64::from(self.in_fraction),
            b'0'..=b'9' => {
                if self.count == 0 {
                    self.scale -= i64::from(self.in_fraction);
                } else {
                    self.scale += i64::from(!self.in_fraction);
                }
                if let Some(place) = self.digits.get_mut(self.count) {
                    *place = byte;
                }
                self.count += 1;
            }
            _ => {}
        }
    }

    /// Whether IEEE 754 has the number as infinite.
    fn is_infinite(&self) -> bool {
        let exponent = if self.is_small { self.exponent.saturating_neg() } else { self.exponent };
        let scale = self.scale.saturating_add(exponent);
        if self.count == 0 || scale != 308 {
            return self.count > 0 && scale > 308;
        }
        let digits = self.digits[..self.count.min(DIGITS)].iter().map(|digit| char::from(*digit));
        let text: String = digits.collect::<String>() + &format!("e{}", 308 - (self.count.min(DIGITS) as i64 - 1));
        text.parse::<f64>().is_ok_and(f64::is_infinite)
    }

    /// Whether the number is written as an integer of a range.
    fn is_integer(&self, range: IntegerRange) -> bool {
        let text = self.beginning.get(..self.len).and_then(|bytes| str::from_utf8(bytes).ok());
        let least = match range {
            IntegerRange::Signed => i64::from(i32::MIN),
            IntegerRange::Unsigned => 0,
            IntegerRange::Positive => 1,
        };
        text.and_then(|text| text.parse::<i64>().ok()).is_some_and(|n| (least..=i64::from(i32::MAX)).contains(&n))
    }
}

/// Place in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ScanState {
    /// Between tokens, or in a literal.
    Between,
    /// In a string.
    String,
    /// Behind the backslash of an escape.
    Escape,
    /// In the digits of an escape: how many there were, and their value.
    Digits(u8, u32),
    /// In a number.
    Number,
}

/// Looks for wrong values in one text.
pub(crate) struct ValueScan {
    state: ScanState,
    /// Offset of the next piece.
    position: u64,
    /// Number of open containers.
    depth: usize,
    /// The string that is being read, or the last one.
    text: ShortText,
    /// The last name of any object, and the last of the outermost one.
    name: ShortText,
    element: ShortText,
    /// Offset of a high surrogate whose low one is to follow at once.
    high: Option<u64>,
    number: NumberText,
    /// Offset of the number.
    number_at: u64,
}

impl ValueScan {
    /// A scan before the first piece.
    pub(crate) fn new() -> ValueScan {
        ValueScan {
            state: ScanState::Between,
            position: 0,
            depth: 0,
            text: ShortText::EMPTY,
            name: ShortText::EMPTY,
            element: ShortText::EMPTY,
            high: None,
            number: NumberText::default(),
            number_at: 0,
        }
    }

    /// Reads the next piece, and passes on what is wrong.
    pub(crate) fn feed(&mut self, piece: &[u8], on_found: &mut dyn FnMut(FoundValue<'_>)) {
        let mut offset = 0;
        while offset < piece.len() {
            let byte = piece[offset];
            match self.state {
                ScanState::String => {
                    if byte != b'\\' {
                        self.end_surrogate(on_found);
                    }
                    let found = memchr::memchr2(b'"', b'\\', &piece[offset..]);
                    let end = found.map_or(piece.len(), |len| offset + len);
                    self.text.extend(&piece[offset..end]);
                    offset = end;
                    if found.is_some() {
                        self.state = if piece[end] == b'"' { ScanState::Between } else { ScanState::Escape };
                        offset += 1;
                    }
                    continue;
                }
                ScanState::Escape => {
                    // A name with an escape is none that is known.
                    self.text.extend(b"\\");
                    self.state = if byte == b'u' { ScanState::Digits(0, 0) } else { ScanState::String };
                    if byte != b'u' {
                        self.end_surrogate(on_found);
                    }
                }
                ScanState::Digits(count, unit) => {
                    let unit = unit << 4 | char::from(byte).to_digit(16).unwrap_or_default();
                    self.state = ScanState::Digits(count + 1, unit);
                    if count == 3 {
                        self.state = ScanState::String;
                        self.take_unit(unit, self.position + offset as u64 + 1, on_found);
                    }
                }
                ScanState::Number if matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E') => {
                    self.number.push(byte);
                }
                ScanState::Number => {
                    self.end_number(on_found);
                    self.state = ScanState::Between;
                    continue;
                }
                ScanState::Between => self.between(byte, self.position + offset as u64),
            }
            offset += 1;
        }
        self.position += piece.len() as u64;
    }

    /// Reads a byte between tokens.
    fn between(&mut self, byte: u8, at: u64) {
        match byte {
            b'"' => (self.state, self.text.len) = (ScanState::String, 0),
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b':' => {
                self.name = self.text;
                if self.depth == 1 {
                    self.element = self.text;
                }
            }
            b'-' | b'0'..=b'9' => {
                (self.state, self.number, self.number_at) = (ScanState::Number, NumberText::default(), at);
                self.number.push(byte);
            }
            _ => {}
        }
    }

    /// Takes an escape of a code unit that ends at an offset.
    fn take_unit(&mut self, unit: u32, end: u64, on_found: &mut dyn FnMut(FoundValue<'_>)) {
        let start = end - 6;
        match (unit, self.high) {
            (0xdc00..=0xdfff, Some(_)) => self.high = None,
            (0xdc00..=0xdfff, None) => self.report(ValueFault::LoneSurrogate, start, on_found),
            _ => {
                self.end_surrogate(on_found);
                self.high = (0xd800..=0xdbff).contains(&unit).then_some(start);
            }
        }
    }

    /// Reports a high surrogate whose low one does not follow.
    fn end_surrogate(&mut self, on_found: &mut dyn FnMut(FoundValue<'_>)) {
        if let Some(at) = self.high.take() {
            self.report(ValueFault::LoneSurrogate, at, on_found);
        }
    }

    /// Judges the number that has ended.
    fn end_number(&self, on_found: &mut dyn FnMut(FoundValue<'_>)) {
        let range = match self.name.name() {
            Some("quantity") if self.depth == 1 => Some(IntegerRange::Unsigned),
            Some(name) => INTEGERS.iter().find(|(known, _)| *known == name).map(|(_, range)| *range),
            None => None,
        };
        match range {
            Some(range) if !self.number.is_integer(range) => {
                self.report(ValueFault::Integer(range), self.number_at, on_found);
            }
            None if self.number.is_infinite() => self.report(ValueFault::Infinite, self.number_at, on_found),
            _ => {}
        }
        // A number that is no integer may be infinite as well, which readers mind more.
        if range.is_some() && self.number.is_infinite() {
            self.report(ValueFault::Infinite, self.number_at, on_found);
        }
    }

    /// Passes on a value that is wrong.
    fn report(&self, fault: ValueFault, at: u64, on_found: &mut dyn FnMut(FoundValue<'_>)) {
        // A name of the outermost object is not one before its colon.
        on_found(FoundValue { fault, at, element: self.element.name() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str, piece: usize) -> Vec<(ValueFault, u64, Option<String>)> {
        let mut scan = ValueScan::new();
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            scan.feed(piece, &mut |value| out.push((value.fault, value.at, value.element.map(str::to_string))));
        }
        out
    }

    /// Each fault with its place and element, in pieces of any size.
    #[test]
    fn wrong_values_are_found() {
        use IntegerRange::{Positive, Signed, Unsigned};
        use ValueFault::{Infinite, Integer, LoneSurrogate};
        for (text, expected) in [
            (r#"{"name":"\ud800"}"#, vec![(LoneSurrogate, 9, "name")]),
            (r#"{"name":"a\udc00b"}"#, vec![(LoneSurrogate, 10, "name")]),
            (r#"{"name":"\ud83d\ude00 \\ud800 \u0041"}"#, vec![]),
            (r#"{"name":"\ud83dx\ude00"}"#, vec![(LoneSurrogate, 9, "name"), (LoneSurrogate, 16, "name")]),
            (r#"{"name":"\ud83d\n"}"#, vec![(LoneSurrogate, 9, "name")]),
            (r#"{"name":"\ud83d\ud83d\ude00"}"#, vec![(LoneSurrogate, 9, "name")]),
            (r#"{"a":{"\ud800":1},"b":2}"#, vec![(LoneSurrogate, 7, "a")]),
            (r#"{"code":{"coding":[{"display":"\uDFFF"}]}}"#, vec![(LoneSurrogate, 31, "code")]),
            (r#"{"quantity":1e999999}"#, vec![(Integer(Unsigned), 12, "quantity"), (Infinite, 12, "quantity")]),
            (r#"{"quantity":-1}"#, vec![(Integer(Unsigned), 12, "quantity")]),
            (r#"{"quantity":5.0 }"#, vec![(Integer(Unsigned), 12, "quantity")]),
            (r#"{"quantity":2147483648}"#, vec![(Integer(Unsigned), 12, "quantity")]),
            (r#"{"quantity":2147483647}"#, vec![]),
            (r#"{"quantity":0}"#, vec![]),
            (r#"{"a":[{"quantity":1.5}]}"#, vec![]),
            (
                r#"{"extension":[{"valueInteger":-2147483648},{"valueInteger":1e2}]}"#,
                vec![(Integer(Signed), 59, "extension")],
            ),
            (r#"{"extension":[{"valuePositiveInt":0}]}"#, vec![(Integer(Positive), 34, "extension")]),
            (r#"{"extension":[{"valueDecimal":1e308},{"valueDecimal":-1E+309}]}"#, vec![(Infinite, 53, "extension")]),
            (r#"{"x":{"value":0.00000000000000000000001e330}}"#, vec![]),
            (r#"{"x":[1e-999999999999999999999,0e999999,3.14]}"#, vec![]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(fault, at, name)| (fault, at, Some(name.to_string()))).collect();
            for piece in [1, 2, 3, 7, 1000] {
                assert_eq!(found(text, piece), expected, "{text} in {piece}");
            }
        }
        let long = format!(r#"{{"x":{}.5,"y":1{}}}"#, "9".repeat(308), "0".repeat(309));
        assert_eq!(found(&long, 50).len(), 1, "309 zeros are too many, 308 digits are not");
    }

    proptest! {
        /// A number is infinite here if it is to IEEE 754.
        #[test]
        fn numbers_are_those_of_ieee(text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?(0|[1-9][0-9]{0,3}|30[0-9]))?") {
            let is_infinite = text.parse::<f64>().unwrap().is_infinite();
            prop_assert_eq!(!found(&format!("[{text}]"), 5).is_empty(), is_infinite, "{}", text);
        }

        /// Halves of surrogate pairs are what the standard library's decoder of UTF-16 minds.
        #[test]
        fn surrogates_are_those_of_utf16(units in proptest::collection::vec(prop_oneof![0xd7f0u16..0xe010, 0x40u16..0x50], 0..6), piece in 1usize..9) {
            let text: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let expected = char::decode_utf16(units).filter(Result::is_err).count();
            prop_assert_eq!(found(&format!("[\"{text}\"]"), piece).len(), expected);
        }

        #[test]
        fn no_text_is_a_panic(text in "[\\[\\]{}:,\" \\\\a1e.ud8\n]{0,24}", piece in 1usize..9) {
            found(&text, piece);
        }
    }
}
