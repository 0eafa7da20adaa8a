//! Extracts the facts of a line: the scanner's visitor that collects them, and the choice between block pass and
//! scanner.

use crate::extract::Validate;
use crate::extract::block::Pass;
use crate::extract::block::row::Row;
use crate::extract::block::shape_cache::ShapeCache;
use crate::extract::facts::{Content, Facts, LastUpdatedText};
use crate::extract::fault::{Fault, FaultKind};
use crate::extract::paths::{ALWAYS, BUNDLE, ElementRole, NAMES};
use crate::extract::rules::LineRules;
use crate::extract::scanner::Scanner;
use crate::extract::scanner::visitor::Visitor;
use crate::extract::trie::{Node, Trie};
use crate::fhir::compartment;
use crate::fhir::id::{Id, IdRule};
use crate::fhir::instant::InstantRef;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::limits::TOMBSTONES_PER_LINE_MAX;
use crate::simd::Kernel;
use std::ops::Range;

/// The scanner's visitor: collects the facts of one line and the faults that only its end decides.
struct Collector {
    facts: Facts,
    /// Paths of the type, one bit each; all paths until the type is known.
    wanted: u64,
    /// `None` before a string `resourceType` was met, `Some(None)` when it names no type of R4.
    resource_type: Option<Option<ResourceType>>,
    /// `None` before a string `id` was met, `Some(None)` when it is no legal id.
    id: Option<Option<Id>>,
    /// Whether a versionId was met.
    has_version: bool,
    /// Which ids are legal.
    ids: IdRule,
    /// Whether resourceType occurred twice: a fault, whatever types they name.
    duplicate_type: bool,
    /// Paths on which a key occurred twice, one bit each; the first such offset is in `duplicate_offset`.
    duplicate_paths: u64,
    duplicate_offset: u64,
    /// State of a Bundle's entries.
    bundle: BundleState,
    roles: &'static [ElementRole],
    paths: &'static Trie,
}

/// State of a Bundle and of its current entry during a scan.
#[derive(Default)]
struct BundleState {
    /// Whether the Bundle's type is `transaction` or `batch`.
    is_list: bool,
    /// Number of entries so far.
    entries: usize,
    /// Whether the entry's method is DELETE; `None` before a method was met.
    method: Option<bool>,
    /// The entry's url; `None` before a url was met, `Some(None)` when it is too long to be compared.
    url: Option<Option<String>>,
    /// Whether the entry has a resource.
    resource: bool,
    /// The first fault of an entry.
    fault: Option<FaultKind>,
}

impl Collector {
    /// Clears the facts and the state of the previous line.
    fn begin(&mut self) {
        let facts = &mut self.facts;
        facts.content = Content::Resource;
        facts.id = None;
        facts.updated = LastUpdatedText::Missing;
        facts.updated_rest.clear();
        facts.version_id.clear();
        facts.texts.clear();
        facts.ends.clear();
        facts.identifier_paths = 0;
        self.wanted = u64::MAX;
        self.resource_type = None;
        self.id = None;
        self.has_version = false;
        self.duplicate_type = false;
        self.duplicate_paths = 0;
        self.duplicate_offset = 0;
        if self.bundle.entries > 0 || self.bundle.is_list {
            self.bundle = BundleState::default();
        }
    }

    /// Records that a lastUpdated was met. A second one, in an array of metas, counts as a duplicate key.
    fn record_last_updated(&mut self) {
        if self.facts.updated != LastUpdatedText::Missing {
            self.duplicate_paths |= ALWAYS;
        }
    }

    /// Records that a versionId was met. A second one counts as a duplicate key.
    fn record_version(&mut self) {
        if std::mem::replace(&mut self.has_version, true) {
            self.duplicate_paths |= ALWAYS;
        }
    }

    /// Adds the text of a reference or of a DELETE url, found on these paths.
    fn push(&mut self, text: &str, paths: u64) {
        self.facts.texts.push_str(text);
        self.facts.ends.push((self.facts.texts.len() as u32, paths));
    }

