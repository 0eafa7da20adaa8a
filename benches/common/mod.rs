//! The bundled Synthea store for benches: decompressed once, as one plain file per type or as one text.

use std::path::{Path, PathBuf};

/// Directory of the bundled store, whose files are compressed.
pub(crate) fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/stores/synthea-r4-100")
}

/// Writes the bundled store as plain files to `to`; returns their total bytes.
#[allow(dead_code)]
pub(crate) fn plain_store(to: &Path) -> u64 {
    std::fs::create_dir_all(to).unwrap();
    let mut bytes = 0;
    for entry in std::fs::read_dir(bundled()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "zst") {
            let text = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
            bytes += text.len() as u64;
            std::fs::write(to.join(path.file_stem().unwrap()), text).unwrap();
        }
    }
    bytes
}

/// Every line of the bundled store, concatenated with newlines; 38,483 of them, 51,944,421 bytes.
#[allow(dead_code)]
pub(crate) fn lines() -> Vec<u8> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(bundled()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "zst")) {
        all.extend(zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap());
    }
    assert_eq!(all.len(), 51_944_421);
    all
}

/// A pool of one thread, for which ratios between stages are stated.
#[allow(dead_code)]
pub(crate) fn one_thread() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap()
}
