//! Reads a line by the shape of an earlier line.
//!
//! Lines of one type look alike: the same keys and brackets, other values. If the tokens of a line equal those of an
//! earlier line, byte for byte, then its token order is legal, as that one's was, and each key is the same token. It
//! remains to compare the keys on followed paths (and the resourceType) with those of the earlier line, in a loop
//! without a branch for each, and to take the values behind them.
//!
//! A shape is trusted only for lines that equal it: a line that differs in anything but values goes to the walk, and a
//! shape is kept only if it finds in its own line the elements that the walk found. The choice of the shapes kept affects
//! speed, never facts.

use std::ops::Range;

use crate::extract::block::row::RowElements;
use crate::extract::block::skeleton::Skeleton;
use crate::extract::paths::{ALWAYS, ElementPaths, ElementRole};
use crate::extract::scalar;
use crate::extract::trie::{Node, ROOT};
use crate::fhir::compartment;
use crate::fhir::resource_type::ResourceType;
use crate::limits::{REFERENCE_BYTES_MAX, SHAPES_MAX};
use crate::simd::{BLOCK, HALF, SCALAR, Vector};

/// Lines without a known shape that are tried before trying pauses; each line with one earns one more.
const CREDIT_MAX: u32 = 32;
/// Lines that are not tried after the credit is spent.
const REST_LINES: u32 = 128;

/// The tokens of a line, and the tokens of the values that its facts come from.
struct Shape {
    /// Bytes of the tokens, as in [`Skeleton`].
    bytes: Box<[u8]>,
    resource_type: ResourceType,
    /// Texts of the keys in containers on followed paths, and of the resourceType.
    fixed: Vec<FixedText>,
    /// Token of the value of the id, `None` when the line has none; the next two are those of `meta`.
    id: Option<u16>,
    last_updated: Option<u16>,
    version_id: Option<u16>,
    /// Tokens of the references, and their paths' nodes.
    references: Vec<(Node, u16)>,
    /// Paths of references on which an identifier stands, one bit each.
    identifier_paths: u64,
    /// Tokens that are numbers or literals.
    scalars: Vec<u16>,
}

/// A text of up to [`HALF`] bytes that follows a token's first byte in every line of the shape.
struct FixedText {
    text: [u8; HALF],
    /// One bit for each byte of the text.
    mask: u32,
    /// The token, an opening quote.
    token: u16,
}

impl FixedText {
    /// The fixed text of `token`: the bytes of `text` in `range`; `None` when they are more than [`HALF`].
    fn new(text: &[u8], token: u16, range: Range<usize>) -> Option<FixedText> {
        let known = text.get(range)?;
        let mut text = [0; HALF];
        text.get_mut(..known.len())?.copy_from_slice(known);
        Some(FixedText { text, mask: (u64::from(u32::MAX) >> (HALF - known.len())) as u32, token })
    }
}

/// Shapes of earlier lines by the hash of their tokens, and the skeleton of the line that is compared with them.
pub(crate) struct ShapeCache {
    skeleton: Skeleton,
    /// One slot for each remainder of the hash; a new shape replaces the one in its slot.
    slots: Vec<ShapeSlot>,
    /// Misses left until trying pauses.
    credit: u32,
    /// Lines left that are not to be tried.
    pub(crate) untried_lines: u32,
}

/// One slot of the cache.
#[derive(Default)]
struct ShapeSlot {
    /// Hash of the last line of this slot without a shape: its shape is learned when the hash comes again.
    missed_hash: u64,
    /// Hash of the tokens of `shape`.
    hash: u64,
    shape: Option<Shape>,
}

/// Outcome of comparing a line with the cache.
pub(crate) enum ShapeFit {
    /// The line has a known shape; its elements are found.
    Found,
    /// The line is to be walked; with `learn`, its shape is to be learned after that.
    Unknown { learn: bool },
}

impl ShapeCache {
    /// An empty cache.
    pub(crate) fn new() -> ShapeCache {
        let slots = (0..SHAPES_MAX).map(|_| ShapeSlot::default()).collect();
        ShapeCache { skeleton: Skeleton::new(), slots, credit: CREDIT_MAX, untried_lines: 0 }
    }

