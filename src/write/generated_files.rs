//! Files of generated lines (issues, deletions): cut by the same size bounds as files of rows (FILE-12).

use std::io;

use crate::casts::to_u32;
use crate::plan::shard_name;
use crate::request::ExportRequest;
use crate::write::encode::Encoder;
use crate::write::journal::Receipt;
use crate::write::sink::Sink;

/// Number of lines from the start of `lines` that go to the next file: as many as its bounds allow, at least one.
fn next_file_end(lines: &[String], request: &ExportRequest) -> usize {
    let bounds = request.bounds;
    let mut bytes = 0;
    let fits = |(i, line): &(usize, &String)| {
        bytes += line.len() as u64 + 1;
        *i == 0 || bytes <= bounds.file_bytes && bounds.file_resources.is_none_or(|most| (*i as u64) < most)
    };
    lines.iter().enumerate().take_while(fits).count()
}

/// Names of the files that [`write_lines`] will write for the same arguments.
pub(crate) fn file_names(stem: &str, lines: &[String], request: &ExportRequest) -> Vec<String> {
    let (mut files, mut rest) = (0, lines);
    while !rest.is_empty() {
        files += 1;
        rest = &rest[next_file_end(rest, request)..];
    }
    (1..=files).map(|number| shard_name(stem, number, files, request.compression)).collect()
}

/// Writes lines to `stem.00001.ndjson` and so on; without lines there is no file. `resource_type` is the type of every
/// line.
///
/// # Errors
/// Name of the file that the sink could not begin, write or commit, and the cause.
pub(crate) fn write_lines<S: Sink>(
    stem: &str,
    resource_type: &'static str,
    lines: &[String],
    request: &ExportRequest,
    sink: &mut S,
) -> Result<Vec<Receipt>, (String, io::Error)> {
    let files = file_names(stem, lines, request);
    write_lines_as(&|number| files[number as usize - 1].clone(), resource_type, lines, request, sink)
}

/// As [`write_lines`], to files whose names `name` gives by their numbers, from 1.
///
/// # Errors
/// As [`write_lines`].
pub(crate) fn write_lines_as<S: Sink>(
    name: &dyn Fn(u32) -> String,
    resource_type: &'static str,
    lines: &[String],
    request: &ExportRequest,
    sink: &mut S,
) -> Result<Vec<Receipt>, (String, io::Error)> {
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let name = name(to_u32(receipts.len() + 1));
        let at = |error| (name.clone(), error);
        let mut encoder = Encoder::begin(&mut *sink, &name, request.compression, request.digest, 1).map_err(at)?;
        let (now, later) = rest.split_at(next_file_end(rest, request));
        for line in now {
            encoder.write(line.as_bytes()).and_then(|()| encoder.write(b"\n")).map_err(at)?;
        }
        let stats = encoder.finish().map_err(at)?;
        receipts.push(Receipt::new(name, resource_type, now.len() as u64, stats));
        rest = later;
    }
    Ok(receipts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::FileBounds;
    use crate::write::sink::MemorySink;

    /// FILE-12, DELETED-07: bounds hold to the byte, a longer line is alone, no file is empty, names are known in advance.
    #[test]
    fn files_are_bounded() {
        let lines: Vec<String> = ["aaa", "bbb", "cccccccc", "d"].map(String::from).to_vec();
        let counts = |file_bytes, file_resources| {
            let mut request = ExportRequest::system();
            request.bounds = FileBounds { file_bytes, file_resources };
            let mut sink = MemorySink::default();
            let receipts = write_lines("error/X", "X", &lines, &request, &mut sink).unwrap();
            let names: Vec<String> = receipts.iter().map(|receipt| receipt.file.clone()).collect();
            assert_eq!(names, file_names("error/X", &lines, &request));
            assert_eq!(sink.files().into_values().flatten().count(), 4 + 4 + 9 + 2);
            receipts.iter().map(|receipt| receipt.count).collect::<Vec<_>>()
        };
        assert_eq!(counts(8, None), [2, 1, 1]);
        assert_eq!(counts(7, None), [1, 1, 1, 1]);
        assert_eq!(counts(19, None), [4]);
        assert_eq!(counts(18, None), [3, 1]);
        assert_eq!(counts(100, Some(2)), [2, 2]);
        // So many files that their numbers need six digits: all of them have six.
        let mut request = ExportRequest::system();
        request.bounds = FileBounds { file_bytes: 100, file_resources: Some(1) };
        let lines = vec!["a".to_string(); 100_000];
        let names = file_names("error/X", &lines, &request);
        assert!(names.is_sorted() && names[0] == "error/X.000001.ndjson" && names[99_999] == "error/X.100000.ndjson");
        assert_eq!(file_names("error/X", &lines[1..], &request)[0], "error/X.00001.ndjson");
    }
}
