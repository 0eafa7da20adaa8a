//! Groups that Groups list: which are read, in which order, and what they must not say.
//!
//! Breadth first, so that the order of members decides nothing: a Group is met first where it lies least deep, is read
//! once, and a cycle ends by itself (GROUP-03).

use crate::error::ExportError;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::instant::{Instant, date_time_span};
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::{FoundGroup, MembershipRule, check_usable, find_group, our_bases, read_group};
use crate::group::reader::{GroupMember, Modifier};
use crate::index::snapshot::Snapshot;
use crate::limits::GROUP_DEPTH_MAX;
use std::collections::{BTreeSet, HashSet, VecDeque};

/// A Group that another one lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NestedGroup {
    /// Its id.
    pub id: Id,
    /// Groups above it: 1 for one that is listed by the Group asked for.
    pub depth: usize,
    /// What lists it, as the caller numbers that.
    pub listed_by: usize,
}

/// The Groups still to read.
#[derive(Debug, Default)]
pub(crate) struct GroupQueue {
    waiting: VecDeque<NestedGroup>,
    seen: HashSet<Id>,
}

impl GroupQueue {
    /// Adds a Group unless it was there before.
    pub(crate) fn push(&mut self, group: NestedGroup) {
        if self.seen.insert(group.id) {
            self.waiting.push_back(group);
        }
    }

    /// The next Group: none is less deep.
    pub(crate) fn pop(&mut self) -> Option<NestedGroup> {
        self.waiting.pop_front()
    }

    /// A Group that is read otherwise: it is not taken from here, before or after.
    pub(crate) fn exclude_patient(&mut self, id: Id) {
        self.seen.insert(id);
        self.waiting.retain(|group| group.id != id);
    }
}

/// How Groups are followed, as far as that does not depend on patients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupFollow<'a> {
    /// Bases that are ours.
    pub fhir_bases: &'a [String],
    /// Which members count.
    pub members: MembershipRule,
    /// When.
    pub at: &'a Instant,
    /// Groups of the store that count as absent.
    pub absent: &'a BTreeSet<String>,
}

impl GroupFollow<'_> {
    /// The id of a Group that a member names, if it counts and names one that is ours.
    pub(crate) fn group_of(&self, member: &GroupMember<'_>) -> Option<Id> {
        let reference = Reference::parse(member.reference?)?;
        let counts = self.members == MembershipRule::Listed || is_active(member, self.at);
        let ours = BaseUrls::new(self.fhir_bases).contains(reference.base);
        (counts && ours && reference.resource_type == ResourceType::GROUP).then_some(reference.id)
    }
}

/// A modifier of a Group that is reached from the Groups of a queue, if there is one: then nothing can be exported
/// (reading 22). Members are passed by but for Groups; what cannot be found, read or followed is for the export to tell.
///
/// # Errors
/// When the store cannot be read.
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
        let FoundGroup::Current(segment, row) = find_group(snapshot, &id, &ours)? else { continue };
        let mut listed = Vec::new();
        let mut on_member = |member: &GroupMember<'_>| listed.extend(following.group_of(member));
        let Ok(head) = read_group(snapshot, (segment, row), &mut on_member)? else { continue };
        let problems = check_usable(&head, following.members);
        if let Some(modifier) = head.modifiers.into_iter().next() {
            return Ok(Some((id, modifier)));
        }
        if !problems.is_empty() {
            continue;
        }
        listed.into_iter().for_each(|id| queue.push(NestedGroup { id, depth: depth + 1, listed_by: 0 }));
    }
    Ok(None)
}

/// GROUP-04: neither inactive nor outside its period at T. A bound that is no date is taken as not given.
pub(crate) fn is_active(member: &GroupMember<'_>, instant: &Instant) -> bool {
    let bound = |text: Option<&str>| text.and_then(|text| date_time_span(text.as_bytes()));
    let begun = bound(member.period_start).is_none_or(|(first, _)| first <= *instant);
    let over = bound(member.period_end).is_some_and(|(_, after)| after <= *instant);
    !member.inactive && begun && !over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str, depth: usize) -> NestedGroup {
        NestedGroup { id: Id::parse(id.as_bytes()).unwrap(), depth, listed_by: 0 }
    }

    /// GROUP-03: breadth first, each Group once, where it was met first; those excluded never.
    #[test]
    fn groups_are_taken_once_in_the_order_they_were_met() {
        let mut queue = GroupQueue::default();
        for (id, depth) in [("x", 1), ("c", 1), ("own", 1), ("x", 2)] {
            queue.push(group(id, depth));
        }
        queue.exclude_patient(group("own", 0).id);
        assert_eq!(queue.pop(), Some(group("x", 1)));
        for (id, depth) in [("own", 2), ("x", 2), ("d", 2)] {
            queue.push(group(id, depth));
        }
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(group("c", 1)), Some(group("d", 2)), None]);
    }
}
