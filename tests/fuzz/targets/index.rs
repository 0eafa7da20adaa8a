//! Index files with any content: opening one refuses it, or yields columns whose every access is sound. The checksum is
//! set right first, so that the checks behind it are reached.
#![no_main]

use std::io::Write;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use outpour::internals::ColumnRanges;
use outpour::internals::IndexDir;
use outpour::internals::IndexMeta;
use outpour::internals::MAGIC;
use outpour::internals::Segment;
use outpour::internals::VERSION;
use outpour::internals::build;
use outpour::internals::seal_segment;

fuzz_target!(|data: &[u8]| {
    IndexMeta::from_bytes(data);
    IndexMeta::read_body(data);
    let mut bytes = data.to_vec();
    if bytes.len() >= 24 {
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        if let Ok(ranges) = ColumnRanges::read(&bytes) {
            seal_segment(&mut bytes[..ranges.head.size as usize], ranges.front());
        }
    }
    let index_dir = IndexDir::memory();
    index_dir.create("extents").unwrap().write_all(&bytes).unwrap();
    let Ok(map) = index_dir.open("extents") else { return };
    let Ok(segment) = Segment::open(Arc::new(map), 0) else { return };
    let columns = segment.columns();
    for row in 0..segment.rows() {
        columns.id_of(row);
        columns.version_of(row);
        columns.updated_of(row);
        columns.owners_of(row).iter().for_each(|owner| drop(columns.owner_id_of(*owner as usize)));
        columns.targets_of(row).for_each(|target| drop(columns.target_of(target)));
    }
    segment.entry_ids().for_each(|entry| drop((columns.tombstone_of(entry), columns.tombstone_updated(entry))));
    columns.faults().for_each(drop);
    build::build(&[segment], &index_dir, "merged").ok();
});
