//! Index files: whatever they hold, opening them refuses or gives columns that can be asked anything. The checksum is
//! put right first, so that what lies behind it is reached.
#![no_main]

use std::io::Write;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use outpour::internals::IndexDir;
use outpour::internals::build;
use outpour::internals::IndexMeta;
use outpour::internals::MAGIC;
use outpour::internals::ColumnRanges;
use outpour::internals::VERSION;
use outpour::internals::seal_segment;
use outpour::internals::Segment;

fuzz_target!(|data: &[u8]| {
    IndexMeta::from_bytes(data);
    IndexMeta::read_body(data);
    let mut bytes = data.to_vec();
    if bytes.len() >= 24 {
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        if let Ok(places) = ColumnRanges::read(&bytes) {
            seal_segment(&mut bytes[..places.head.size as usize], places.front());
        }
    }
    let home = IndexDir::memory();
    home.create("extents").unwrap().write_all(&bytes).unwrap();
    let Ok(map) = home.open("extents") else { return };
    let Ok(segment) = Segment::open(Arc::new(map), 0) else { return };
    let columns = segment.columns();
    for row in 0..segment.rows() {
        columns.id_of(row);
        columns.version_of(row);
        columns.updated_of(row);
        columns.owners_of(row).iter().for_each(|owner| drop(columns.owner_id_of(*owner as usize)));
        columns.targets_of(row).for_each(|target| drop(columns.target_of(target)));
    }
    (0..segment.tombstones()).for_each(|at| drop((columns.tombstone_of(at), columns.tombstone_updated(at))));
    columns.faults().for_each(drop);
    build::build(&[segment], &home, "merged").ok();
});