    /// Skeleton of the line compared last.
    pub(crate) fn last_skeleton(&self) -> &Skeleton {
        &self.skeleton
    }

    /// Compares the line that starts at `start` with the shapes; its elements go to `found`.
    #[inline(always)]
    pub(crate) fn fit<V: Vector, const FULL: bool>(
        &mut self,
        vector: V,
        text: &[u8],
        start: usize,
        found: &mut RowElements,
    ) -> ShapeFit {
        let mut learn = false;
        // A line that begins with white space is left to the scanner.
        if text.get(start) == Some(&b'{') && self.skeleton.build::<V, FULL>(vector, text, start) {
            let hash = self.skeleton.hash();
            let slot = &mut self.slots[hash as usize % SHAPES_MAX];
            if slot.hash == hash
                && let Some(shape) = &slot.shape
                && *shape.bytes == *self.skeleton.bytes()
                && shape.take_values::<V, FULL>(vector, text, start, &self.skeleton, found)
            {
                self.credit = (self.credit + 1).min(CREDIT_MAX);
                return ShapeFit::Found;
            }
            learn = std::mem::replace(&mut slot.missed_hash, hash) == hash;
        }
        self.credit -= 1;
        if self.credit == 0 {
            // After the pause an eighth of the credit suffices to see whether trying pays again.
            (self.credit, self.untried_lines) = (CREDIT_MAX / 8, REST_LINES);
        }
        ShapeFit::Unknown { learn }
    }

    /// Learns the shape of the line compared last, in which the walk found `found`.
    #[cold]
    pub(crate) fn learn<V: Vector, const FULL: bool>(
        &mut self,
        vector: V,
        text: &[u8],
        start: usize,
        names: &ElementPaths,
        found: &RowElements,
    ) {
        let Some(shape) = Shape::of(text, start, &self.skeleton, names, found.resource_type) else { return };
        // A shape that does not find the walk's elements would change facts: it is dropped.
        let mut by_shape = RowElements::new();
        if shape.take_values::<V, FULL>(vector, text, start, &self.skeleton, &mut by_shape) && by_shape == *found {
            let hash = self.skeleton.hash();
            let slot = &mut self.slots[hash as usize % SHAPES_MAX];
            (slot.hash, slot.shape) = (hash, Some(shape));
        }
    }
}

/// Whether a value of a line read by shape begins with a number or literal. Digits with at most one point between them
/// and no leading zero are recognised by their masks, without the automaton.
#[inline(always)]
fn is_scalar<V: Vector>(vector: V, text: &[u8]) -> bool {
    if let Some(block) = text.first_chunk::<BLOCK>() {
        let found = vector.marks(block);
        let ends = found.punctuation | found.space;
        let own_bytes = ends.wrapping_sub(1) & !ends;
        let (digit, dot) = (found.digit & own_bytes, found.dot & own_bytes);
        let next_is_digit = digit >> 1;
        let odd = own_bytes & !(digit | dot)
            | dot & !next_is_digit
            | dot & dot.wrapping_sub(1)
            | found.zero & next_is_digit & 1;
        if odd == 0 && digit & 1 != 0 && ends != 0 {
            return true;
        }
    }
    scalar::accepts(scalar::run(scalar::START, text).0)
}

