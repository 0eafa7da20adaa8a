//! Streaming reader of the business identifiers of a resource of any type: `identifier[].system` and `.value`.
//!
//! The text is checked in full; only the identifier being read is held.

use std::sync::LazyLock;

use crate::extract::Validate;
use crate::extract::fault::Fault;
use crate::extract::rules::LoneSurrogates;
use crate::extract::scanner::Scanner;
use crate::extract::scanner::visitor::Visitor;
use crate::extract::trie::{Node, Trie};
use crate::simd::Kernel;

/// The trie of paths, and its nodes of the identifier, its system and its value.
static NAMES: LazyLock<(Trie, [Node; 3])> = LazyLock::new(|| {
    let mut trie = Trie::new();
    let nodes = ["identifier", "identifier.system", "identifier.value"].map(|path| trie.add(path, 1));
    trie.freeze();
    (trie, nodes)
});

/// Reads the identifiers of resources in pieces, one resource after another.
pub struct IdentifierReader {
    scanner: Scanner,
    open: OpenIdentifier,
}

/// The parts of the identifier that is being read.
#[derive(Default)]
struct OpenIdentifier {
    system: Option<String>,
    value: Option<String>,
}

/// Visitor of the scanner: holds system and value until their identifier closes.
struct IdentifierVisitor<'a> {
    on_identifier: &'a mut dyn FnMut(&str, &str),
    open: &'a mut OpenIdentifier,
}

impl IdentifierReader {
    /// A reader that scans with `kernel`.
    pub fn new(kernel: Kernel) -> IdentifierReader {
        let scanner = Scanner::new(kernel, Validate::Full, LoneSurrogates::Pass);
        IdentifierReader { scanner, open: OpenIdentifier::default() }
    }

    /// Begins a resource, before its first piece.
    pub fn begin(&mut self) {
        self.scanner.begin();
    }

    /// Reads the next piece of the resource, and passes system (empty if none) and value of each identifier that ends in it
    /// to `on_identifier`. Identifiers without a value are skipped.
    pub fn feed(&mut self, piece: &[u8], on_identifier: &mut dyn FnMut(&str, &str)) {
        self.scanner.feed(piece, &NAMES.0, &mut IdentifierVisitor { on_identifier, open: &mut self.open });
    }

    /// Ends the resource.
    ///
    /// # Errors
    /// The first fault in its text; the caller then drops the identifiers it was passed.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.scanner.finish()
    }
}

impl Visitor for IdentifierVisitor<'_> {
    /// Every path of the trie is wanted to the end.
    fn wants(&self, _: u64) -> bool {
        true
    }
    /// Stores the system or the value of the current identifier.
    fn string(&mut self, node: Node, text: Option<&str>) {
        let text = text.map(str::to_string);
        match NAMES.1.iter().position(|known| *known == node) {
            Some(1) => self.open.system = text,
            Some(2) => self.open.value = text,
            _ => {}
        }
    }
    /// A scalar other than a string is no part of an identifier.
    fn scalar(&mut self, _: Node, _: u8) {}
    /// An object or array in place of a scalar is no part of an identifier.
    fn container(&mut self, _: Node) {}
    /// Begins an identifier: drops the parts of the last one.
    fn open(&mut self, node: Node) {
        if node == NAMES.1[0] {
            self.open.system = None;
            self.open.value = None;
        }
    }
    /// Ends an identifier, and passes it on if it has a value.
    fn close(&mut self, node: Node) {
        if node == NAMES.1[0]
            && let Some(value) = self.open.value.take()
        {
            (self.on_identifier)(self.open.system.as_deref().unwrap_or(""), &value);
        }
    }
    /// A duplicate key is no fault here; its last value counts.
    fn duplicate_key(&mut self, _: Node, _: u64) {}
}
