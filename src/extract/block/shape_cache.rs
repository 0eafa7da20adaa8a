//! Reads a line by what is known of a line of the same shape.
//!
//! Lines of one type look alike: the same keys, the same brackets, other values. When the tokens of a line are, byte for
//! byte, those of a line that was read before, then its grammar is as right as that one's was, and each key stands
//! behind the same token. What is left is to hold the keys on followed paths (and the resourceType) against those of
//! the line before, which no branch decides one by one, and to take the values that stand behind them.
//!
//! Nothing is believed of a shape but what equals: lines that differ in anything but their values are left to the walk,
//! and a shape is kept only if it finds in its own line what the walk has found there. Which shapes are kept decides
//! about speed, never about facts.

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

/// Lines without a shape that are worth trying, when none has one; each line with one earns another.
const CREDIT_MAX: u32 = 32;
/// Lines that are not tried at all once the credit is spent.
const REST_LINES: u32 = 128;

/// What is known of lines with the same tokens.
struct Shape {
    bytes: Box<[u8]>,
    resource_type: ResourceType,
    /// What stands behind the opening quotes of these tokens.
    fixed: Vec<FixedText>,
    /// Tokens where the values stand.
    id: Option<u16>,
    last_updated: Option<u16>,
    version_id: Option<u16>,
    references: Vec<(Node, u16)>,
    /// Numbers and literals.
    scalars: Vec<u16>,
}

/// A text of up to [`HALF`] bytes that stands behind a token's first byte in every line of the shape.
struct FixedText {
    text: [u8; HALF],
    /// Its bytes, a bit each.
    mask: u32,
    token: u16,
}

impl FixedText {
    /// The bytes of `text` from behind a token's first one to `end`.
    fn new(text: &[u8], token: u16, range: Range<usize>) -> Option<FixedText> {
        let known = text.get(range)?;
        let mut text = [0; HALF];
        text.get_mut(..known.len())?.copy_from_slice(known);
        Some(FixedText { text, mask: (u64::from(u32::MAX) >> (HALF - known.len())) as u32, token })
    }
}

/// ShapeCache met, and the line that is being held against them.
pub(crate) struct ShapeCache {
    outline: Skeleton,
    slots: Vec<ShapeSlot>,
    credit: u32,
    /// Lines that are not to be tried.
    pub(crate) rest: u32,
}

#[derive(Default)]
struct ShapeSlot {
    /// Hash of the last line that fell here and had no shape: a shape is learned when it comes again.
    missed: u64,
    hash: u64,
    shape: Option<Shape>,
}

/// What came of trying a line.
pub(crate) enum ShapeFit {
    /// What was to be found is found.
    Found,
    /// The line is for the walk; whether its shape should be learned from it.
    Unknown { learn: bool },
}

impl ShapeCache {
    pub(crate) fn new() -> ShapeCache {
        let slots = (0..SHAPES_MAX).map(|_| ShapeSlot::default()).collect();
        ShapeCache { outline: Skeleton::new(), slots, credit: CREDIT_MAX, rest: 0 }
    }

    /// The line tried last.
    pub(crate) fn draw_skeleton(&self) -> &Skeleton {
        &self.outline
    }

    /// Tries the line that starts at `start`.
    #[inline(always)]
    pub(crate) fn fit<V: Vector, const FULL: bool>(
        &mut self,
        vector: V,
        text: &[u8],
        start: usize,
        found: &mut RowElements,
    ) -> ShapeFit {
        let mut learn = false;
        // White space before a line is for the scanner to note.
        if text.get(start) == Some(&b'{') && self.outline.draw_tokens::<V, FULL>(vector, text, start) {
            let hash = self.outline.hash();
            let slot = &mut self.slots[hash as usize % SHAPES_MAX];
            if slot.hash == hash
                && let Some(shape) = &slot.shape
                && *shape.bytes == *self.outline.bytes()
                && shape.take::<V, FULL>(vector, text, start, &self.outline, found)
            {
                self.credit = (self.credit + 1).min(CREDIT_MAX);
                return ShapeFit::Found;
            }
            learn = std::mem::replace(&mut slot.missed, hash) == hash;
        }
        self.credit -= 1;
        if self.credit == 0 {
            // A few tries the next time show whether it has become worth it.
            (self.credit, self.rest) = (CREDIT_MAX / 8, REST_LINES);
        }
        ShapeFit::Unknown { learn }
    }

