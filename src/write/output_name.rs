//! Names of output files, parsed: a journal may name these files and no others.

use crate::codec::compression::Compression;
use crate::fhir::resource_type::ResourceType;
use crate::plan::shard_name;

/// The parts of an output file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputName {
    /// Folder with its slash: empty, `deleted/` or `error/`.
    pub folder: &'static str,
    /// Type of the file's lines.
    pub resource_type: ResourceType,
    /// Number of the file within its type, from 1.
    pub ordinal: u32,
    /// Compression that the extension states.
    pub compression: Compression,
}

impl OutputName {
    /// Parses a name as [`shard_name`] writes it. `None` for every other text, so that no name in a journal leads out
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
        let ordinal = parts.next()?.parse().ok().filter(|ordinal| *ordinal > 0)?;
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
        // Printing the parts must give the same text: this refuses a sign before the number and extra zeros.
        let stem = format!("{folder}{}", resource_type.name());
        (of_folder && shard_name(&stem, ordinal, compression) == name).then_some(OutputName {
            folder,
            resource_type,
            ordinal,
            compression,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for (stem, folder) in [("Patient", ""), ("deleted/Bundle", "deleted/"), ("error/OperationOutcome", "error/")] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                for ordinal in [1, 99_999, 100_000, u32::MAX] {
                    let parsed = OutputName::parse(&shard_name(stem, ordinal, compression)).unwrap();
                    assert_eq!((parsed.folder, parsed.ordinal, parsed.compression), (folder, ordinal, compression));
                    assert!(stem.ends_with(parsed.resource_type.name()));
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
            "Patient.000001.ndjson",
            "Patient.00000.ndjson",
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
