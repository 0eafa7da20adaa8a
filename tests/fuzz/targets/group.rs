//! Group members and identifiers: nothing panics, and pieces of any length yield the members of the whole text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outpour::internals::GroupMember;
use outpour::internals::GroupReader;
use outpour::internals::IdentifierReader;
use outpour::internals::GroupMember;
use outpour::internals::Kernel;

/// Number of members by the Group's head, and the members, read in pieces of `cut` bytes; `None` if the text is faulty.
fn members(data: &[u8], cut: usize) -> Option<(u64, Vec<String>)> {
    let mut found = Vec::new();
    let mut on_member = |member: &GroupMember<'_>| found.push(format!("{member:?}"));
    let mut reader = GroupReader::new(Kernel::detect(), &mut on_member);
    reader.begin();
    data.chunks(cut).for_each(|piece| reader.feed(piece));
    let head = reader.finish().ok()?;
    Some((head.members, found))
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, text)) = data.split_first() else { return };
    let whole = members(text, usize::MAX);
    assert_eq!(whole, members(text, usize::from(*cut) + 1));
    if let Some((count, members)) = whole {
        assert_eq!(count, members.len() as u64);
    }
    let mut on_identifier = |_: &str, _: &str| {};
    let mut reader = IdentifierReader::new(Kernel::detect());
    reader.begin();
    reader.feed(text, &mut on_identifier);
    reader.finish().ok();
});