impl Shape {
    /// Finds the elements of a line with this shape's tokens; `false` when its keys differ, or a value needs the walk.
    #[inline(always)]
    fn take_values<V: Vector, const FULL: bool>(
        &self,
        vector: V,
        text: &[u8],
        start: usize,
        skeleton: &Skeleton,
        found: &mut RowElements,
    ) -> bool {
        let mut differing = 0;
        for fixed in &self.fixed {
            let offset = start + skeleton.offset_of(fixed.token) + 1;
            let Some(found_text) = text[offset..].first_chunk::<HALF>() else { return false };
            differing |= vector.differing(found_text, &fixed.text) & fixed.mask;
        }
        if differing != 0 {
            return false;
        }
        if FULL {
            // A loop and no `all`: a closure that is not inlined is not compiled for the kernel's processor.
            for token in &self.scalars {
                if !is_scalar(vector, &text[start + skeleton.offset_of(*token)..]) {
                    return false;
                }
            }
        }
        // A string ends right before the next token. White space between them is rare and left to the walk.
        let mut spaced = false;
        let mut value = |token: u16| {
            let range = start + skeleton.offset_of(token) + 1..start + skeleton.offset_of(token + 1) - 1;
            spaced |= text[range.end] != b'"';
            range
        };
        let mut value_of = |token: Option<u16>| token.map_or(0..0, &mut value);
        (found.id, found.last_updated, found.version_id) =
            (value_of(self.id), value_of(self.last_updated), value_of(self.version_id));
        found.references.clear();
        let mut longest_reference = 0;
        for (node, token) in &self.references {
            let range = value(*token);
            longest_reference = longest_reference.max(range.len());
            found.references.push((*node, range));
        }
        (found.is_known, found.resource_type) = (true, self.resource_type);
        found.identifier_paths = self.identifier_paths;
        !spaced && longest_reference <= REFERENCE_BYTES_MAX
    }

