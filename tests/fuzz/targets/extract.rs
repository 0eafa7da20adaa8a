//! Extraction of facts from lines: every kernel agrees with the naive oracle, for whole lines, for lines in pieces, and
//! for a line among others. Nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outpour::Validate;
use outpour::internals::Content;
use outpour::internals::Extractor;
use outpour::internals::Kernel;
use outpour::internals::ResourceFacts;
use outpour::internals::naive;

fuzz_target!(|data: &[u8]| {
    let Some((cut, line)) = data.split_first() else { return };
    let oracle = naive::extract(line, Validate::Full);
    for kernel in Kernel::available() {
        let mut extractor = Extractor::new(kernel, Validate::Full);
        let whole = extractor.extract(line).map(|facts| {
            let references: Vec<String> = facts.references().map(str::to_string).collect();
            (facts.content, facts.resource_type, facts.id, references)
        });
        assert_eq!(whole.is_ok(), oracle.is_ok(), "{}", kernel.name());
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
        // The pass over many lines accepts no line that is refused by itself, and reads the same facts from those it
        // accepts.
        for validate in [Validate::Full, Validate::Structure] {
            let mut single = Extractor::new(kernel, validate);
            let mut text = data.to_vec();
            text.push(b'\n');
            let mut offset = 0;
            while offset < text.len() {
                let mut many = Extractor::new(kernel, validate);
                offset = many.extract_lines(&text, offset, |range, row| {
                    let facts = single.extract(&text[range]).expect("it is no more lenient");
                    assert!(row.references().eq(facts.references()));
                    assert_eq!((row.resource_type(), row.id()), (facts.resource_type, ResourceFacts::id(facts)));
                    assert_eq!((row.last_updated(), row.version_id()), (facts.last_updated(), facts.version_id()));
                    true
                });
                offset += text[offset..].iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            }
        }
    }
});
