//! Groups that are members of Groups: the queue in which they are read, and the search for modifiers among them.
//!
//! Breadth first, so that the order of members decides nothing: a Group is reached first at its least depth and is read
//! once, so a cycle ends (GROUP-03). Members that are patients are resolved in `members`.

use crate::error::ExportError;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::instant::{Instant, date_time_span};
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::{FoundGroup, MembershipRule, check_usable, find_group, our_bases, read_group};
use crate::group::member_filter::FilteredGroups;
use crate::group::reader::{GroupMember, Modifier};
use crate::index::snapshot::Snapshot;
use crate::limits::GROUP_DEPTH_MAX;
use crate::select::member_starts::MemberStart;
use std::collections::{BTreeSet, HashSet, VecDeque};

/// A Group that another Group lists as a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NestedGroup {
    /// Id of the listed Group.
    pub id: Id,
    /// Number of Groups above it: 1 if the requested Group lists it.
    pub depth: usize,
    /// The lister, as the caller numbers listers.
    pub listed_by: usize,
    /// When its members joined at the earliest, if that is asked for.
    pub start: MemberStart,
}

/// Queue of the nested Groups to read, breadth first, each once.
#[derive(Debug, Default)]
pub(crate) struct GroupQueue {
    waiting: VecDeque<NestedGroup>,
    /// Ids that were queued or excluded at any time.
    known: HashSet<Id>,
}

impl GroupQueue {
    /// Adds a Group unless its id was queued or excluded before.
    pub(crate) fn push(&mut self, group: NestedGroup) {
        if self.known.insert(group.id) {
            self.waiting.push_back(group);
        }
    }

    /// Removes and returns the next Group; none that waits has a smaller depth.
    pub(crate) fn pop(&mut self) -> Option<NestedGroup> {
        self.waiting.pop_front()
    }

    /// Excludes a Group that the caller reads itself: `pop` never returns it, queued before or after.
    pub(crate) fn exclude_group(&mut self, id: Id) {
        self.known.insert(id);
        self.waiting.retain(|group| group.id != id);
    }
}

/// Rules by which nested Groups are followed, as far as they do not depend on patients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupFollow<'a> {
    /// Bases under which absolute references are ours.
    pub fhir_bases: &'a [String],
    /// Which members count: all, or active ones only.
    pub members: MembershipRule,
    /// The instant at which members must be active.
    pub at: &'a Instant,
    /// Ids of Groups of the store that count as absent.
    pub absent: &'a BTreeSet<String>,
}

impl GroupFollow<'_> {
    /// The id of the Group that a member references; `None` if the member does not count, or references no Group of
    /// ours.
    pub(crate) fn group_of(&self, member: &GroupMember<'_>) -> Option<Id> {
        let reference = Reference::parse(member.reference?)?;
        let counts = self.members == MembershipRule::Listed || is_active(member, self.at);
        let ours = BaseUrls::new(self.fhir_bases).contains(reference.base);
        (counts && ours && reference.resource_type == ResourceType::GROUP).then(|| reference.id())
    }
}

/// The first modifier found in the Groups of a queue and those nested in them, with its Group's id: then nothing can be
/// exported (reading 22). Only members that are Groups are followed; Groups that are missing, unreadable or unusable
/// are skipped without a message, because the export reports them.
///
/// # Errors
/// If the index is corrupt, or a Group's row cannot be read from the store.
pub(crate) fn find_modifier(
    snapshot: &Snapshot,
    following: &GroupFollow<'_>,
    mut queue: GroupQueue,
) -> Result<Option<(Id, Modifier)>, ExportError> {
    let ours = our_bases(snapshot, following.fhir_bases);
    while let Some(NestedGroup { id, depth, .. }) = queue.pop() {
        if depth > GROUP_DEPTH_MAX || following.absent.contains(id.as_str()) {
            continue;
        }
        let FoundGroup::Current(row) = find_group(snapshot, &id, &ours)? else { continue };
        let mut listed = Vec::new();
        let mut on_member = |member: &GroupMember<'_>| listed.extend(following.group_of(member));
        let Ok(head) = read_group(snapshot, row, &mut on_member)? else { continue };
        let problems = check_usable(&head, following.members, FilteredGroups::Refused);
        if let Some(modifier) = head.modifiers.into_iter().next() {
            return Ok(Some((id, modifier)));
        }
        if !problems.is_empty() {
            continue;
        }
        listed
            .into_iter()
            .for_each(|id| queue.push(NestedGroup { id, depth: depth + 1, listed_by: 0, start: MemberStart::Before }));
    }
    Ok(None)
}

/// Whether a member, a nested Group or another, is active at an instant (GROUP-04): not `inactive`, and its period
/// covers the instant. A bound that is no date counts as absent.
pub(crate) fn is_active(member: &GroupMember<'_>, instant: &Instant) -> bool {
    let bound = |text: Option<&str>| text.and_then(|text| date_time_span(text.as_bytes()));
    let has_begun = bound(member.period_start).is_none_or(|(first, _)| first <= *instant);
    let is_over = bound(member.period_end).is_some_and(|(_, after)| after <= *instant);
    !member.inactive && has_begun && !is_over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str, depth: usize) -> NestedGroup {
        NestedGroup { id: Id::parse(id.as_bytes()).unwrap(), depth, listed_by: 0, start: MemberStart::Before }
    }

    /// GROUP-03: breadth first, each Group once, where it was met first; those excluded never.
    #[test]
    fn groups_are_taken_once_in_the_order_they_were_met() {
        let mut queue = GroupQueue::default();
        for (id, depth) in [("x", 1), ("c", 1), ("own", 1), ("x", 2)] {
            queue.push(group(id, depth));
        }
        queue.exclude_group(group("own", 0).id);
        assert_eq!(queue.pop(), Some(group("x", 1)));
        for (id, depth) in [("own", 2), ("x", 2), ("d", 2)] {
            queue.push(group(id, depth));
        }
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(group("c", 1)), Some(group("d", 2)), None]);
    }
}
