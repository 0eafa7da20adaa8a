//! The names on the paths that a scan follows.

/// A place on a followed path; 0 is the resource itself.
pub type Node = u16;
/// The resource.
pub const ROOT: Node = 0;

struct Entry {
    name: &'static str,
    /// Paths (bits) that go through it.
    paths: u64,
    /// First eight bytes of the name.
    head: u64,
    children: Vec<Node>,
    /// Number among its parent's children, for the mask of those seen.
    ordinal: u8,
    /// Bit i: a child has a name of i bytes.
    lengths: u64,
}

/// Paths as a tree.
pub struct Trie {
    entries: Vec<Entry>,
}

impl Trie {
    /// A tree of nothing.
    pub fn new() -> Trie {
        let root = Entry { name: "", paths: 0, head: 0, children: Vec::new(), ordinal: 0, lengths: 0 };
        Trie { entries: vec![root] }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a path of names joined by dots, under these path bits. The node at its end.
    pub fn add(&mut self, path: &'static str, bits: u64) -> Node {
        self.entries[ROOT as usize].paths |= bits;
        self.add_below(ROOT, path, bits)
    }

    /// Adds a path below a node.
    pub fn add_below(&mut self, mut node: Node, path: &'static str, bits: u64) -> Node {
        for name in path.split('.') {
            node = match self.child(node, name.as_bytes()) {
                Some(child) => child,
                None => {
                    let child = self.entries.len() as Node;
                    let parent = &mut self.entries[node as usize];
                    let ordinal = parent.children.len() as u8;
                    assert!(ordinal < 64 && name.len() < 64, "children are told apart by the bits of a word");
                    parent.children.push(child);
                    parent.lengths |= 1 << name.len();
                    self.entries.push(Entry {
                        name,
                        paths: 0,
                        head: head_of(name.as_bytes()),
                        children: Vec::new(),
                        ordinal,
                        lengths: 0,
                    });
                    child
                }
            };
            self.entries[node as usize].paths |= bits;
        }
        node
    }

    /// The child of this name.
    #[inline]
    pub fn child(&self, node: Node, name: &[u8]) -> Option<Node> {
        let entry = &self.entries[node as usize];
        if name.len() >= 64 || entry.lengths >> name.len() & 1 == 0 {
            return None;
        }
        let head = head_of(name);
        entry.children.iter().copied().find(|child| {
            let child = &self.entries[*child as usize];
            child.head == head && child.name.len() == name.len() && (name.len() <= 8 || child.name.as_bytes() == name)
        })
    }

    /// Whether anything lies below a node.
    #[inline]
    pub fn is_leaf(&self, node: Node) -> bool {
        self.entries[node as usize].children.is_empty()
    }

    /// The paths that go through a node.
    #[inline]
    pub fn paths(&self, node: Node) -> u64 {
        self.entries[node as usize].paths
    }

    /// The node's number among its parent's children.
    #[inline]
    pub fn ordinal(&self, node: Node) -> u8 {
        self.entries[node as usize].ordinal
    }
}

/// The first eight bytes of a name as an integer, zeros behind a shorter one: names then compare without a loop.
#[inline]
fn head_of(name: &[u8]) -> u64 {
    match name.first_chunk::<8>() {
        Some(head) => u64::from_le_bytes(*head),
        None => name.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    }
}