    /// The shape of a line that the walk found right; `None` when a key has an escape or a text is too long.
    fn of(
        text: &[u8],
        start: usize,
        skeleton: &Skeleton,
        names: &ElementPaths,
        resource_type: ResourceType,
    ) -> Option<Shape> {
        let ElementPaths { trie, roles } = names;
        let bytes = skeleton.bytes();
        let offset_of = |token: usize| start + skeleton.offset_of(token as u16);
        let mut shape = Shape {
            bytes: bytes.into(),
            resource_type,
            fixed: Vec::new(),
            id: None,
            last_updated: None,
            version_id: None,
            references: Vec::new(),
            identifier_paths: 0,
            scalars: (0..).zip(bytes).filter(|(_, byte)| **byte == SCALAR).map(|(token, _)| token).collect(),
        };
        // Follows the tokens as the walk does: `frames` are the open containers on followed paths, `skipped` is the
        // depth in a container without followed paths, `pending` the followed key whose value comes next.
        let (mut wanted, mut skipped, mut pending) = (u64::MAX, 0, None);
        let mut frames: Vec<(Node, bool)> = Vec::new();
        for (i, byte) in bytes.iter().enumerate() {
            match byte {
                b'{' | b'[' if skipped > 0 => skipped += 1,
                b'}' | b']' if skipped > 0 => skipped -= 1,
                _ if skipped > 0 => {}
                b'{' | b'[' => {
                    let node = match frames.last() {
                        None => Some(ROOT),
                        Some((node, true)) => Some(*node),
                        Some((_, false)) => pending.take(),
                    };
                    match node {
                        Some(node) => frames.push((node, *byte == b'[')),
                        None => skipped = 1,
                    }
                }
                b'}' | b']' => drop(frames.pop()?),
                // A key, in an object on a followed path.
                b'"' if bytes.get(i + 1) == Some(&b':') => {
                    let (parent, false) = *frames.last()? else { return None };
                    let (token, colon) = (i as u16, offset_of(i + 1));
                    let name = text.get(offset_of(i) + 1..colon - 1)?;
                    if text[colon - 1] != b'"' || name.contains(&b'\\') {
                        return None;
                    }
                    shape.fixed.push(FixedText::new(text, token, offset_of(i) + 1..colon + 1)?);
                    pending = trie.child(parent, name).filter(|node| trie.paths(*node) & wanted != 0);
                    let Some(node) = pending else { continue };
                    match bytes.get(i + 2)? {
                        b'{' | b'[' if roles[node as usize] == ElementRole::Identifier => {
                            shape.identifier_paths |= trie.paths(node);
                            pending = None;
                            continue;
                        }
                        b'{' | b'[' => continue,
                        b'"' => pending = None,
                        _ => {
                            pending = None;
                            continue;
                        }
                    }
                    let token = token + 2;
                    match roles[node as usize] {
                        ElementRole::ResourceType => {
                            shape.fixed.push(FixedText::new(text, token, offset_of(i + 2) + 1..offset_of(i + 3))?);
                            wanted = compartment::paths_of(resource_type) | ALWAYS;
                        }
                        ElementRole::Id => shape.id = Some(token),
                        ElementRole::LastUpdated => shape.last_updated = Some(token),
                        ElementRole::VersionId => shape.version_id = Some(token),
                        ElementRole::Reference => shape.references.push((node, token)),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Some(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::paths::NAMES;
    use crate::simd::{Kernel, KernelJob};
    use proptest::prelude::*;

    struct IsScalar<'a>(&'a [u8]);

    impl KernelJob for IsScalar<'_> {
        type Output = bool;
        #[inline(always)]
        fn run<V: Vector>(self, vector: V) -> bool {
            is_scalar(vector, self.0)
        }
    }

    proptest! {
        /// Numbers recognised by their masks are those that the automaton accepts.
        #[test]
        fn scalars_at_sight_are_those_of_the_automaton(
            text in "[-+0-9.eEtrufalsn]{1,9}|[0-9.]{1,70}|0|[1-9][0-9]{0,5}(\\.[0-9]{1,6})?|true|false|null",
            end in prop::sample::select(vec![",", "}", "]", " ", "\n", "\"", "\u{1}", ""]), pad in 0..80usize) {
            let text = format!("{text}{end}{}", "x".repeat(pad));
            let expected = scalar::accepts(scalar::run(scalar::START, text.as_bytes()).0);
            for kernel in Kernel::available() {
                prop_assert_eq!(kernel.run(IsScalar(text.as_bytes())), expected, "{} {}", kernel.name(), text);
            }
        }
    }

    struct FitCheck<'a>(&'a mut ShapeCache, &'a [u8]);

    impl KernelJob for FitCheck<'_> {
        /// How many lines fit a shape, every other one learned.
        type Output = usize;
        #[inline(always)]
        fn run<V: Vector>(self, vector: V) -> usize {
            let FitCheck(shapes, text) = self;
            let (mut fits, mut start) = (0, 0);
            while start < text.len() {
                let mut found = RowElements::new();
                match shapes.fit::<V, true>(vector, text, start, &mut found) {
                    ShapeFit::Found => fits += 1,
                    ShapeFit::Unknown { .. } => {
                        let mut known =
                            RowElements { is_known: true, resource_type: ResourceType::PATIENT, ..RowElements::new() };
                        known.id = start + 7..start + 8;
                        shapes.learn::<V, true>(vector, text, start, &NAMES, &known);
                    }
                }
                start += text[start..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
            }
            fits
        }
    }

    /// Other values are the same shape; another key, another type, white space or another token is not.
    #[test]
    fn only_values_may_differ() {
        let line = r#"{"id":"a","resourceType":"Patient","n":[1,true],"s":"x"}"#;
        let same = r#"{"id":"b","resourceType":"Patient","n":[22.5,null],"s":"\"{,}\""}"#;
        let others = [
            r#"{"if":"a","resourceType":"Patient","n":[1,true],"s":"x"}"#,
            r#"{"id":"a","resourceType":"Patiens","n":[1,true],"s":"x"}"#,
            r#"{"id":"a" ,"resourceType":"Patient","n":[1,true],"s":"x"}"#,
            r#"{"id":"a","resourceType":"Patient","n":[1,{}],"s":"x"}"#,
            r#"{"id":"a","resourceType":"Patient","n":[1,trve],"s":"x"}"#,
            r#"{"id":"a","resourceType":"Patient","n":[1,true],"s":"\x"}"#,
            r#" {"id":"a","resourceType":"Patient","n":[1,true],"s":"x"}"#,
        ];
        // A comparison reads up to 32 bytes behind a quote, which the end of a text may cut.
        let far = format!("{{}}{}\n", " ".repeat(64));
        for kernel in Kernel::available() {
            let fits = |line: &str, other: &str| {
                kernel.run(FitCheck(&mut ShapeCache::new(), format!("{line}\n{other}\n{far}").as_bytes()))
            };
            assert_eq!(fits(line, same), 1, "{}", kernel.name());
            for other in others {
                assert_eq!(fits(line, other), 0, "{} {other}", kernel.name());
            }
        }
    }
}
