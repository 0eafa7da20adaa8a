//! The names on the paths that a scan follows.

/// A place on a followed path; 0 is the resource itself.
pub(crate) type Node = u16;
/// The resource.
pub(crate) const ROOT: Node = 0;

struct TrieEntry {
    name: &'static str,
    /// Paths (bits) that go through it.
    paths: u64,
    /// First eight bytes of the name.
    head: u64,
    children: Vec<Node>,
    /// Number among its parent's children, for the mask of those seen.
    ordinal: u8,
    /// Where each child stands by the hash of its name's head, once sealed; 0 for nowhere. Children never collide.
    slots: Vec<TrieSlot>,
    multiplier: u64,
}

/// What a look-up needs to tell a child.
#[derive(Clone, Copy)]
struct TrieSlot {
    head: u64,
    len: u16,
    child: Node,
}

/// The slot of no child: no name is so long.
const FREE: TrieSlot = TrieSlot { head: 0, len: u16::MAX, child: ROOT };

/// Multipliers tried until no two children of a node fall on one slot.
const MULTIPLIERS_MAX: u64 = 1 << 20;

/// Paths as a tree.
pub(crate) struct Trie {
    entries: Vec<TrieEntry>,
}

impl Trie {
    /// A tree of nothing.
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

    /// Number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a path of names joined by dots, under these path bits. The node at its end.
    pub(crate) fn add(&mut self, path: &'static str, bits: u64) -> Node {
        self.entries[ROOT as usize].paths |= bits;
        self.add_below(ROOT, path, bits)
    }

    /// Adds a path below a node.
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

    /// Makes the tree ready for look-ups: finds for each node a hash that keeps its children apart.
    pub(crate) fn freeze(&mut self) {
        for i in 0..self.entries.len() {
            let children: Vec<TrieSlot> = self.entries[i].children.iter().map(|child| self.slot(*child)).collect();
            // As many slots as pairs, so that a random multiplier keeps all apart more often than not.
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

    fn slot(&self, child: Node) -> TrieSlot {
        let entry = &self.entries[child as usize];
        TrieSlot { head: entry.head, len: entry.name.len() as u16, child }
    }

    /// The child of this name, once sealed.
    #[inline]
    pub(crate) fn child(&self, node: Node, name: &[u8]) -> Option<Node> {
        self.child_with(node, head_of(name), name)
    }

    /// The same when the name's head is known.
    #[inline]
    pub(crate) fn child_with(&self, node: Node, head: u64, name: &[u8]) -> Option<Node> {
        let entry = &self.entries[node as usize];
        let slot = &entry.slots[slot_of(head, entry.multiplier, entry.slots.len())];
        // One branch for all of it: most names are none of ours.
        let same = (slot.head == head) & (usize::from(slot.len) == name.len());
        (same && (name.len() <= 8 || self.entries[slot.child as usize].name.as_bytes() == name)).then_some(slot.child)
    }

    /// Whether anything lies below a node.
    #[inline]
    pub(crate) fn is_leaf(&self, node: Node) -> bool {
        self.entries[node as usize].children.is_empty()
    }

    /// The paths that go through a node.
    #[inline]
    pub(crate) fn paths(&self, node: Node) -> u64 {
        self.entries[node as usize].paths
    }

    /// The node's number among its parent's children.
    #[inline]
    pub(crate) fn ordinal(&self, node: Node) -> u8 {
        self.entries[node as usize].ordinal
    }
}

/// The first eight bytes of a name as an integer, zeros behind a shorter one: names then compare without a loop.
#[inline]
pub(crate) fn head_of(name: &[u8]) -> u64 {
    match name.first_chunk::<8>() {
        Some(head) => u64::from_le_bytes(*head),
        None => name.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    }
}

/// Where a head falls among `slots`, a power of two of at least 2.
#[inline]
fn slot_of(head: u64, multiplier: u64, slots: usize) -> usize {
    (head.wrapping_mul(multiplier) >> (64 - slots.trailing_zeros())) as usize
}
