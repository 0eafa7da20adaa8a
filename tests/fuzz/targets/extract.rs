//! Lines: every kernel, whole and in pieces, says what the naive twin says, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outpour::bytes::kernels::Kernel;
use outpour::extract::{Content, Extractor, Validate, naive};

fuzz_target!(|data: &[u8]| {
    let Some((cut, line)) = data.split_first() else { return };
    let twin = naive::extract(line);
    for kernel in Kernel::available() {
        let mut extractor = Extractor::new(kernel, Validate::Full);
        let whole = extractor.extract(line).map(|facts| {
            let references: Vec<String> = facts.references().map(str::to_string).collect();
            (facts.content, facts.resource_type, facts.id, references)
        });
        assert_eq!(whole.is_ok(), twin.is_ok(), "{}", kernel.name());
        extractor.begin();
        line.chunks(usize::from(*cut) + 1).for_each(|piece| extractor.feed(piece));
        let pieces = extractor.finish().map(|facts| {
            let references: Vec<String> = facts.references().map(str::to_string).collect();
            (facts.content, facts.resource_type, facts.id, references)
        });
        assert_eq!(whole.is_ok(), pieces.is_ok());
        if let (Ok(whole), Ok(pieces)) = (&whole, &pieces) {
            assert_eq!(whole, pieces);
            assert!(whole.0 == Content::Tombstones || whole.2.is_some());
        }
    }
});
