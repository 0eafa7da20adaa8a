//! Larger stores made from the bundled one: plain files, with several copies of each resource under other ids.

use crate::run::{decode, testdata};
use std::io::Write;
use std::path::Path;

/// Writes plain files of the given types, each with `copies` copies of its resources.
pub(crate) fn plain_store(dir: &Path, types: &[&str], copies: usize) {
    std::fs::create_dir_all(dir).unwrap();
    for name in types {
        let stored = std::fs::read(testdata("stores/synthea-r4-100").join(format!("{name}.ndjson.zst"))).unwrap();
        let bytes = decode("x.zst", &stored);
        let mut file = std::fs::File::create(dir.join(format!("{name}.ndjson"))).unwrap();
        for copy in 0..copies {
            file.write_all(&renamed(&bytes, copy)).unwrap();
        }
    }
}

/// Changes the version digit of every UUID, which is 4 throughout the bundled store: the ids are new, and references
/// still match them.
fn renamed(bytes: &[u8], copy: usize) -> Vec<u8> {
    assert!(copy < 10);
    let mut out = bytes.to_vec();
    let digit = |byte: u8| byte.is_ascii_hexdigit();
    let mut offset = 0;
    while copy > 0 && offset + 36 <= out.len() {
        let one = &out[offset..offset + 36];
        if one[8] == b'-' && one[13] == b'-' && one[14] == b'4' && one[18] == b'-' && one[23] == b'-' && digit(one[0]) {
            out[offset + 14] = b"456789abcd"[copy];
            offset += 36;
        } else {
            offset += 1;
        }
    }
    out
}
