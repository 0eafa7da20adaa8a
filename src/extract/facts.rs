//! What the index keeps of a line.

use crate::extract::paths::{BUNDLE, owner_paths};
use crate::fhir::compartment;
use crate::fhir::id::Id;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;

/// What kind of line it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// A resource.
    #[default]
    Resource,
    /// A Bundle of DELETE entries (reading 9).
    Tombstones,
}

/// `meta.lastUpdated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastUpdated<'a> {
    /// Not there, or null.
    Missing,
    /// There, but no legal instant (reading 1).
    Illegal,
    /// There.
    At(InstantRef<'a>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LastUpdatedText {
    #[default]
    Missing,
    Illegal,
    Ticks(i64),
}

/// The facts of a resource, however they are kept.
pub trait ResourceFacts {
    /// `resourceType`.
    fn resource_type(&self) -> ResourceType;
    /// `id`, which is legal.
    fn id(&self) -> &[u8];
    /// `meta.lastUpdated`.
    fn last_updated(&self) -> LastUpdated<'_>;
    /// `meta.versionId`, empty when there is none.
    fn version_id(&self) -> &[u8];
    /// As `Facts::references`, in bytes, which are UTF-8.
    fn reference_bytes(&self) -> impl Iterator<Item = &[u8]>;
    /// As `Facts::references`.
    fn references(&self) -> impl Iterator<Item = &str> {
        self.reference_bytes().map(|text| str::from_utf8(text).unwrap_or_default())
    }
}

impl ResourceFacts for Facts {
    fn resource_type(&self) -> ResourceType {
        self.resource_type
    }
    fn id(&self) -> &[u8] {
        self.id.as_ref().map_or(&[], Id::as_bytes)
    }
    fn last_updated(&self) -> LastUpdated<'_> {
        Facts::last_updated(self)
    }
    fn version_id(&self) -> &[u8] {
        Facts::version_id(self)
    }
    fn reference_bytes(&self) -> impl Iterator<Item = &[u8]> {
        Facts::references(self).map(str::as_bytes)
    }
}

/// The facts of a line. Buffers are reused from line to line.
#[derive(Debug)]
pub struct Facts {
    /// Kind of line.
    pub content: Content,
    /// `resourceType`.
    pub resource_type: ResourceType,
    /// `id`; a resource always has one.
    pub id: Option<Id>,
    pub(crate) updated: LastUpdatedText,
    pub(crate) updated_rest: Vec<u8>,
    pub(crate) version_id: Vec<u8>,
    /// Texts of references or of DELETE urls, one behind the other.
    pub(crate) texts: String,
    /// End of each text and the paths it stands on.
    pub(crate) ends: Vec<(u32, u64)>,
}

impl Facts {
    /// `meta.lastUpdated`.
    pub fn last_updated(&self) -> LastUpdated<'_> {
        match self.updated {
            LastUpdatedText::Missing => LastUpdated::Missing,
            LastUpdatedText::Illegal => LastUpdated::Illegal,
            LastUpdatedText::Ticks(ticks) => LastUpdated::At(InstantRef { ticks, rest: &self.updated_rest }),
        }
    }

    /// `meta.versionId`, empty when there is none.
    pub fn version_id(&self) -> &[u8] {
        &self.version_id
    }

    /// References on the type's compartment paths, as written but unescaped, in their order; for a Provenance all its
    /// targets. A Group's members are no such references (COMP-09).
    pub fn references(&self) -> impl Iterator<Item = &str> {
        let wanted = match self.content {
            Content::Resource => owner_paths(self.resource_type),
            Content::Tombstones => 0,
        };
        self.texts_on(wanted)
    }

    /// `request.url` of each DELETE entry.
    pub fn tombstones(&self) -> impl Iterator<Item = &str> {
        self.texts_on(if self.content == Content::Tombstones { BUNDLE } else { 0 })
    }

    fn texts_on(&self, wanted: u64) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().filter_map(move |(end, paths)| {
            let text = &self.texts[start..*end as usize];
            start = *end as usize;
            (paths & wanted != 0).then_some(text)
        })
    }
}

const _: () = assert!(compartment::PATHS.len() < 62, "each path has a bit of its own");
