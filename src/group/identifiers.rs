//! The business identifiers of a resource: `identifier[].system` and `.value`.

use std::sync::LazyLock;

use crate::extract::Validate;
use crate::extract::fault::Fault;
use crate::extract::scanner::{Scanner, Visitor};
use crate::extract::trie::{Node, Trie};
use crate::simd::Kernel;

static NAMES: LazyLock<(Trie, [Node; 3])> = LazyLock::new(|| {
    let mut trie = Trie::new();
    let nodes = ["identifier", "identifier.system", "identifier.value"].map(|path| trie.add(path, 1));
    trie.freeze();
    (trie, nodes)
});

/// Reads the identifiers of one resource in pieces.
pub struct IdentifierReader<'a> {
    scanner: Scanner,
    state: IdentifierState<'a>,
}

struct IdentifierState<'a> {
    on_identifier: &'a mut dyn FnMut(&str, &str),
    system: Option<String>,
    value: Option<String>,
}

impl<'a> IdentifierReader<'a> {
    /// A reader that tells system (empty if none) and value of each identifier.
    pub fn new(kernel: Kernel, on_identifier: &'a mut dyn FnMut(&str, &str)) -> IdentifierReader<'a> {
        let state = IdentifierState { on_identifier, system: None, value: None };
        IdentifierReader { scanner: Scanner::new(kernel, Validate::Full), state }
    }

    /// Begins.
    pub fn begin(&mut self) {
        self.scanner.begin();
    }

    /// The next piece of the line.
    pub fn feed(&mut self, piece: &[u8]) {
        self.scanner.feed(piece, &NAMES.0, &mut self.state);
    }

    /// The line is over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.scanner.finish()
    }
}

impl Visitor for IdentifierState<'_> {
    fn wants(&self, _: u64) -> bool {
        true
    }
    fn string(&mut self, node: Node, text: Option<&str>) {
        let text = text.map(str::to_string);
        match NAMES.1.iter().position(|known| *known == node) {
            Some(1) => self.system = text,
            Some(2) => self.value = text,
            _ => {}
        }
    }
    fn scalar(&mut self, _: Node, _: u8) {}
    fn container(&mut self, _: Node) {}
    fn open(&mut self, node: Node) {
        if node == NAMES.1[0] {
            self.system = None;
            self.value = None;
        }
    }
    fn close(&mut self, node: Node) {
        if node == NAMES.1[0]
            && let Some(value) = self.value.take()
        {
            (self.on_identifier)(self.system.as_deref().unwrap_or(""), &value);
        }
    }
    fn duplicate_key(&mut self, _: Node, _: u64) {}
}
