//! Reads many lines in one pass over their bytes, a block of 64 at a time, and leaves every line out of the ordinary
//! to the scanner, which reads one line at a time.
//!
//! ```text
//! for each block: classes (kernel) -> strings -> positions of brackets, colons, commas, values (one word each)
//!     for each bracket        the kinds of open containers, a bit each; a container without followed paths
//!                             costs this loop and nothing else
//!     for each colon, but only in containers on a followed path: the key before it, the value behind it
//!     for the block as a whole: does each token follow one that it may follow?
//! ```
//!
//! The last step makes the full grammar cheap. The tokens directly behind those of class X are one addition: shift X
//! up by one, and add the positions without tokens; the carry runs from behind X to the next token and stops there.
//! Five such additions check 64 bytes, without a look at a single token.
//!
//! Before all that a line is compared with the shapes of earlier lines (`shape_cache`); most lines have a known shape,
//! and no token of theirs is visited by itself. A line without one is walked as above.
//!
//! A line is passed to the caller only when all of it was right. A line that is faulty, or that this pass does not
//! judge (white space before it, an escape in a deciding key, a duplicate key, nesting deeper than a word), is left to
//! [`Extractor::extract`](crate::extract::extractor::Extractor::extract), which names the fault or the facts. So the
//! pass is never more lenient than the scanner, and a test compares the two.

pub(crate) mod grammar;
pub(crate) mod row;
pub(crate) mod shape_cache;
pub(crate) mod skeleton;
pub(crate) mod tokens;

use crate::extract::block::grammar::{Followers, check_order};
use crate::extract::block::row::{OutOfOrdinary, PendingLine, Row, RowElements};
use crate::extract::block::shape_cache::{ShapeCache, ShapeFit};
use crate::extract::block::tokens::{TokenCarry, TokenMasks, tokens};
use crate::extract::facts::LastUpdated;
use crate::extract::paths::{ALWAYS, ElementPaths, ElementRole};
use crate::extract::trie::{Node, ROOT, Trie, head_of};
use crate::fhir::compartment::{self, CompartmentPaths};
use crate::fhir::id::IdRule;
use crate::fhir::resource_type::ResourceType;
use crate::limits::REFERENCE_BYTES_MAX;
use crate::simd::{BLOCK, KernelJob, Vector};
use std::ops::Range;

/// Most open containers on a followed path; a line with more goes to the scanner.
const FRAMES: usize = 24;
/// Blocks whose classes are computed before their tokens are walked.
const BATCH: usize = 16;
/// Most open containers where the grammar is checked; a line with more goes to the scanner.
const DEPTH_MAX: u32 = 63;

/// One pass over a text; see [`Extractor::extract_lines`](crate::extract::extractor::Extractor::extract_lines).
pub(crate) struct Pass<'a, R> {
    /// The lines; it ends with a newline.
    pub text: &'a [u8],
    /// Start of the first line to read.
    pub from: usize,
    /// Whether the whole grammar is checked.
    pub full: bool,
    /// Which ids are legal.
    pub ids: IdRule,
    /// Which paths make owners.
    pub compartment_paths: CompartmentPaths,
    /// The followed paths.
    pub names: &'a ElementPaths,
    /// Shapes of earlier lines, learned in the same mode.
    pub shapes: &'a mut ShapeCache,
    /// Called with each line that is right; `false` stops the pass behind the line.
    pub row: R,
}

