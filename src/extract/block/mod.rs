//! Reads many lines in one pass over their bytes, a block of 64 at a time, and leaves what is out of the ordinary to
//! the scanner that reads a line by itself.
//!
//! ```text
//! for each block: classes (kernel) -> strings -> where brackets, colons, commas, values stand (one word each)
//!     for each bracket        the kinds of open containers, a bit each; a container that nothing is wanted from
//!                             costs this loop and nothing else
//!     for each colon, but only in containers on a followed path: the key before it, the value behind it
//!     for the block as a whole: does each token stand behind one that it may follow?
//! ```
//!
//! The last step is what makes the full grammar cheap. Which tokens stand directly behind a token of class X is one
//! addition: shift X up by one, and add the positions without tokens; the carry runs from behind X to the next token
//! and stops there. Five such additions check 64 bytes, with no look at a single token.
//!
//! Before all that a line is held against the shapes of lines met before (`shape`); most lines have one, and of those
//! no token is looked at twice. What has none is walked as above.
//!
//! A line is told to the caller only when all of it was right. A line that is faulty, or that this pass does not care
//! to judge (white space before it, an escape in a key that matters, a key given twice, nesting beyond a word), is left
//! to [`Extractor::extract`](crate::extract::extractor::Extractor::extract), which says what it is. So the pass is never more lenient than that, and a test
//! holds the two against each other.

pub(crate) mod grammar;
pub(crate) mod row;
pub(crate) mod shape_cache;
pub(crate) mod skeleton;
pub(crate) mod tokens;

use crate::extract::block::grammar::{Followers, has_legal_order};
use crate::extract::block::row::{OutOfOrdinary, PendingLine, Row, RowElements};
use crate::extract::block::shape_cache::{ShapeCache, ShapeFit};
use crate::extract::block::tokens::{TokenCarry, TokenMasks, tokens};
use crate::extract::facts::LastUpdated;
use crate::extract::paths::{ALWAYS, ElementPaths, ElementRole};
use crate::extract::trie::{Node, ROOT, Trie, head_of};
use crate::fhir::compartment;
use crate::fhir::resource_type::ResourceType;
use crate::limits::REFERENCE_BYTES_MAX;
use crate::simd::{BLOCK, KernelJob, Vector};
use std::ops::Range;

/// Most containers on a followed path that are open at once; a line with more goes to the scanner.
const FRAMES: usize = 24;
/// Blocks whose classes are found before their tokens are looked at.
const BATCH: usize = 16;
/// Most containers that are open at once where the grammar is checked.
const DEPTH_MAX: u32 = 63;

/// One pass; see [`Extractor::lines`](crate::extract::extractor::Extractor::lines).
pub(crate) struct Pass<'a, R> {
    pub text: &'a [u8],
    pub from: usize,
    pub full: bool,
    pub names: &'a ElementPaths,
    /// What is known of lines met before, by this mode.
    pub shapes: &'a mut ShapeCache,
    /// Is given each line that is right; `false` stops the pass behind it.
    pub row: R,
}

