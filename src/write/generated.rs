//! Lines made here (messages, deletions) as size-bounded files, under the same bounds as rows (FILE-12).

use std::io;

use super::encode::Encoder;
use super::record::Receipt;
use super::shard_name;
use super::sink::Sink;
use crate::select::ExportRequest;

/// Writes lines to `stem.00001.ndjson` and so on; no line, no file. `resource_type` is the type of every line.
///
/// # Errors
/// The sink's, with the name of the file.
pub fn write_lines<S: Sink>(
    stem: &str,
    resource_type: &'static str,
    lines: &[String],
    request: &ExportRequest,
    sink: &dyn Fn() -> S,
) -> Result<Vec<Receipt>, (String, io::Error)> {
    let bounds = request.bounds;
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let name = shard_name(stem, receipts.len() as u32 + 1, request.coding);
        let at = |error| (name.clone(), error);
        let mut encoder = Encoder::begin(sink(), &name, request.coding, request.digest, 1).map_err(at)?;
        let (mut taken, mut bytes) = (0, 0);
        for line in rest {
            let more = line.len() as u64 + 1;
            let full = bytes + more > bounds.file_bytes || bounds.file_resources.is_some_and(|most| taken >= most);
            if taken > 0 && full {
                break;
            }
            encoder.write(line.as_bytes()).and_then(|()| encoder.write(b"\n")).map_err(at)?;
            taken += 1;
            bytes += more;
        }
        let sums = encoder.finish().map_err(at)?;
        receipts.push(Receipt::new(name, resource_type, taken, sums));
        rest = &rest[taken as usize..];
    }
    Ok(receipts)
}
