//! Names of output files, parsed: a journal may name these files and no others.

use crate::codec::compression::Compression;
use crate::fhir::resource_type::ResourceType;
use crate::plan::number_digits;
use std::collections::{BTreeMap, HashSet};

/// The parts of an output file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputName {
    /// Folder with its slash: empty, `deleted/` or `error/`.
    pub folder: &'static str,
    /// Type of the file's lines.
    pub resource_type: ResourceType,
    /// Number of the file within its type, from 1.
    pub ordinal: u32,
    /// Digits that the number is written with, 5 to 10.
    pub digits: usize,
    /// Compression that the extension states.
    pub compression: Compression,
}

impl OutputName {
    /// Parses a name as [`shard_name`](crate::plan::shard_name) writes it for any number of files; whether the names of an
    /// export have the digits that their number asks for, [`are_numbered`] tells. `None` for every other text, so that no name in a journal leads out
    /// of the output directory or to a file that no export wrote.
    pub fn parse(name: &str) -> Option<OutputName> {
        let (folder, file) = match name.split_once('/') {
            None => ("", name),
            Some(("deleted", file)) => ("deleted/", file),
            Some(("error", file)) => ("error/", file),
            Some(_) => return None,
        };
        let mut parts = file.splitn(3, '.');
        let resource_type = ResourceType::parse(parts.next()?)?;
        let number = parts.next()?;
        // Neither a sign nor more digits than any number of files asks for.
        let digits = number.len();
        if !(number_digits(0)..=number_digits(u32::MAX)).contains(&digits)
            || !number.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let ordinal = number.parse().ok().filter(|ordinal| *ordinal > 0)?;
        let compression = match parts.next()? {
            "ndjson" => Compression::None,
            "ndjson.gz" => Compression::Gzip,
            "ndjson.zst" => Compression::Zstd,
            _ => return None,
        };
        let of_folder = match folder {
            "deleted/" => resource_type == ResourceType::BUNDLE,
            "error/" => resource_type == ResourceType::OPERATION_OUTCOME,
            _ => true,
        };
        of_folder.then_some(OutputName { folder, resource_type, ordinal, digits, compression })
    }
}

/// Whether these are names that one export gives to its files, in any order: the numbers of each type are those from 1 to
/// the number of its files, written with as many digits as the greatest needs and at least 5, and one compression is theirs.
/// Up to version 0.1 of the record each number had at least 5 digits and no more than it needs; such names stay as they are.
pub(crate) fn are_numbered<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let mut numbers: BTreeMap<(&str, usize), HashSet<(u32, usize)>> = BTreeMap::new();
    let mut compression = None;
    for name in names {
        let Some(name) = OutputName::parse(name) else { return false };
        let number = (name.ordinal, name.digits);
        let is_new = numbers.entry((name.folder, name.resource_type.index())).or_default().insert(number);
        if !is_new || *compression.get_or_insert(name.compression) != name.compression {
            return false;
        }
    }
    numbers.values().all(|numbers| {
        let files = numbers.len();
        let greatest = numbers.iter().map(|(ordinal, _)| *ordinal).max().unwrap_or(0);
        let digits = number_digits(greatest);
        // So many numbers, none twice and none greater than so many: all of them from 1 on.
        greatest as usize == files
            && (numbers.iter().all(|(_, own)| *own == digits)
                || numbers.iter().all(|(ordinal, own)| *own == number_digits(*ordinal)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::shard_name;

    /// Names sort by their numbers, whatever the number of files, and are told from names that no export gives.
    #[test]
    fn names_of_an_export_sort_by_their_numbers() {
        for files in [1, 9, 99_999, 100_000, 100_001] {
            let names = |digits: &dyn Fn(u32) -> u32| -> Vec<String> {
                (1..=files).map(|number| shard_name("Patient", number, digits(number), Compression::None)).collect()
            };
            let sound = |names: &[String]| are_numbered(names.iter().map(String::as_str));
            let now = names(&|_| files);
            assert!(now.is_sorted() && sound(&now), "{files}");
            // As they were given before numbers of one type had equally many digits.
            let before = names(&|number| number);
            assert!(sound(&before) && before.is_sorted() == (files < 100_000), "{files}");
            assert!(!sound(&names(&|_| 1_000_000)), "more digits than {files} need");
            let (mut mixed, mut gap, mut twice) = (now.clone(), now.clone(), now.clone());
            mixed[0] = shard_name("Patient", 1, 1_000_000_000, Compression::None);
            gap[0] = shard_name("Patient", files + 1, files, Compression::None);
            twice.push(now[0].clone());
            assert!(!sound(&mixed) && !sound(&gap) && !sound(&twice), "{files}");
        }
        assert!(are_numbered([]));
        assert!(are_numbered(["Patient.00001.ndjson", "deleted/Bundle.00001.ndjson", "Bundle.00001.ndjson"]));
        assert!(!are_numbered(["Patient.00001.ndjson", "Bundle.00001.ndjson.gz"]));
        assert!(!are_numbered(["manifest.json"]));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for (stem, folder) in [("Patient", ""), ("deleted/Bundle", "deleted/"), ("error/OperationOutcome", "error/")] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                for files in [1, 99_999, 100_000, u32::MAX] {
                    for ordinal in [1, files] {
                        let parsed = OutputName::parse(&shard_name(stem, ordinal, files, compression)).unwrap();
                        assert_eq!((parsed.folder, parsed.ordinal, parsed.compression), (folder, ordinal, compression));
                        assert!(stem.ends_with(parsed.resource_type.name()));
                    }
                }
            }
        }
        for name in [
            "",
            "manifest.json",
            "status.json",
            ".outpour-job/lock",
            "patient.00001.ndjson",
            "Nonsense.00001.ndjson",
            "Patient.0001.ndjson",
            "Patient.00000.ndjson",
            "Patient.00000000001.ndjson",
            "Patient.4294967296.ndjson",
            "Patient.0000\u{0661}.ndjson",
            "Patient.-0001.ndjson",
            "Patient.+0001.ndjson",
            "Patient.00001.ndjson.bz2",
            "Patient.00001.ndjson.gz.gz",
            "Patient.00001",
            "Patient.99999999999.ndjson",
            ".Patient.00001.ndjson.part",
            "error/Patient.00001.ndjson",
            "deleted/OperationOutcome.00001.ndjson",
            "other/Bundle.00001.ndjson",
            "error/error/OperationOutcome.00001.ndjson",
            "../Patient.00001.ndjson",
            "/Patient.00001.ndjson",
            "/etc/passwd",
            "../../../../etc/passwd",
            "Patient.00001.ndjson\0",
            "Patient.00001.ndjson/",
        ] {
            assert_eq!(OutputName::parse(name), None, "{name:?}");
        }
    }
}
