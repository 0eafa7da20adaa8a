//! The index meta and the snapshot log of format 3, as far as they are carried over into this one: what was remembered of
//! snapshots. Their segments are made again from the store, because they lack columns.
//!
//! The reader shares nothing with that of the present format, so that a change there leaves it alone.

use crate::extract::Validate;
use crate::hash::xxh3_64;
use crate::ids::FileId;
use crate::store::file_name::name_of;
use crate::store::walk::is_store_name;
use std::ffi::OsStr;

/// What begins the index meta of format 3.
const MAGIC: &[u8] = b"outpour-index 3 ";

/// An index meta of format 3, its snapshot log applied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LegacyMeta {
    /// Number of the index meta.
    pub(crate) sequence: u64,
    /// How strictly the scan checked resources.
    pub(crate) validate: Validate,
    /// T of the first snapshot ever taken, in ticks; `None` before it.
    pub(crate) birth: Option<i64>,
    /// Greatest T of the snapshots taken, in ticks; `None` before the first.
    pub(crate) latest: Option<i64>,
    /// Store files in store order.
    pub(crate) files: Vec<LegacyFile>,
    /// Segments in store order.
    pub(crate) segments: Vec<LegacySegment>,
}

/// A store file as format 3 has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LegacyFile {
    /// Path relative to the store.
    pub(crate) name: String,
    /// Its bytes when it was indexed.
    pub(crate) len: u64,
    /// Whether new bytes behind the old end can be indexed by themselves.
    pub(crate) appendable: bool,
}

/// A segment as format 3 has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LegacySegment {
    /// The store file, by its place in [`LegacyMeta::files`].
    pub(crate) file: FileId,
    /// Start in the (uncompressed) file.
    pub(crate) start: u64,
    /// End in the (uncompressed) file.
    pub(crate) end: u64,
    /// xxh3 (64 bit) of the bytes from start to end.
    pub(crate) content: u64,
    /// Whether it is the last line of a plain file, still without its newline.
    pub(crate) tail: bool,
    /// T of the first snapshot that held it, in ticks; `None` before the first.
    pub(crate) first_seen: Option<i64>,
}

impl LegacyMeta {
    /// Reads an index meta of format 3; `None` for anything else, and when it is damaged or names files outside of the
    /// store.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<LegacyMeta> {
        let (sum, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<16>()?;
        let body = body.strip_prefix(b"\n")?;
        if sum[..] != *format!("{:016x}", xxh3_64(body)).as_bytes() {
            return None;
        }
        let meta = LegacyMeta::read(&mut WordReader(body))?;
        let sound =
            meta.segments.iter().all(|segment| segment.file.index() < meta.files.len() && segment.start <= segment.end)
                && meta.segments.is_sorted_by_key(|segment| (segment.file, segment.start))
                && meta.files.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes())
                && meta.files.iter().all(|file| is_store_name(&file.name));
        sound.then_some(meta)
    }

    /// Reads the numbers and names behind the first line; `None` unless the bytes end with them.
    fn read(body: &mut WordReader<'_>) -> Option<LegacyMeta> {
        let sequence = body.number()?;
        let validate = if body.flag()? { Validate::Full } else { Validate::Structure };
        let (birth, latest) = (body.optional()?, body.optional()?);
        let files = body.list(|body| {
            let (name, len, _times, _samples) = (body.text()?, body.number()?, body.numbers::<2>()?, body.number()?);
            Some(LegacyFile { name: name_of(OsStr::new(&name)), len, appendable: body.flag()? })
        })?;
        // Containers, and the global index: name, whether it has a stamp, the stamp. They are not used.
        let index_file = |body: &mut WordReader<'_>| Some((body.text()?, body.flag()?, body.numbers::<3>()?));
        let containers = body.list(index_file)?.len();
        index_file(body)?;
        let segments = body.list(|body| {
            let [file, container, _at, start, end, content] = body.numbers()?;
            usize::try_from(container).ok().filter(|container| *container < containers)?;
            let (tail, first_seen) = (body.flag()?, body.optional()?);
            Some(LegacySegment { file: FileId(u32::try_from(file).ok()?), start, end, content, tail, first_seen })
        })?;
        body.0.is_empty().then_some(LegacyMeta { sequence, validate, birth, latest, files, segments })
    }

    /// Applies the snapshot log of format 3; no change if it is damaged, or belongs to another index meta. Segments then
    /// look as if a later snapshot had been the first to hold them, so that their rows are exported twice, never lost.
    pub(crate) fn apply_log(&mut self, bytes: &[u8]) {
        let Some((words, sum)) = bytes.split_last_chunk::<8>() else { return };
        let mut body = WordReader(words);
        let read = |body: &mut WordReader<'_>| Some((body.number()?, body.optional()?, body.optional()?));
        let Some((sequence, first, latest)) = read(&mut body) else { return };
        if u64::from_le_bytes(*sum) != xxh3_64(words) || !body.0.is_empty() || sequence != self.sequence {
            return;
        }
        for segment in &mut self.segments {
            segment.first_seen = segment.first_seen.or(first);
        }
        self.latest = self.latest.max(latest);
    }
}