impl<R: FnMut(Range<usize>, &Row<'_>) -> bool> KernelJob for Pass<'_, R> {
    /// Start of the line at which the pass stopped, or the end of the text.
    type Output = usize;

    /// Reads many lines in one pass over blocks, with the operations of one kernel.
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> usize {
        // `FULL` is a constant, so that each mode is compiled separately.
        if self.full { self.read_lines::<V, true>(vector) } else { self.read_lines::<V, false>(vector) }
    }
}

impl<R: FnMut(Range<usize>, &Row<'_>) -> bool> Pass<'_, R> {
    /// Reads lines by their shapes where these are known, and walks the others.
    #[inline(always)]
    fn read_lines<V: Vector, const FULL: bool>(self, vector: V) -> usize {
        let Pass { text, from, names, shapes, mut row, ids, compartment_paths, .. } = self;
        let mut walk = TokenWalk {
            text,
            trie: &names.trie,
            roles: &names.roles,
            elements: RowElements::new(),
            wanted: 0,
            start: from,
            ids,
            compartment_paths,
            depth: 0,
            stack: 0,
            skip: 0,
            curly: 0,
            frames: [ContainerFrame::default(); FRAMES],
            open_frames: 0,
            pending: None,
            last_quote: 0,
            escapes: false,
        };
        while walk.start < text.len() {
            let start = walk.start;
            let mut learn = false;
            if shapes.untried_lines == 0 {
                match shapes.fit::<V, FULL>(vector, text, start, &mut walk.elements) {
                    ShapeFit::Unknown { learn: again } => learn = again,
                    ShapeFit::Found => {
                        let skeleton = shapes.last_skeleton();
                        let line =
                            PendingLine { start, end: skeleton.end, high: skeleton.high, escapes: skeleton.escapes };
                        let Ok((range, last_updated)) = walk.elements.judge_row(text, line, ids) else { return start };
                        walk.start = skeleton.end + 1;
                        let facts = Row {
                            elements: &walk.elements,
                            text,
                            trie: walk.trie,
                            last_updated,
                            escapes: skeleton.escapes,
                            mentions: Some(&skeleton.mentions),
                            compartment_paths,
                        };
                        if !row(range, &facts) {
                            return walk.start;
                        }
                        continue;
                    }
                }
            }
            // Walk one line without a shape, or all lines that the cache leaves untried.
            let mut continues = false;
            walk.run::<V, _, FULL>(vector, |range, facts| {
                if learn {
                    shapes.learn::<V, FULL>(vector, text, start, names, facts.elements);
                }
                shapes.untried_lines = shapes.untried_lines.saturating_sub(1);
                continues = row(range, facts);
                continues && shapes.untried_lines > 0
            });
            if !continues || shapes.untried_lines > 0 {
                break;
            }
        }
        walk.start
    }
}

/// An open container on a followed path.
#[derive(Clone, Copy, Default)]
struct ContainerFrame {
    node: Node,
    is_array: bool,
    /// Children met so far, a bit for each by its ordinal.
    children_met: u64,
}

/// The walk over the tokens of a line that has no known shape.
struct TokenWalk<'a> {
    text: &'a [u8],
    trie: &'a Trie,
    roles: &'a [ElementRole],
    /// The row's elements found so far.
    elements: RowElements,
    /// Paths of the type, one bit each; all paths until the type is known.
    wanted: u64,
    /// Start of the line.
    start: usize,
    /// Which ids are legal.
    ids: IdRule,
    /// Which paths make owners.
    compartment_paths: CompartmentPaths,
    /// Number of open containers.
    depth: u32,
    /// Kinds of the open containers, the innermost lowest, 1 for an object. Those in skipped containers are kept only
    /// where the grammar is checked.
    stack: u64,
    /// Depth in the outermost container without followed paths; 0 outside of one.
    skip: u32,
    /// Open objects in the skipped container, where the grammar is not checked.
    curly: i32,
    /// The open containers on a followed path; the first `open_frames` are in use.
    frames: [ContainerFrame; FRAMES],
    open_frames: usize,
    /// The followed key whose value, a container, begins at this offset.
    pending: Option<(Node, usize)>,
    /// Offset of the last opening quote before the current block.
    last_quote: usize,
    /// Whether a backslash occurs in the line or in the rest of its last block.
    escapes: bool,
}

impl<'a> TokenWalk<'a> {
    /// Walks lines until `row` returns `false` or a line is out of the ordinary; the start of the next line.
    #[inline(always)]
    fn run<V: Vector, R: FnMut(Range<usize>, &Row<'_>) -> bool, const FULL: bool>(
        &mut self,
        vector: V,
        mut row: R,
    ) -> usize {
        let text = self.text;
        // 1. Begin the first line.
        if !self.begin_line() {
            return self.start;
        }
        let mut batch = [TokenMasks::default(); BATCH];
        let mut carry = TokenCarry::default();
        let mut follows = Followers::default();
        let mut high = 0;
        let mut base = self.start;
        while base < text.len() {
            // 2. The classes of a few blocks, without an unpredictable branch, before their tokens: a branch on tokens
            // that is mispredicted would otherwise wait for the latency from the bytes to the masks.
            let mut blocks = 0;
            let mut newline = 0;
            while blocks < BATCH && newline == 0 && base < text.len() {
                batch[blocks] = match text[base..].first_chunk::<BLOCK>() {
                    Some(block) => tokens::<V, FULL>(vector, text, base, &vector.classes(block), &mut carry),
                    None => {
                        let mut block = [b' '; BLOCK];
                        block[..text.len() - base].copy_from_slice(&text[base..]);
                        tokens::<V, FULL>(vector, text, base, &vector.classes(&block), &mut carry)
                    }
                };
                newline = batch[blocks].newline;
                base += BLOCK;
                blocks += 1;
            }
            for tokens in &batch[..blocks] {
                // 3. Walk the block up to the first newline, or all of it. Bytes behind the newline are read again with
                // the next line, whose blocks begin at its start: lines of one shape then take the same branches.
                let part = tokens.newline ^ tokens.newline.wrapping_sub(1);
                self.escapes |= tokens.backslash;
                high |= tokens.high & part;
                if tokens.illegal & part != 0 || self.take_block::<FULL>(tokens, part, &mut follows).is_err() {
                    return self.start;
                }
                if tokens.opening != 0 {
                    self.last_quote = tokens.base + 63 - tokens.opening.leading_zeros() as usize;
                }
            }
            if newline == 0 {
                continue;
            }
            // 4. End the line, pass it on, and begin the next one at the byte behind its newline.
            let end = base - BLOCK + newline.trailing_zeros() as usize;
            let Ok((range, last_updated)) = self.end_line(end, high != 0) else { return self.start };
            self.start = end + 1;
            let facts = Row {
                elements: &self.elements,
                text,
                trie: self.trie,
                last_updated,
                escapes: self.escapes,
                mentions: None,
                compartment_paths: self.compartment_paths,
            };
            if !row(range, &facts) || !self.begin_line() {
                return self.start;
            }
            carry = TokenCarry::default();
            follows = Followers::default();
            high = 0;
            base = self.start;
        }
        self.start
    }

    /// Resets the walk for the line at `start`; `false` when the line does not begin with `{`.
    #[inline(always)]
    fn begin_line(&mut self) -> bool {
        self.depth = 0;
        self.stack = 0;
        self.skip = 0;
        self.open_frames = 0;
        self.pending = None;
        self.escapes = false;
        self.wanted = u64::MAX;
        self.elements.is_known = false;
        (self.elements.id, self.elements.last_updated, self.elements.version_id) = (0..0, 0..0, 0..0);
        self.elements.references.clear();
        self.elements.identifier_paths = 0;
        self.text.get(self.start) == Some(&b'{')
    }

    /// Judges the line whose newline is at `end`: its range without its line end, and its lastUpdated.
    #[inline(always)]
    fn end_line(&mut self, end: usize, high: bool) -> Result<(Range<usize>, LastUpdated<'a>), OutOfOrdinary> {
        if self.depth != 0 {
            return Err(OutOfOrdinary);
        }
        let line = PendingLine { start: self.start, end, high, escapes: self.escapes };
        self.elements.judge_row(self.text, line, self.ids)
    }

    /// Takes the tokens of a block that `part` selects, those of the current line: walks brackets and followed keys,
    /// then checks the order of all tokens.
    #[inline(always)]
    fn take_block<const FULL: bool>(
        &mut self,
        tokens: &TokenMasks,
        part: u64,
        follows: &mut Followers,
    ) -> Result<(), OutOfOrdinary> {
        if FULL {
            if self.depth + (tokens.open & part).count_ones() > DEPTH_MAX {
                return Err(OutOfOrdinary);
            }
        } else if self.skip != 0 {
            let closes = (tokens.close & part).count_ones();
            if closes <= self.depth - self.skip {
                // The skipped container cannot end in this block: its brackets are only counted.
                let curly = |brackets: u64| (brackets & tokens.curly & part).count_ones() as i32;
                self.depth = self.depth + (tokens.open & part).count_ones() - closes;
                self.curly += curly(tokens.open) - curly(tokens.close);
                return Ok(());
            }
        }
        let mut object = 0u64.wrapping_sub(self.stack & 1);
        // Positions in skipped containers, where the grammar is not checked.
        let mut inside = if !FULL && self.skip != 0 { u64::MAX } else { 0 };
        let mut brackets = (tokens.open | tokens.close) & part;
        let mut colons = tokens.colon & part;
        loop {
            if self.skip != 0 {
                let stack_before = self.stack;
                let position = self.skip_value::<FULL>(tokens, &mut brackets, &mut object)?;
                if self.skip != 0 {
                    break;
                }
                colons &= u64::MAX << position;
                if !FULL {
                    inside ^= u64::MAX << position;
                    object ^= 0u64.wrapping_sub((self.stack ^ stack_before) & 1) << position;
                }
            }
            let next = brackets | colons;
            if next == 0 {
                break;
            }
            let offset = next.trailing_zeros();
            let bit = next & next.wrapping_neg();
            if colons & bit != 0 {
                colons ^= bit;
                self.take_key(tokens, offset)?;
                continue;
            }
            brackets ^= bit;
            let stack_before = self.stack;
            self.take_bracket(tokens, offset)?;
            object ^= 0u64.wrapping_sub((self.stack ^ stack_before) & 1) << offset;
            if !FULL && self.skip != 0 {
                inside ^= u64::MAX << offset << 1;
            }
        }
        check_order::<FULL>(tokens, part & !inside, object, self.start, follows)
    }

    /// Takes brackets in a skipped container until it ends or none remains; position in the block of the last one
    /// taken.
    #[inline(always)]
    fn skip_value<const FULL: bool>(
        &mut self,
        tokens: &TokenMasks,
        remaining: &mut u64,
        object: &mut u64,
    ) -> Result<u32, OutOfOrdinary> {
        let (mut stack, mut depth, mut curly, mut rest, mut illegal) =
            (self.stack, self.depth, self.curly, *remaining, 0);
        let mut offset = 0;
        while rest != 0 {
            offset = rest.trailing_zeros();
            rest &= rest - 1;
            let opens = tokens.open >> offset & 1;
            let is_object = tokens.curly >> offset & 1;
            depth = depth.wrapping_add(2 * opens as u32).wrapping_sub(1);
            if FULL {
                let stack_before = stack;
                illegal |= (opens ^ 1) & (stack ^ is_object);
                stack = if opens != 0 { stack << 1 | is_object } else { stack >> 1 };
                *object ^= 0u64.wrapping_sub((stack ^ stack_before) & 1) << offset;
            } else {
                curly += if opens != 0 { is_object as i32 } else { -(is_object as i32) };
            }
            if depth < self.skip {
                self.skip = 0;
                if !FULL {
                    illegal |= u64::from(curly != 0);
                    stack >>= 1;
                }
                break;
            }
        }
        (self.stack, self.depth, self.curly, *remaining) = (stack, depth, curly, rest);
        if illegal & 1 == 0 { Ok(offset) } else { Err(OutOfOrdinary) }
    }

    /// Takes a bracket whose surrounding container, if any, is on a followed path.
    #[inline(always)]
    fn take_bracket(&mut self, tokens: &TokenMasks, offset: u32) -> Result<(), OutOfOrdinary> {
        let is_object = tokens.curly >> offset & 1;
        let position = tokens.base + offset as usize;
        if tokens.open >> offset & 1 != 0 {
            let node = match self.open_frames.checked_sub(1).map(|last| self.frames[last]) {
                None if position == self.start && is_object != 0 => Some(ROOT),
                None => return Err(OutOfOrdinary),
                Some(frame) if frame.is_array => Some(frame.node),
                Some(_) => self.pending.filter(|(_, begins)| *begins == position).map(|(node, _)| node),
            };
            self.pending = None;
            self.depth += 1;
            self.stack = self.stack << 1 | is_object;
            match node.filter(|node| *node == ROOT || !self.trie.is_leaf(*node)) {
                Some(node) => {
                    let frame = self.frames.get_mut(self.open_frames).ok_or(OutOfOrdinary)?;
                    *frame = ContainerFrame { node, is_array: is_object == 0, children_met: 0 };
                    self.open_frames += 1;
                }
                None if node.is_some() => return Err(OutOfOrdinary),
                None => {
                    self.skip = self.depth;
                    self.curly = is_object as i32;
                }
            }
            return Ok(());
        }
        if self.open_frames == 0 || self.stack & 1 != is_object {
            return Err(OutOfOrdinary);
        }
        self.open_frames -= 1;
        self.pending = None;
        self.depth -= 1;
        self.stack >>= 1;
        Ok(())
    }

    /// Takes the key before a colon, in a container on a followed path, and its value if the key is followed.
    #[inline(always)]
    fn take_key(&mut self, tokens: &TokenMasks, offset: u32) -> Result<(), OutOfOrdinary> {
        let text = self.text;
        let colon = tokens.base + offset as usize;
        let before = tokens.opening & ((1 << offset) - 1);
        let quote = match before {
            0 => self.last_quote,
            _ => tokens.base + 63 - before.leading_zeros() as usize,
        };
        let mut end = colon - 1;
        while end > quote && text[end] != b'"' {
            end -= 1;
        }
        let Some(name) = text.get(quote + 1..end) else { return Err(OutOfOrdinary) };
        if self.escapes && memchr::memchr(b'\\', name).is_some() {
            return Err(OutOfOrdinary);
        }
        let Some(frame) = self.frames.get_mut(self.open_frames.wrapping_sub(1)) else { return Err(OutOfOrdinary) };
        let head = match text[quote + 1..].first_chunk::<8>() {
            Some(eight) => u64::from_le_bytes(*eight) & (u64::MAX >> (64 - 8 * name.len().clamp(1, 8))),
            None => head_of(name),
        };
        let Some(node) = self.trie.child_with(frame.node, head, name) else { return Ok(()) };
        if self.trie.paths(node) & self.wanted == 0 {
            return Ok(());
        }
        let bit = 1 << self.trie.ordinal(node);
        if frame.children_met & bit != 0 {
            return Err(OutOfOrdinary);
        }
        frame.children_met |= bit;
        self.take_value(tokens, node, colon + 1)
    }

    /// Takes the value of a followed key; `i` is the offset behind its colon.
    #[inline(always)]
    fn take_value(&mut self, tokens: &TokenMasks, node: Node, mut i: usize) -> Result<(), OutOfOrdinary> {
        let text = self.text;
        while text.get(i).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            i += 1;
        }
        if matches!(text.get(i), Some(b'{' | b'[')) {
            if self.roles[node as usize] == ElementRole::Identifier {
                // What is in it is not followed.
                self.elements.identifier_paths |= self.trie.paths(node);
                return Ok(());
            }
            self.pending = Some((node, i));
            return Ok(());
        }
        if !self.trie.is_leaf(node) {
            return Ok(());
        }
        if self.roles[node as usize] == ElementRole::Identifier {
            return Ok(());
        }
        if text.get(i) != Some(&b'"') {
            return Err(OutOfOrdinary);
        }
        // A string that ends in this block has its end in `closing`. Escapes are searched for at the end of the line.
        let behind = match (i + 1).checked_sub(tokens.base) {
            Some(bit) if bit < BLOCK => tokens.closing & (u64::MAX << bit),
            _ => 0,
        };
        let end = match behind {
            0 => i + 1 + memchr::memchr(b'"', &text[i + 1..]).ok_or(OutOfOrdinary)?,
            _ => tokens.base + behind.trailing_zeros() as usize,
        };
        let range = i + 1..end;
        let first = |known: &mut Range<usize>| match known.start {
            0 => {
                *known = range.clone();
                Ok(())
            }
            // A second value, in another element of an array of metas.
            _ => Err(OutOfOrdinary),
        };
        match self.roles[node as usize] {
            ElementRole::ResourceType => self.resource_type(range)?,
            ElementRole::Id => first(&mut self.elements.id)?,
            ElementRole::LastUpdated => first(&mut self.elements.last_updated)?,
            ElementRole::VersionId => first(&mut self.elements.version_id)?,
            ElementRole::Reference if range.len() <= REFERENCE_BYTES_MAX => {
                self.elements.references.push((node, range))
            }
            ElementRole::Reference => return Err(OutOfOrdinary),
            // Elements of Bundles, which go to the scanner as soon as the type is known.
            ElementRole::BundleType
            | ElementRole::Entry
            | ElementRole::Method
            | ElementRole::Url
            | ElementRole::Resource
            | ElementRole::Identifier
            | ElementRole::None => {}
        }
        Ok(())
    }

    /// Records the resourceType at this range and narrows the wanted paths; Bundles and Groups go to the scanner.
    #[inline(always)]
    fn resource_type(&mut self, range: Range<usize>) -> Result<(), OutOfOrdinary> {
        let name = &self.text[range];
        if name != self.elements.resource_type.name().as_bytes() {
            let known = str::from_utf8(name).ok().and_then(ResourceType::parse).ok_or(OutOfOrdinary)?;
            self.elements.resource_type = known;
        }
        let known = self.elements.resource_type;
        if known == ResourceType::BUNDLE || known == ResourceType::GROUP {
            return Err(OutOfOrdinary);
        }
        self.elements.is_known = true;
        self.wanted = compartment::paths_of(known) | ALWAYS;
        Ok(())
    }
}