    /// Learns the shape of the line tried last, in which the walk has found `found`.
    #[cold]
    pub(crate) fn learn<V: Vector, const FULL: bool>(
        &mut self,
        vector: V,
        text: &[u8],
        start: usize,
        names: &ElementPaths,
        found: &RowElements,
    ) {
        let Some(shape) = Shape::of(text, start, &self.outline, names, found.resource_type) else { return };
        let mut again = RowElements::new();
        if shape.take::<V, FULL>(vector, text, start, &self.outline, &mut again) && again == *found {
            let hash = self.outline.hash();
            let slot = &mut self.slots[hash as usize % SHAPES_MAX];
            (slot.hash, slot.shape) = (hash, Some(shape));
        }
    }
}

/// Whether a text begins with a number or literal. One of digits with at most one point between them and no zero in
/// front is told at sight.
#[inline(always)]
fn is_scalar<V: Vector>(vector: V, text: &[u8]) -> bool {
    if let Some(block) = text.first_chunk::<BLOCK>() {
        let found = vector.marks(block);
        let ends = found.punctuation | found.space;
        let own = ends.wrapping_sub(1) & !ends;
        let (digit, dot) = (found.digit & own, found.dot & own);
        let behind = digit >> 1;
        let odd = own & !(digit | dot) | dot & !behind | dot & dot.wrapping_sub(1) | found.zero & behind & 1;
        if odd == 0 && digit & 1 != 0 && ends != 0 {
            return true;
        }
    }
    scalar::accepts(scalar::run(scalar::START, text).0)
}

impl Shape {
    /// Takes the values of a line with this shape's tokens; `false` when its keys are not this shape's.
    #[inline(always)]
    fn take<V: Vector, const FULL: bool>(
        &self,
        vector: V,
        text: &[u8],
        start: usize,
        outline: &Skeleton,
        found: &mut RowElements,
    ) -> bool {
        let mut differing = 0;
        for fixed in &self.fixed {
            let offset = start + outline.place(fixed.token) + 1;
            let Some(there) = text[offset..].first_chunk::<HALF>() else { return false };
            differing |= vector.differing(there, &fixed.text) & fixed.mask;
        }
        if differing != 0 {
            return false;
        }
        if FULL {
            // A loop and no `all`: a closure that is not inlined is not compiled for the kernel's processor.
            for token in &self.scalars {
                if !is_scalar(vector, &text[start + outline.place(*token)..]) {
                    return false;
                }
            }
        }
        // A string ends right before the next token, or else white space stands there: rare, and for the walk.
        let mut spaced = false;
        let mut value = |token: u16| {
            let range = start + outline.place(token) + 1..start + outline.place(token + 1) - 1;
            spaced |= text[range.end] != b'"';
            range
        };
        let mut one = |token: Option<u16>| token.map_or(0..0, &mut value);
        (found.id, found.last_updated, found.version_id) = (one(self.id), one(self.last_updated), one(self.version_id));
        found.references.clear();
        let mut longest = 0;
        for (node, token) in &self.references {
            let range = value(*token);
            longest = longest.max(range.len());
            found.references.push((*node, range));
        }
        (found.is_known, found.resource_type) = (true, self.resource_type);
        !spaced && longest <= REFERENCE_BYTES_MAX
    }

    /// The shape of a line that the walk has found right; `None` for one that is out of the ordinary.
    fn of(
        text: &[u8],
        start: usize,
        outline: &Skeleton,
        names: &ElementPaths,
        resource_type: ResourceType,
    ) -> Option<Shape> {
        let ElementPaths { trie, roles } = names;
        let bytes = outline.bytes();
        let place = |token: usize| start + outline.place(token as u16);
        let mut shape = Shape {
            bytes: bytes.into(),
            resource_type,
            fixed: Vec::new(),
            id: None,
            last_updated: None,
            version_id: None,
            references: Vec::new(),
            scalars: (0..).zip(bytes).filter(|(_, byte)| **byte == SCALAR).map(|(token, _)| token).collect(),
        };
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
                    let (token, colon) = (i as u16, place(i + 1));
                    let name = text.get(place(i) + 1..colon - 1)?;
                    if text[colon - 1] != b'"' || name.contains(&b'\\') {
                        return None;
                    }
                    shape.fixed.push(FixedText::new(text, token, place(i) + 1..colon + 1)?);
                    pending = trie.child(parent, name).filter(|node| trie.paths(*node) & wanted != 0);
                    let Some(node) = pending else { continue };
                    match bytes.get(i + 2)? {
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
                            shape.fixed.push(FixedText::new(text, token, place(i + 2) + 1..place(i + 3))?);
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
        /// What is told at sight is what the automaton tells.
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
        // What is compared reads a little beyond a key, which the end of a text cuts off.
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
