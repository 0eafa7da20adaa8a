//! Turns the body of a client's Group into the line that the registry keeps.
//!
//! No tree is built of it, because a Group may have a million members. Only `id`, `meta.versionId` and
//! `meta.lastUpdated` are replaced, and white space between tokens is dropped; every other token stays byte for byte:
//! digits of decimals, escapes, elements that R4 does not know, the order of keys. [`rules`](crate::group::rules)
//! decides which Groups are accepted.

use crate::codec::byte_order_mark::without_mark;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::group::reader::GroupMember;
use crate::group::registry::json::{JsonSpan, write_compact};
use crate::group::rules::problem::RuleViolation;
use crate::group::rules::{GroupCheck, GroupRules, WantedId};
use crate::limits::READ_BYTES;
use std::io::{self, Write};

/// A body that passed the rules for Groups.
#[derive(Clone, Debug)]
pub(crate) struct GroupDocument<'a> {
    root: JsonSpan<'a>,
    /// Types that its filters search, sorted.
    pub searched_types: Vec<ResourceType>,
}

impl<'a> GroupDocument<'a> {
    /// Checks a body, which may begin with a byte order mark, against rules.
    ///
    /// # Errors
    /// Every violation, as [`GroupCheck::finish`] returns them; those of no element are prefixed with `body: `.
    pub(crate) fn check(
        body: &'a [u8],
        id: WantedId<'_>,
        rules: &GroupRules,
    ) -> Result<GroupDocument<'a>, Vec<RuleViolation>> {
        let body = without_mark(body);
        let mut on_member = |_: &GroupMember<'_>| {};
        let mut check = GroupCheck::new(*rules, id, &mut on_member);
        body.chunks(READ_BYTES).for_each(|piece| check.feed(piece));
        match check.finish() {
            Ok(checked) => {
                Ok(GroupDocument { root: JsonSpan::of(body), searched_types: checked.head.filters.searched_types() })
            }
            Err(mut violations) => {
                let unplaced = violations.iter_mut().filter(|violation| violation.expression.is_none());
                unplaced.for_each(|violation| violation.text.insert_str(0, "body: "));
                Err(violations)
            }
        }
    }

    /// Writes the line that is kept, without its newline: the Group with a new id, version and lastUpdated. It is never held
    /// as a whole.
    ///
    /// # Errors
    /// The error of `line`.
    pub(crate) fn write_version(
        &self,
        id: &Id,
        version: u64,
        instant: &Instant,
        line: &mut dyn Write,
    ) -> io::Result<()> {
        write!(
            line,
            r#"{{"resourceType":"Group","id":"{id}","meta":{{"versionId":"{version}","lastUpdated":"{instant}""#
        )?;
        for (_, meta) in self.root.members().filter(|(member, _)| member.name() == "meta") {
            // Extensions of the two replaced values go with them.
            write_others(meta, &["versionId", "lastUpdated", "_versionId", "_lastUpdated"], line)?;
        }
        line.write_all(b"}")?;
        write_others(self.root, &["resourceType", "id", "meta"], line)?;
        line.write_all(b"}")
    }
}

/// Writes the members of a client's object to the stored line, each after a comma, but for the named ones.
fn write_others(object: JsonSpan<'_>, replaced: &[&str], line: &mut dyn Write) -> io::Result<()> {
    for (member, value) in object.members().filter(|(member, _)| !replaced.contains(&&*member.name())) {
        line.write_all(b",")?;
        line.write_all(member.bytes())?;
        line.write_all(b":")?;
        write_compact(value.bytes(), line)?;
    }
    Ok(())
}