impl<R: FnMut(Range<usize>, &Row<'_>) -> bool> KernelJob for Pass<'_, R> {
    /// Start of the line at which the pass stopped, or the end of the text.
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> usize {
        // Each mode is compiled by itself.
        if self.full { self.lines::<V, true>(vector) } else { self.lines::<V, false>(vector) }
    }
}

impl<R: FnMut(Range<usize>, &Row<'_>) -> bool> Pass<'_, R> {
    #[inline(always)]
    fn lines<V: Vector, const FULL: bool>(self, vector: V) -> usize {
        let Pass { text, from, names, shapes, mut row, .. } = self;
        let mut walk = TokenWalk {
            text,
            trie: &names.trie,
            roles: &names.roles,
            found: RowElements::new(),
            wanted: 0,
            start: from,
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
            if shapes.rest == 0 {
                match shapes.fit::<V, FULL>(vector, text, start, &mut walk.found) {
                    ShapeFit::Unknown { learn: again } => learn = again,
                    ShapeFit::Found => {
                        let outline = shapes.draw_skeleton();
                        let line =
                            PendingLine { start, end: outline.end, high: outline.high, escapes: outline.escapes };
                        let Ok((range, last_updated)) = walk.found.judge_row(text, line) else { return start };
                        walk.start = outline.end + 1;
                        let facts = Row { found: &walk.found, text, trie: walk.trie, last_updated };
                        if !row(range, &facts) {
                            return walk.start;
                        }
                        continue;
                    }
                }
            }
            // One line without a shape, or as many as are not to be tried.
            let mut goes_on = false;
            walk.run::<V, _, FULL>(vector, |range, facts| {
                if learn {
                    shapes.learn::<V, FULL>(vector, text, start, names, facts.found);
                }
                shapes.rest = shapes.rest.saturating_sub(1);
                goes_on = row(range, facts);
                goes_on && shapes.rest > 0
            });
            if !goes_on || shapes.rest > 0 {
                break;
            }
        }
        walk.start
    }
}

/// A container on a followed path.
#[derive(Clone, Copy, Default)]
struct ContainerFrame {
    node: Node,
    is_array: bool,
    /// Children met so far, by ordinal.
    seen: u64,
}

struct TokenWalk<'a> {
    text: &'a [u8],
    trie: &'a Trie,
    roles: &'a [ElementRole],
    found: RowElements,
    /// Paths of the type, all of them until it is known.
    wanted: u64,
    /// Start of the line.
    start: usize,
    /// Open containers.
    depth: u32,
    /// Their kinds, the innermost lowest, 1 for an object. Inside skipped containers only where the grammar is checked.
    stack: u64,
    /// Depth inside the outermost container that nothing is wanted from, 0 outside of one.
    skip: u32,
    /// Objects open inside of it, where the grammar is not checked.
    curly: i32,
    frames: [ContainerFrame; FRAMES],
    open_frames: usize,
    /// Node whose value begins at this offset.
    pending: Option<(Node, usize)>,
    /// Offset of the last opening quote in the blocks before.
    last_quote: usize,
    /// Whether a backslash stands in the line, or at least near it.
    escapes: bool,
}

impl<'a> TokenWalk<'a> {
    #[inline(always)]
    fn run<V: Vector, R: FnMut(Range<usize>, &Row<'_>) -> bool, const FULL: bool>(
        &mut self,
        vector: V,
        mut row: R,
    ) -> usize {
        let text = self.text;
        if !self.begin_line() {
            return self.start;
        }
        let mut batch = [TokenMasks::default(); BATCH];
        let mut carry = TokenCarry::default();
        let mut follows = Followers::default();
        let mut high = 0;
        let mut base = self.start;
        while base < text.len() {
            // First the classes of a few blocks, which takes no branch that could be guessed wrong, then their tokens: a
            // wrong guess there would otherwise wait for the whole way from the bytes to the masks.
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
                // Up to the first newline, or all of it. What stands behind is read again with the next line, whose
                // blocks begin where it begins: lines that look alike then take the same branches.
                let part = tokens.newline ^ tokens.newline.wrapping_sub(1);
                self.escapes |= tokens.backslash;
                high |= tokens.high & part;
                if tokens.wrong & part != 0 || self.copy_part::<FULL>(tokens, part, &mut follows).is_err() {
                    return self.start;
                }
                if tokens.opening != 0 {
                    self.last_quote = tokens.base + 63 - tokens.opening.leading_zeros() as usize;
                }
            }
            if newline == 0 {
                continue;
            }
            let end = base - BLOCK + newline.trailing_zeros() as usize;
            let Ok((range, last_updated)) = self.end_line(end, high != 0) else { return self.start };
            self.start = end + 1;
            let facts = Row { found: &self.found, text, trie: self.trie, last_updated };
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

    /// Begins a line; whether it is one for this pass.
    #[inline(always)]
    fn begin_line(&mut self) -> bool {
        self.depth = 0;
        self.stack = 0;
        self.skip = 0;
        self.open_frames = 0;
        self.pending = None;
        self.escapes = false;
        self.wanted = u64::MAX;
        self.found.is_known = false;
        (self.found.id, self.found.last_updated, self.found.version_id) = (0..0, 0..0, 0..0);
        self.found.references.clear();
        self.text.get(self.start) == Some(&b'{')
    }

    /// The line ends before the newline at `end`; its range without its end, and its lastUpdated.
    #[inline(always)]
    fn end_line(&mut self, end: usize, high: bool) -> Result<(Range<usize>, LastUpdated<'a>), OutOfOrdinary> {
        if self.depth != 0 {
            return Err(OutOfOrdinary);
        }
        self.found.judge_row(self.text, PendingLine { start: self.start, end, high, escapes: self.escapes })
    }

    /// The part of a block that belongs to one line.
    #[inline(always)]
    fn copy_part<const FULL: bool>(
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
                // What is skipped cannot end here: the brackets are only counted.
                let curly = |brackets: u64| (brackets & tokens.curly & part).count_ones() as i32;
                self.depth = self.depth + (tokens.open & part).count_ones() - closes;
                self.curly += curly(tokens.open) - curly(tokens.close);
                return Ok(());
            }
        }
        let mut object = 0u64.wrapping_sub(self.stack & 1);
        // Where the grammar is not checked: the inside of what is skipped.
        let mut inside = if !FULL && self.skip != 0 { u64::MAX } else { 0 };
        let mut brackets = (tokens.open | tokens.close) & part;
        let mut colons = tokens.colon & part;
        loop {
            if self.skip != 0 {
                let was = self.stack;
                let position = self.skip_value::<FULL>(tokens, &mut brackets, &mut object)?;
                if self.skip != 0 {
                    break;
                }
                colons &= u64::MAX << position;
                if !FULL {
                    inside ^= u64::MAX << position;
                    object ^= 0u64.wrapping_sub((self.stack ^ was) & 1) << position;
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
            let was = self.stack;
            self.take_bracket(tokens, offset)?;
            object ^= 0u64.wrapping_sub((self.stack ^ was) & 1) << offset;
            if !FULL && self.skip != 0 {
                inside ^= u64::MAX << offset << 1;
            }
        }
        has_legal_order::<FULL>(tokens, part & !inside, object, self.start, follows)
    }

    /// Takes brackets inside a skipped container until it ends or none is left; the place of the last one taken.
    #[inline(always)]
    fn skip_value<const FULL: bool>(
        &mut self,
        tokens: &TokenMasks,
        left: &mut u64,
        object: &mut u64,
    ) -> Result<u32, OutOfOrdinary> {
        let (mut stack, mut depth, mut curly, mut rest, mut wrong) = (self.stack, self.depth, self.curly, *left, 0);
        let mut offset = 0;
        while rest != 0 {
            offset = rest.trailing_zeros();
            rest &= rest - 1;
            let opens = tokens.open >> offset & 1;
            let is_object = tokens.curly >> offset & 1;
            depth = depth.wrapping_add(2 * opens as u32).wrapping_sub(1);
            if FULL {
                let was = stack;
                wrong |= (opens ^ 1) & (stack ^ is_object);
                stack = if opens != 0 { stack << 1 | is_object } else { stack >> 1 };
                *object ^= 0u64.wrapping_sub((stack ^ was) & 1) << offset;
            } else {
                curly += if opens != 0 { is_object as i32 } else { -(is_object as i32) };
            }
            if depth < self.skip {
                self.skip = 0;
                if !FULL {
                    wrong |= u64::from(curly != 0);
                    stack >>= 1;
                }
                break;
            }
        }
        (self.stack, self.depth, self.curly, *left) = (stack, depth, curly, rest);
        if wrong & 1 == 0 { Ok(offset) } else { Err(OutOfOrdinary) }
    }

    /// A bracket where the innermost container, if any, lies on a followed path.
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
                    *frame = ContainerFrame { node, is_array: is_object == 0, seen: 0 };
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

    /// The key before a colon, in the innermost container, which lies on a followed path.
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
        if frame.seen & bit != 0 {
            return Err(OutOfOrdinary);
        }
        frame.seen |= bit;
        self.take_value(tokens, node, colon + 1)
    }

    /// The value of a followed key, behind its colon.
    #[inline(always)]
    fn take_value(&mut self, tokens: &TokenMasks, node: Node, mut i: usize) -> Result<(), OutOfOrdinary> {
        let text = self.text;
        while text.get(i).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            i += 1;
        }
        if matches!(text.get(i), Some(b'{' | b'[')) {
            self.pending = Some((node, i));
            return Ok(());
        }
        if !self.trie.is_leaf(node) {
            return Ok(());
        }
        if text.get(i) != Some(&b'"') {
            return Err(OutOfOrdinary);
        }
        // Mostly the string ends in this block; then its end is known. Escapes are looked for at the line's end.
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
            // It was met already, in another element of an array.
            _ => Err(OutOfOrdinary),
        };
        match self.roles[node as usize] {
            ElementRole::ResourceType => self.resource_type(range)?,
            ElementRole::Id => first(&mut self.found.id)?,
            ElementRole::LastUpdated => first(&mut self.found.last_updated)?,
            ElementRole::VersionId => first(&mut self.found.version_id)?,
            ElementRole::Reference if range.len() <= REFERENCE_BYTES_MAX => self.found.references.push((node, range)),
            ElementRole::Reference => return Err(OutOfOrdinary),
            // Those of Bundles, which are left to the scanner once the type is known.
            ElementRole::BundleType
            | ElementRole::Entry
            | ElementRole::Method
            | ElementRole::Url
            | ElementRole::Resource
            | ElementRole::None => {}
        }
        Ok(())
    }

    #[inline(always)]
    fn resource_type(&mut self, range: Range<usize>) -> Result<(), OutOfOrdinary> {
        let name = &self.text[range];
        if name != self.found.resource_type.name().as_bytes() {
            let known = str::from_utf8(name).ok().and_then(ResourceType::parse).ok_or(OutOfOrdinary)?;
            self.found.resource_type = known;
        }
        let known = self.found.resource_type;
        if known == ResourceType::BUNDLE || known == ResourceType::GROUP {
            return Err(OutOfOrdinary);
        }
        self.found.is_known = true;
        self.wanted = compartment::paths_of(known) | ALWAYS;
        Ok(())
    }
}