    /// Completes the facts of a line whose grammar holds, or names the fault of its contents, at `offset` unless a
    /// duplicate key has its own.
    fn finish(&mut self, offset: u64) -> Result<(), Fault> {
        let fault = |kind| Err(Fault { kind, at: offset });
        let resource_type = match self.resource_type {
            Some(Some(known)) => known,
            _ if self.duplicate_type => return Err(Fault { kind: FaultKind::DuplicateKey, at: self.duplicate_offset }),
            Some(None) => return fault(FaultKind::UnknownType),
            None => return fault(FaultKind::NoType),
        };
        let deciding = ALWAYS
            | match resource_type {
                ResourceType::BUNDLE => BUNDLE,
                _ => compartment::paths_of(resource_type),
            };
        if self.duplicate_paths & deciding != 0 {
            return Err(Fault { kind: FaultKind::DuplicateKey, at: self.duplicate_offset });
        }
        self.facts.resource_type = resource_type;
        self.facts.id = self.id.flatten();
        if resource_type == ResourceType::BUNDLE {
            self.facts.content = Content::Tombstones;
            return match self.bundle.fault {
                Some(kind) => fault(kind),
                None if !self.bundle.is_list || self.bundle.entries == 0 => fault(FaultKind::Bundle),
                None => Ok(()),
            };
        }
        match self.id {
            Some(Some(_)) => Ok(()),
            Some(None) => fault(FaultKind::IllegalId),
            None => fault(FaultKind::NoId),
        }
    }
}

impl Visitor for Collector {
    #[inline]
    fn wants(&self, paths: u64) -> bool {
        paths & self.wanted != 0
    }

    fn string(&mut self, node: Node, text: Option<&str>) {
        match self.roles[node as usize] {
            ElementRole::ResourceType => {
                let known = text.and_then(|text| match text == self.facts.resource_type.name() {
                    true => Some(self.facts.resource_type),
                    false => ResourceType::parse(text),
                });
                self.resource_type = Some(known);
                if let Some(known) = known {
                    self.facts.resource_type = known;
                    let bundle = if known == ResourceType::BUNDLE { BUNDLE } else { 0 };
                    self.wanted = compartment::paths_of(known) | ALWAYS | bundle;
                }
            }
            ElementRole::Id => {
                let legal = text.filter(|text| self.ids.allows(text.as_bytes()));
                self.id = Some(legal.and_then(|text| Id::parse(text.as_bytes())));
            }
            ElementRole::LastUpdated => {
                self.record_last_updated();
                self.facts.updated = match text.and_then(|text| InstantRef::parse(text.as_bytes())) {
                    Some(instant) => {
                        self.facts.updated_rest.clear();
                        self.facts.updated_rest.extend_from_slice(instant.rest);
                        LastUpdatedText::Ticks(instant.ticks)
                    }
                    None => LastUpdatedText::Illegal,
                };
            }
            ElementRole::VersionId => {
                self.record_version();
                self.facts.version_id.clear();
                self.facts.version_id.extend_from_slice(text.unwrap_or_default().as_bytes());
            }
            ElementRole::Reference => {
                // A Group's members are followed only for duplicate keys.
                let members = self.resource_type == Some(Some(ResourceType::GROUP));
                if let Some(text) = text.filter(|_| !members) {
                    let paths = self.paths.paths(node);
                    self.push(text, paths);
                }
            }
            ElementRole::BundleType => self.bundle.is_list = matches!(text, Some("transaction" | "batch")),
            ElementRole::Method => {
                // Two requests in one entry count as a duplicate key.
                if self.bundle.method.replace(text == Some("DELETE")).is_some() {
                    self.duplicate_paths |= BUNDLE;
                }
            }
            ElementRole::Url => {
                if self.bundle.url.replace(text.map(str::to_string)).is_some() {
                    self.duplicate_paths |= BUNDLE;
                }
            }
            ElementRole::Resource => self.bundle.resource = true,
            ElementRole::Entry | ElementRole::Identifier | ElementRole::None => {}
        }
    }

    fn scalar(&mut self, node: Node, first: u8) {
        match self.roles[node as usize] {
            ElementRole::LastUpdated if first != b'n' => {
                self.record_last_updated();
                self.facts.updated = LastUpdatedText::Illegal;
            }
            ElementRole::VersionId if first != b'n' => self.record_version(),
            ElementRole::Resource => self.bundle.resource = true,
            _ => {}
        }
    }

    fn container(&mut self, node: Node) {
        if self.roles[node as usize] == ElementRole::Identifier {
            self.facts.identifier_paths |= self.paths.paths(node);
        }
        self.scalar(node, b'{');
    }

    fn open(&mut self, node: Node) {
        if self.roles[node as usize] == ElementRole::Entry {
            self.bundle.method = None;
            self.bundle.url = None;
            self.bundle.resource = false;
            self.bundle.entries += 1;
        }
    }

