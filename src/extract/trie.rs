//! The element paths that a scan follows, as a tree of property names with one hash look-up for each name.

/// Index of a node: a position on a followed path.
pub(crate) type Node = u16;
/// The node of the resource itself.
pub(crate) const ROOT: Node = 0;

/// A node of the tree.
struct TrieEntry {
    name: &'static str,
    /// Paths that go through the node, one bit each.
    paths: u64,
    /// First eight bytes of the name, as by [`head_of`].
    head: u64,
    children: Vec<Node>,
    /// Number among its parent's children, for masks of the children met.
    ordinal: u8,
    /// Children by the hash of their names' heads, after [`Trie::freeze`]; `FREE` where there is none. No two children
    /// share a slot.
    slots: Vec<TrieSlot>,
    /// Multiplier of the hash that separates the children.
    multiplier: u64,
}

/// A child and the parts of its name that a look-up compares.
#[derive(Clone, Copy)]
struct TrieSlot {
    head: u64,
    len: u16,
    child: Node,
}

/// A slot without a child. No name has its length.
const FREE: TrieSlot = TrieSlot { head: 0, len: u16::MAX, child: ROOT };

/// Most multipliers tried for a node until no two of its children share a slot.
const MULTIPLIERS_MAX: u64 = 1 << 20;

/// Followed paths as a tree of names.
pub(crate) struct Trie {
    entries: Vec<TrieEntry>,
}

impl Trie {
    /// A tree with the root only.
    pub(crate) fn new() -> Trie {
        let root = TrieEntry {
            name: "",
            paths: 0,
            head: 0,
            children: Vec::new(),
            ordinal: 0,
            slots: vec![FREE; 2],
            multiplier: 0,
        };
        Trie { entries: vec![root] }
    }

    /// Number of nodes, the root included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a path of names joined by dots from the root, with these path bits; the node at its end.
    pub(crate) fn add(&mut self, path: &'static str, bits: u64) -> Node {
        self.entries[ROOT as usize].paths |= bits;
        self.add_below(ROOT, path, bits)
    }

    /// Adds a path of names joined by dots below a node, with these path bits; the node at its end.
    pub(crate) fn add_below(&mut self, mut node: Node, path: &'static str, bits: u64) -> Node {
        for name in path.split('.') {
            let known = self.entries[node as usize].children.iter().copied();
            node = match known.clone().find(|child| self.entries[*child as usize].name == name) {
                Some(child) => child,
                None => {
                    let child = self.entries.len() as Node;
                    let parent = &mut self.entries[node as usize];
                    let ordinal = parent.children.len() as u8;
                    assert!(ordinal < 64 && name.len() < 64, "children are told apart by the bits of a word");
                    parent.children.push(child);
                    self.entries.push(TrieEntry {
                        name,
                        paths: 0,
                        head: head_of(name.as_bytes()),
                        children: Vec::new(),
                        ordinal,
                        slots: vec![FREE; 2],
                        multiplier: 0,
                    });
                    child
                }
            };
            self.entries[node as usize].paths |= bits;
        }
        node
    }

    /// Prepares the tree for look-ups: finds for each node a hash that gives each of its children a slot of its own.
    pub(crate) fn freeze(&mut self) {
        for i in 0..self.entries.len() {
            let children: Vec<TrieSlot> = self.entries[i].children.iter().map(|child| self.slot(*child)).collect();
            // At least as many slots as the square of the children, so that a random multiplier mostly separates them.
            let slots = (children.len() * children.len()).next_power_of_two().max(2);
            let tries = (1..MULTIPLIERS_MAX).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let (multiplier, slots) = tries
                .filter_map(|multiplier| {
                    let mut found = vec![FREE; slots];
                    let free = children.iter().all(|slot| {
                        std::mem::replace(&mut found[slot_of(slot.head, multiplier, slots)], *slot).child == ROOT
                    });
                    free.then_some((multiplier, found))
                })
                .next()
                .expect("no two children of a node begin with the same eight bytes");
            (self.entries[i].multiplier, self.entries[i].slots) = (multiplier, slots);
        }
    }

    /// The slot of a child: the head and length of its name.
    fn slot(&self, child: Node) -> TrieSlot {
        let entry = &self.entries[child as usize];
        TrieSlot { head: entry.head, len: entry.name.len() as u16, child }
    }

    /// The child of this name, after [`Trie::freeze`]; `None` when the name is on no followed path.
    #[inline]
    pub(crate) fn child(&self, node: Node, name: &[u8]) -> Option<Node> {
        self.child_with(node, head_of(name), name)
    }

    /// As [`Trie::child`], for a name whose [`head_of`] is known.
    #[inline]
    pub(crate) fn child_with(&self, node: Node, head: u64, name: &[u8]) -> Option<Node> {
        let entry = &self.entries[node as usize];
        let slot = &entry.slots[slot_of(head, entry.multiplier, entry.slots.len())];
        // One branch for both comparisons: most names are on no followed path.
        let same = (slot.head == head) & (usize::from(slot.len) == name.len());
        (same && (name.len() <= 8 || self.entries[slot.child as usize].name.as_bytes() == name)).then_some(slot.child)
    }

    /// Whether a node has no children.
    #[inline]
    pub(crate) fn is_leaf(&self, node: Node) -> bool {
        self.entries[node as usize].children.is_empty()
    }

    /// The paths that go through a node, one bit each.
    #[inline]
    pub(crate) fn paths(&self, node: Node) -> u64 {
        self.entries[node as usize].paths
    }

    /// The node's number among its parent's children, below 64.
    #[inline]
    pub(crate) fn ordinal(&self, node: Node) -> u8 {
        self.entries[node as usize].ordinal
    }
}

/// The first eight bytes of a name as an integer, padded with zeros: names then compare without a loop.
#[inline]
pub(crate) fn head_of(name: &[u8]) -> u64 {
    match name.first_chunk::<8>() {
        Some(head) => u64::from_le_bytes(*head),
        None => name.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    }
}

/// Index of a head among `slots` slots, a power of two of at least 2.
#[inline]
fn slot_of(head: u64, multiplier: u64, slots: usize) -> usize {
    (head.wrapping_mul(multiplier) >> (64 - slots.trailing_zeros())) as usize
}