/// Reads numbers and texts of format 3 in order; `None` at the end of the bytes or for a value out of range.
struct WordReader<'a>(&'a [u8]);

impl WordReader<'_> {
    /// Reads a little-endian `u64`.
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    /// Reads so many numbers.
    fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Some(numbers)
    }

    /// Reads a number that is 0 or 1.
    fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Reads a flag and a number.
    fn optional(&mut self) -> Option<Option<i64>> {
        let (there, number) = (self.flag()?, self.number()?);
        Some(there.then_some(number.cast_signed()))
    }

    /// Reads a length and a UTF-8 text.
    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        str::from_utf8(text).ok().map(str::to_string)
    }

    /// Reads a count and so many items; memory grows with the items read, not with the count.
    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(one(self)?);
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::instant::Instant;

    /// A file of the index that the last version of format 3 left.
    fn kept(name: &str) -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/compat/index-3/index/").to_string() + name)
            .unwrap()
    }

    /// What format 3 remembered: files, segments, and the snapshot that first held each of them, in part by the log.
    #[test]
    fn a_meta_of_format_3_is_read() {
        let mut meta = LegacyMeta::from_bytes(&kept("generation")).unwrap();
        let at = |text: &str| Some(Instant::parse(text).unwrap().ticks);
        let (first, second) = (at("2024-02-01T00:00:00Z"), at("2024-03-01T00:00:00Z"));
        assert_eq!((meta.birth, meta.latest, meta.validate), (first, first, Validate::Full));
        let seen = |meta: &LegacyMeta| {
            meta.segments.iter().map(|s| (meta.files[s.file.index()].name.clone(), s.first_seen)).collect::<Vec<_>>()
        };
        assert_eq!(seen(&meta).iter().filter(|(_, first_seen)| first_seen.is_none()).count(), 4);
        meta.apply_log(&kept("generation.note"));
        assert_eq!((meta.birth, meta.latest), (first, second));
        let expected = [
            ("Condition.ndjson.gz", first),
            ("Condition.ndjson.gz", second),
            ("Encounter.ndjson.zst", first),
            ("Encounter.ndjson.zst", second),
            ("Group.ndjson", first),
            ("Observation.ndjson", first),
            ("Observation.ndjson", second),
            ("Patient.ndjson", first),
            ("late/Observation.ndjson", second),
        ];
        assert_eq!(seen(&meta), expected.map(|(name, first_seen)| (name.to_string(), first_seen)));
    }

    /// What is cut short or changed anywhere is refused; a log that is changed does nothing.
    #[test]
    fn a_damaged_meta_of_format_3_is_refused() {
        let (bytes, log) = (kept("generation"), kept("generation.note"));
        let meta = LegacyMeta::from_bytes(&bytes).unwrap();
        for offset in 0..bytes.len() {
            assert_eq!(LegacyMeta::from_bytes(&bytes[..offset]), None);
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[offset] ^= 1 << bit;
                assert_eq!(LegacyMeta::from_bytes(&damaged), None, "byte {offset}");
            }
            // Behind a checksum that holds, nothing panics.
            if offset > 33 {
                let mut forged = bytes.clone();
                forged[offset] = 0xff;
                let body = &forged[33..];
                let head = format!("outpour-index 3 {:016x}\n", xxh3_64(body));
                LegacyMeta::from_bytes(&[head.as_bytes(), body].concat());
            }
        }
        for offset in 0..log.len() {
            let mut damaged = log.clone();
            damaged[offset] ^= 1;
            let mut applied = meta.clone();
            applied.apply_log(&damaged);
            applied.apply_log(&log[..offset]);
            assert_eq!(applied, meta, "byte {offset}");
        }
        let mut other = LegacyMeta { sequence: meta.sequence + 1, ..meta.clone() };
        other.apply_log(&log);
        assert_eq!(other.latest, meta.latest);
    }

    /// A forged index meta, its checksum right, leads nowhere outside of the store.
    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let bytes = kept("generation");
        let at = bytes.windows(19).position(|window| window == b"Condition.ndjson.gz").unwrap();
        let reads = |name: &str| {
            let mut body = bytes[33..].to_vec();
            body[at - 33..at - 33 + 19].copy_from_slice(name.as_bytes());
            let head = format!("outpour-index 3 {:016x}\n", xxh3_64(&body));
            LegacyMeta::from_bytes(&[head.as_bytes(), &body].concat()).is_some()
        };
        assert!(reads("Aondition.ndjson.gz"));
        for name in ["../dition.ndjson.gz", "/ondition.ndjson.gz", "A/../tion.ndjson.gz", "A//dition.ndjson.gz"] {
            assert!(!reads(name), "{name}");
        }
    }
}