    fn close(&mut self, node: Node) {
        if self.roles[node as usize] != ElementRole::Entry || self.bundle.fault.is_some() {
            return;
        }
        if self.bundle.entries > TOMBSTONES_PER_LINE_MAX {
            self.bundle.fault = Some(FaultKind::BundleTooLong);
            return;
        }
        let url = self.bundle.url.take().flatten();
        match url {
            Some(url) if self.bundle.method == Some(true) && !self.bundle.resource => match Reference::parse(&url) {
                Some(reference) if reference.version.is_none() && self.ids.allows(reference.id.as_bytes()) => {
                    self.push(&url, BUNDLE)
                }
                _ => self.bundle.fault = Some(FaultKind::BundleUrl),
            },
            _ => self.bundle.fault = Some(FaultKind::Bundle),
        }
    }

    fn duplicate_key(&mut self, node: Node, offset: u64) {
        if self.roles[node as usize] == ElementRole::Identifier {
            return;
        }
        if self.duplicate_paths == 0 {
            self.duplicate_offset = offset;
        }
        self.duplicate_type |= self.roles[node as usize] == ElementRole::ResourceType;
        self.duplicate_paths |= self.paths.paths(node);
    }
}

/// Extracts the facts of lines: of one line, of a line that comes in pieces, or of many lines at once.
pub struct Extractor {
    scanner: Scanner,
    collector: Collector,
    /// Bytes of the current line so far.
    length: u64,
    shapes: ShapeCache,
}

impl Extractor {
    /// An extractor that classifies text with `kernel` and reads lines by these rules.
    pub fn new(kernel: Kernel, rules: impl Into<LineRules>) -> Extractor {
        let rules = rules.into();
        let facts = Facts {
            content: Content::Resource,
            resource_type: ResourceType::PATIENT,
            id: None,
            updated: LastUpdatedText::Missing,
            updated_rest: Vec::new(),
            version_id: Vec::new(),
            texts: String::new(),
            ends: Vec::new(),
            identifier_paths: 0,
            compartment_paths: rules.compartment_paths,
        };
        let collector = Collector {
            facts,
            wanted: u64::MAX,
            resource_type: None,
            id: None,
            has_version: false,
            ids: rules.ids,
            duplicate_type: false,
            duplicate_paths: 0,
            duplicate_offset: 0,
            bundle: BundleState::default(),
            roles: &NAMES.roles,
            paths: &NAMES.trie,
        };
        let scanner = Scanner::new(kernel, rules.validate, rules.lone_surrogates);
        Extractor { scanner, collector, length: 0, shapes: ShapeCache::new() }
    }

    /// Reads the lines of `text` from `from`, the start of one, until `row` returns `false`; `row` gets the range of
    /// each line without its line end, and its facts. `text` must end with a newline. The result is the start of the
    /// next line to read, or the end of the text. If `row` did not stop it, that line is out of the ordinary: the
    /// caller passes it to [`Extractor::extract`] and calls this again behind it.
    pub fn extract_lines(
        &mut self,
        text: &[u8],
        from: usize,
        row: impl FnMut(Range<usize>, &Row<'_>) -> bool,
    ) -> usize {
        debug_assert!(text.ends_with(b"\n"));
        let full = self.scanner.validate() == Validate::Full;
        let ids = self.collector.ids;
        let compartment_paths = self.collector.facts.compartment_paths;
        let pass = Pass { text, from, full, ids, compartment_paths, names: &NAMES, shapes: &mut self.shapes, row };
        self.scanner.kernel().run(pass)
    }

    /// The facts of a line that is not blank, passed without its newline and one trailing carriage return.
    ///
    /// # Errors
    /// The fault, when the line is neither a resource nor a Bundle of deletions.
    pub fn extract(&mut self, line: &[u8]) -> Result<&Facts, Fault> {
        self.begin();
        self.feed(line);
        self.finish()
    }

    /// Begins a line that comes in pieces.
    pub fn begin(&mut self) {
        self.scanner.begin();
        self.collector.begin();
        self.length = 0;
    }

    /// Scans the next piece of the line.
    pub fn feed(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.scanner.feed(piece, &NAMES.trie, &mut self.collector);
    }

    /// Ends a line that came in pieces; its facts.
    ///
    /// # Errors
    /// As [`Extractor::extract`].
    pub fn finish(&mut self) -> Result<&Facts, Fault> {
        self.scanner.finish()?;
        self.collector.finish(self.length)?;
        Ok(&self.collector.facts)
    }
}
