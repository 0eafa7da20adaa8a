//! Halves of surrogate pairs among the escapes of a text.

/// Search for halves of surrogate pairs among the escapes of a text, which come one after another.
#[derive(Default)]
pub(crate) struct SurrogateSearch {
    /// Digits of the current escape so far.
    pub(crate) unit: u32,
    /// Offset behind a high surrogate whose low one is to follow there.
    high_end: Option<u64>,
    /// Offset of the first escape that is half of a pair.
    lone: Option<u64>,
}

impl SurrogateSearch {
    /// Bytes of an escape of a code unit.
    const ESCAPE_BYTES: u64 = 6;

    /// Takes the escape that ends at this offset of the text.
    pub(crate) fn take_unit(&mut self, end: u64) {
        let high_end = self.high_end.take();
        let is_low = matches!(self.unit, 0xdc00..=0xdfff);
        let start = end - Self::ESCAPE_BYTES;
        match high_end {
            Some(high_end) if is_low && high_end == start => return,
            Some(high_end) => self.lone = self.lone.or(Some(high_end - Self::ESCAPE_BYTES)),
            None => {}
        }
        match self.unit {
            0xd800..=0xdbff => self.high_end = Some(end),
            _ if is_low => self.lone = self.lone.or(Some(start)),
            _ => {}
        }
    }

    /// Offset of the first escape that is half of a pair, at the end of the text.
    pub(crate) fn first_lone(&self) -> Option<u64> {
        self.lone.or(self.high_end.map(|end| end - Self::ESCAPE_BYTES))
    }
}
