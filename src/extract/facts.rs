//! The facts of a line that an index stores: type, id, lastUpdated, version and references of a resource, or the
//! deletions of a Bundle.

use crate::extract::paths::{BUNDLE, owner_paths};
use crate::fhir::compartment::{self, CompartmentPaths};
use crate::fhir::id::Id;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;

/// Kind of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// A resource of any type but Bundle.
    #[default]
    Resource,
    /// A Bundle of DELETE entries (reading 9).
    Tombstones,
}

/// `meta.lastUpdated` of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastUpdated<'a> {
    /// It is absent or null.
    Missing,
    /// It is present, but no legal instant (reading 1).
    Illegal,
    /// It is a legal instant.
    At(InstantRef<'a>),
}

/// `meta.lastUpdated` in [`Facts`], whose digits behind the ticks are kept in a buffer of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LastUpdatedText {
    #[default]
    Missing,
    Illegal,
    Ticks(i64),
}

/// Facts of a resource, independent of where they are stored.
pub trait ResourceFacts {
    /// Type of the resource, from `resourceType`.
    fn resource_type(&self) -> ResourceType;
    /// `id`, a legal one.
    fn id(&self) -> &[u8];
    /// The resource's `meta.lastUpdated`.
    fn last_updated(&self) -> LastUpdated<'_>;
    /// `meta.versionId`, empty when it is absent.
    fn version_id(&self) -> &[u8];
    /// Whether an identifier stands on a path of references, beside one or in its place.
    fn has_identifier(&self) -> bool;
    /// As `Facts::references`, as bytes of UTF-8.
    fn reference_bytes(&self) -> impl Iterator<Item = &[u8]>;
    /// References on the type's compartment paths, as `Facts::references`.
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
    fn has_identifier(&self) -> bool {
        self.content == Content::Resource
            && self.identifier_paths & owner_paths(self.resource_type, self.compartment_paths) != 0
    }
    fn reference_bytes(&self) -> impl Iterator<Item = &[u8]> {
        Facts::references(self).map(str::as_bytes)
    }
}

/// Facts of a line. Its buffers are reused from line to line.
#[derive(Debug)]
pub struct Facts {
    /// Kind of the line.
    pub content: Content,
    /// Type of the resource, from `resourceType`.
    pub resource_type: ResourceType,
    /// `id`; a resource always has one, a Bundle may have none.
    pub id: Option<Id>,
    /// `meta.lastUpdated`, without the digits in `updated_rest`.
    pub(crate) updated: LastUpdatedText,
    /// The instant's `rest`, as in [`InstantRef`].
    pub(crate) updated_rest: Vec<u8>,
    /// `meta.versionId`, empty when it is absent.
    pub(crate) version_id: Vec<u8>,
    /// Texts of references or of DELETE urls, concatenated.
    pub(crate) texts: String,
    /// End of each text in `texts`, and the paths it was found on, one bit each.
    pub(crate) ends: Vec<(u32, u64)>,
    /// Paths of references on which an identifier stands, one bit each.
    pub(crate) identifier_paths: u64,
    /// Which paths make owners.
    pub(crate) compartment_paths: CompartmentPaths,
}

impl Facts {
    /// The line's `meta.lastUpdated`, with its digits behind the ticks.
    pub fn last_updated(&self) -> LastUpdated<'_> {
        match self.updated {
            LastUpdatedText::Missing => LastUpdated::Missing,
            LastUpdatedText::Illegal => LastUpdated::Illegal,
            LastUpdatedText::Ticks(ticks) => LastUpdated::At(InstantRef { ticks, rest: &self.updated_rest }),
        }
    }

    /// `meta.versionId`, empty when it is absent.
    pub fn version_id(&self) -> &[u8] {
        &self.version_id
    }

    /// References on the type's compartment paths that make owners, with escapes resolved, in their order; for a Provenance all its
    /// targets. A Group's members are none (COMP-09).
    pub fn references(&self) -> impl Iterator<Item = &str> {
        let wanted = match self.content {
            Content::Resource => owner_paths(self.resource_type, self.compartment_paths),
            Content::Tombstones => 0,
        };
        self.texts_on(wanted)
    }

    /// `request.url` of each DELETE entry of a Bundle; none for other lines.
    pub fn tombstones(&self) -> impl Iterator<Item = &str> {
        self.texts_on(if self.content == Content::Tombstones { BUNDLE } else { 0 })
    }

    /// The texts that were found on one of these paths.
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
