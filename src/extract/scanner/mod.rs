//! Walks the token starts of a JSON text: checks the grammar, and reports values on the paths of a trie to a visitor.
//!
//! A text comes in pieces of any length; state that crosses a piece is held in the scanner, so that a line of
//! gigabytes needs no buffer. There is no recursion and no bound on nesting: open containers are bits of a stack.
//!
//! ```text
//! for each block of 64 bytes: classify (kernel), then for each token start:
//!     punctuation   one step of the grammar's automaton; open and close move the stack
//!     quote         a key if the automaton expects one, else a value; its end is not searched for,
//!                   because the kernel marks no tokens inside strings
//!     anything else a number or literal
//! ```
//! Keys are compared only in objects on a followed path: comparing all of them would dominate the scan.

pub(crate) mod strings;
pub(crate) mod surrogates;
pub(crate) mod visitor;

use crate::extract::fault::{Fault, FaultKind};
use crate::extract::rules::LoneSurrogates;
use crate::extract::scanner::surrogates::SurrogateSearch;
use crate::extract::scanner::visitor::Visitor;
use crate::extract::skip::{CLASS, ExpectedToken, SCALAR, Skip};
use crate::extract::stack::Stack;
use crate::extract::trie::{Node, ROOT, Trie};
use crate::extract::unescape::unescape;
use crate::extract::{Validate, scalar};
use crate::limits::REFERENCE_BYTES_MAX;
use crate::simd::{BATCH, BLOCK, ClassCarry, Kernel, Masks};

/// An open container on a followed path.
#[derive(Clone, Copy)]
struct ScannerFrame {
    /// Depth of the stack inside the container.
    depth: u32,
    node: Node,
    is_array: bool,
    /// Children met so far, a bit for each by its ordinal.
    children_met: u64,
}

/// A token that continues in the next piece.
enum Crossing {
    None,
    /// A key; its raw text so far is in `Scanner::text`.
    Key,
    /// A string at this leaf; its raw text so far is in `Scanner::text`.
    Value(Node),
    /// A number or literal, read to this state.
    Scalar(scalar::ScalarState),
}

/// The scan of one text, in buffers that are reused for the next.
pub(crate) struct Scanner {
    kernel: Kernel,
    validate: Validate,
    carry: ClassCarry,
    masks: Box<Masks>,
    stack: Stack,
    /// The tokens that the grammar allows next.
    expect: ExpectedToken,
    /// Open containers on followed paths, the innermost last.
    frames: Vec<ScannerFrame>,
    /// Depth inside the outermost container without followed paths; 0 outside of one.
    skip_depth: u32,
    /// Open containers from that one on, where the grammar is not checked and brackets are only counted.
    open: u64,
    /// Open objects among them.
    curly: i64,
    /// Node of the value that comes next; `None` when it is on no followed path.
    pending: Option<Node>,
    crossing: Crossing,
    /// Raw text of a string with escapes or over the end of a piece.
    text: Vec<u8>,
    /// Whether `text` was longer than any text that is compared, and dropped.
    too_long: bool,
    /// Hexadecimal digits of an escape that are due in the next block.
    hex_left: u32,
    lone_surrogates: LoneSurrogates,
    surrogates: SurrogateSearch,
    /// Start of a UTF-8 sequence that the end of the piece cut.
    partial: Vec<u8>,
    /// Offset of the current piece in the text, in bytes.
    position: u64,
    /// The first fault; later pieces are not scanned.
    fault: Option<Fault>,
    decoded: String,
}

impl Scanner {
    /// A scanner; [`Scanner::begin`] comes before the first piece.
    pub(crate) fn new(kernel: Kernel, validate: Validate, lone_surrogates: LoneSurrogates) -> Scanner {
        Scanner {
            kernel,
            validate,
            carry: ClassCarry::default(),
            masks: Box::default(),
            stack: Stack::default(),
            expect: ExpectedToken::Value,
            frames: Vec::new(),
            skip_depth: 0,
            open: 0,
            curly: 0,
            pending: None,
            crossing: Crossing::None,
            text: Vec::new(),
            too_long: false,
            hex_left: 0,
            lone_surrogates,
            surrogates: SurrogateSearch::default(),
            partial: Vec::new(),
            position: 0,
            fault: None,
            decoded: String::new(),
        }
    }

    /// The kernel that classifies the text.
    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// How much of the text is validated.
    pub(crate) fn validate(&self) -> Validate {
        self.validate
    }

    /// Resets the scanner for the next text.
    pub(crate) fn begin(&mut self) {
        self.carry = ClassCarry::default();
        self.stack.clear();
        self.expect = ExpectedToken::Value;
        self.frames.clear();
        self.skip_depth = 0;
        self.pending = Some(ROOT);
        self.crossing = Crossing::None;
        self.hex_left = 0;
        self.surrogates = SurrogateSearch::default();
        self.partial.clear();
        self.position = 0;
        self.fault = None;
    }

    /// Scans the next piece of the text.
    pub(crate) fn feed<V: Visitor>(&mut self, piece: &[u8], trie: &Trie, visitor: &mut V) {
        if self.fault.is_some() || piece.is_empty() {
            self.position += piece.len() as u64;
            return;
        }
        if self.position == 0 && piece.starts_with(b"\xef\xbb\xbf") {
            self.fault = Some(Fault { kind: FaultKind::Bom, at: 0 });
            return;
        }
        let mut masks = std::mem::take(&mut self.masks);
        let outcome = self.walk_piece(piece, &mut masks, trie, visitor);
        self.masks = masks;
        let outcome = outcome.and_then(|high| match high || !self.partial.is_empty() {
            true => self.check_utf8(piece),
            false => Ok(()),
        });
        if let Err((kind, offset)) = outcome {
            self.fault = Some(Fault { kind, at: self.position + offset as u64 });
        }
        self.position += piece.len() as u64;
    }

    /// The first fault found so far.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Ends the text.
    ///
    /// # Errors
    /// The first fault of the text, which may be that it is incomplete.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let offset = self.position;
        let fault = |kind| Err(Fault { kind, at: offset });
        if let Crossing::Scalar(state) = self.crossing
            && !scalar::accepts(state)
        {
            return fault(if self.stack.depth > 0 { FaultKind::Truncated } else { FaultKind::NotObject });
        }
        if !self.partial.is_empty() {
            return fault(FaultKind::Utf8);
        }
        match self.expect {
            ExpectedToken::Nothing if !self.carry.in_string() => match self.surrogates.first_lone() {
                Some(at) if self.lone_surrogates == LoneSurrogates::Fault => {
                    Err(Fault { kind: FaultKind::LoneSurrogate, at })
                }
                _ => Ok(()),
            },
            _ => fault(FaultKind::Truncated),
        }
    }

    /// Walks the tokens of a piece; whether any byte is above 0x7f. Errors here and below: a fault, its offset in it.
    fn walk_piece<V: Visitor>(
        &mut self,
        piece: &[u8],
        masks: &mut Masks,
        trie: &Trie,
        visitor: &mut V,
    ) -> Result<bool, (FaultKind, usize)> {
        let full = self.validate == Validate::Full;
        let mut high = false;
        self.resume_token(piece, trie, visitor, full)?;
        let mut base = 0;
        for batch in piece.chunks(BLOCK * BATCH) {
            let blocks = self.kernel.classify(batch, &mut self.carry, masks);
            high |= masks.high;
            if full && (masks.any_escaped || masks.any_control || self.hex_left > 0) {
                self.check_strings(piece, base, blocks, masks)?;
            }
            for block in 0..blocks {
                let mut starts = masks.starts[block];
                let offset = base + block * BLOCK;
                while starts != 0 {
                    if self.skip_depth != 0 {
                        starts = match full {
                            true => self.skip_tokens(piece, offset, starts)?,
                            false => self.count_brackets(piece, offset, starts)?,
                        };
                        if starts == 0 {
                            break;
                        }
                    }
                    let position = offset + starts.trailing_zeros() as usize;
                    starts &= starts - 1;
                    self.take_token(piece, position, trie, visitor, full)?;
                }
            }
            base += batch.len();
        }
        Ok(high)
    }

    /// Takes tokens of the block at `offset` inside a container without followed paths; the starts that remain.
    #[inline(always)]
    fn skip_tokens(&mut self, piece: &[u8], offset: usize, starts: u64) -> Result<u64, (FaultKind, usize)> {
        let mut walk = Skip { expect: self.expect as u8, top: self.stack.top(), depth: self.stack.depth };
        let mut remaining = starts;
        let skip_depth = self.skip_depth;
        while remaining != 0 && walk.has_room() {
            let position = offset + remaining.trailing_zeros() as usize;
            let class = CLASS[piece[position] as usize];
            if class == SCALAR {
                let (state, read) = scalar::run(scalar::START, &piece[position..]);
                if position + read == piece.len() || !scalar::accepts(state) {
                    break;
                }
            }
            remaining &= remaining - 1;
            walk.step(class);
            if walk.depth < skip_depth {
                self.skip_depth = 0;
                break;
            }
        }
        if walk.expect() == ExpectedToken::Wrong {
            // The caller walks the block again token by token, to locate and name the fault.
            self.skip_depth = 0;
            return Ok(starts);
        }
        self.expect = walk.expect();
        self.stack.set(walk.top, walk.depth);
        // A token that this walk leaves (a cut number, a deep stack) is taken by `take_token`; then skipping continues.
        Ok(remaining)
    }

    /// As [`Scanner::skip_tokens`] where the grammar is not checked: brackets are counted, all and those of objects,
    /// and both counts must be 0 where the container ends.
    #[inline(always)]
    fn count_brackets(&mut self, piece: &[u8], offset: usize, starts: u64) -> Result<u64, (FaultKind, usize)> {
        let mut remaining = starts;
        while remaining != 0 {
            let position = offset + remaining.trailing_zeros() as usize;
            remaining &= remaining - 1;
            match piece[position] {
                b'{' => (self.open, self.curly) = (self.open + 1, self.curly + 1),
                b'[' => self.open += 1,
                b'}' => (self.open, self.curly) = (self.open - 1, self.curly - 1),
                b']' => self.open -= 1,
                _ => {}
            }
            if self.open == 0 {
                if self.curly != 0 {
                    return Err((FaultKind::Grammar, position));
                }
                self.skip_depth = 0;
                self.stack.pop();
                self.expect = ExpectedToken::CommaOrEnd;
                break;
            }
        }
        Ok(remaining)
    }

    /// Takes the token at `offset`: one step of the grammar, and the visitor's calls if it is on a followed path.
    #[inline(always)]
    fn take_token<V: Visitor>(
        &mut self,
        piece: &[u8],
        offset: usize,
        trie: &Trie,
        visitor: &mut V,
        full: bool,
    ) -> Result<(), (FaultKind, usize)> {
        let wants_value = matches!(self.expect, ExpectedToken::Value | ExpectedToken::ValueOrEnd);
        match piece[offset] {
            b'"' => match self.expect {
                ExpectedToken::Key | ExpectedToken::KeyOrEnd => {
                    self.expect = ExpectedToken::Colon;
                    if self.frames.last().is_some_and(|frame| frame.depth == self.stack.depth) {
                        self.take_key(piece, offset, trie, visitor)?;
                    }
                }
                _ if wants_value => {
                    if self.stack.depth == 0 {
                        return Err((FaultKind::NotObject, offset));
                    }
                    self.expect = ExpectedToken::CommaOrEnd;
                    if let Some(node) = self.pending.take() {
                        self.take_string(piece, offset, node, trie, visitor);
                    }
                }
                _ => return Err((self.unexpected_token(), offset)),
            },
            b':' if self.expect == ExpectedToken::Colon => self.expect = ExpectedToken::Value,
            b',' if self.expect == ExpectedToken::CommaOrEnd => {
                if self.stack.in_object() {
                    self.expect = ExpectedToken::Key;
                } else {
                    self.expect = ExpectedToken::Value;
                    self.follow_element();
                }
            }
            b'{' if wants_value => {
                let node = self.pending.take();
                self.stack.push(true);
                self.expect = ExpectedToken::KeyOrEnd;
                self.open_container(node, false, trie, visitor);
            }
            b'[' if wants_value && self.stack.depth > 0 => {
                let node = self.pending.take();
                self.stack.push(false);
                self.expect = ExpectedToken::ValueOrEnd;
                self.open_container(node, true, trie, visitor);
            }
            b'}' if self.stack.in_object()
                && matches!(self.expect, ExpectedToken::KeyOrEnd | ExpectedToken::CommaOrEnd) =>
            {
                self.close_container(visitor);
            }
            b']' if self.stack.in_array()
                && matches!(self.expect, ExpectedToken::ValueOrEnd | ExpectedToken::CommaOrEnd) =>
            {
                self.close_container(visitor);
            }
            b'[' if wants_value => return Err((FaultKind::NotObject, offset)),
            b'{' | b'}' | b'[' | b']' | b':' | b',' => return Err((self.unexpected_token(), offset)),
            _ if wants_value => {
                if self.stack.depth == 0 {
                    return Err((FaultKind::NotObject, offset));
                }
                self.expect = ExpectedToken::CommaOrEnd;
                match self.pending.take() {
                    Some(node) if trie.is_leaf(node) => visitor.scalar(node, piece[offset]),
                    Some(node) => visitor.scalar_inside(node, piece[offset]),
                    None => {}
                }
                if full {
                    let (state, read) = scalar::run(scalar::START, &piece[offset..]);
                    self.end_scalar(state, offset + read, piece.len())?;
                }
            }
            _ => return Err((self.unexpected_token(), offset)),
        }
        Ok(())
    }

    /// The fault of a token that the grammar does not allow here.
    fn unexpected_token(&self) -> FaultKind {
        match self.expect {
            ExpectedToken::Nothing => FaultKind::Trailing,
            ExpectedToken::Value if self.stack.depth == 0 => FaultKind::NotObject,
            _ => FaultKind::Grammar,
        }
    }

    /// Ends a number or literal at `end`, or leaves it to the next piece if it reaches `len`, the end of this one.
    #[inline]
    fn end_scalar(&mut self, state: scalar::ScalarState, end: usize, len: usize) -> Result<(), (FaultKind, usize)> {
        if end == len && state != scalar::REJECT {
            self.crossing = Crossing::Scalar(state);
            return Ok(());
        }
        if scalar::accepts(state) { Ok(()) } else { Err((FaultKind::Scalar, end)) }
    }

    /// Continues the token that the last piece cut.
    fn resume_token<V: Visitor>(
        &mut self,
        piece: &[u8],
        trie: &Trie,
        visitor: &mut V,
        full: bool,
    ) -> Result<(), (FaultKind, usize)> {
        match std::mem::replace(&mut self.crossing, Crossing::None) {
            Crossing::None => {}
            Crossing::Scalar(state) if full => {
                let (state, read) = scalar::run(state, piece);
                self.end_scalar(state, read, piece.len())?;
            }
            Crossing::Scalar(_) => {}
            Crossing::Key => {
                if self.gather_string(piece, 0) {
                    self.end_key(trie, visitor, 0)?;
                } else {
                    self.crossing = Crossing::Key;
                }
            }
            Crossing::Value(node) => {
                if self.gather_string(piece, 0) {
                    self.end_string(node, visitor);
                } else {
                    self.crossing = Crossing::Value(node);
                }
            }
        }
        Ok(())
    }

    /// Offset of the quote that ends a string token from `from`; `None` if it is not in the piece or after an escape.
    #[inline]
    fn unescaped_end(piece: &[u8], from: usize) -> Option<usize> {
        let found = memchr::memchr2(b'"', b'\\', &piece[from..])? + from;
        (piece[found] == b'"').then_some(found)
    }

    /// Takes the token of a key in an object on a followed path; `quote` is the offset of its opening quote.
    #[inline]
    fn take_key<V: Visitor>(
        &mut self,
        piece: &[u8],
        quote: usize,
        trie: &Trie,
        visitor: &mut V,
    ) -> Result<(), (FaultKind, usize)> {
        // Keys are short: a loop over their bytes beats a call.
        let mut end = quote + 1;
        while let Some(byte) = piece.get(end) {
            if matches!(byte, b'"' | b'\\') {
                break;
            }
            end += 1;
        }
        if piece.get(end) == Some(&b'"') {
            return self.follow_key(&piece[quote + 1..end], quote, trie, visitor);
        }
        self.text.clear();
        self.too_long = false;
        match self.gather_string(piece, quote + 1) {
            true => self.end_key(trie, visitor, quote),
            false => {
                self.crossing = Crossing::Key;
                Ok(())
            }
        }
    }

    /// Token of a key, now complete: resolves its escapes and follows it.
    fn end_key<V: Visitor>(&mut self, trie: &Trie, visitor: &mut V, offset: usize) -> Result<(), (FaultKind, usize)> {
        let text = std::mem::take(&mut self.text);
        let mut decoded = std::mem::take(&mut self.decoded);
        let outcome = match !self.too_long && unescape(&text, &mut decoded) {
            true => self.follow_key(decoded.as_bytes(), offset, trie, visitor),
            false => Ok(()),
        };
        self.text = text;
        self.decoded = decoded;
        outcome
    }

    /// Makes the child of this name, if it is followed, the node of the next value; reports a duplicate.
    #[inline]
    fn follow_key<V: Visitor>(
        &mut self,
        name: &[u8],
        offset: usize,
        trie: &Trie,
        visitor: &mut V,
    ) -> Result<(), (FaultKind, usize)> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let Some(child) = trie.child(frame.node, name) else { return Ok(()) };
        if !visitor.wants(trie.paths(child)) {
            return Ok(());
        }
        let bit = 1 << trie.ordinal(child);
        if frame.children_met & bit != 0 {
            visitor.duplicate_key(child, self.position + offset as u64);
        }
        frame.children_met |= bit;
        self.pending = Some(child);
        Ok(())
    }

    /// Takes the token of a string value at a followed node; `quote` is the offset of its opening quote.
    fn take_string<V: Visitor>(&mut self, piece: &[u8], quote: usize, node: Node, trie: &Trie, visitor: &mut V) {
        // A string is a value only at a leaf: elsewhere objects are expected (reading 8 is about objects).
        if !trie.is_leaf(node) {
            return visitor.scalar_inside(node, b'"');
        }
        if let Some(end) = Self::unescaped_end(piece, quote + 1) {
            let text = &piece[quote + 1..end];
            let known = text.len() <= REFERENCE_BYTES_MAX;
            return visitor.string(node, str::from_utf8(text).ok().filter(|_| known));
        }
        self.text.clear();
        self.too_long = false;
        if self.gather_string(piece, quote + 1) {
            self.end_string(node, visitor);
        } else {
            self.crossing = Crossing::Value(node);
        }
    }

    /// Token of a string value, now complete: resolves its escapes and passes it to the visitor.
    fn end_string<V: Visitor>(&mut self, node: Node, visitor: &mut V) {
        let mut decoded = std::mem::take(&mut self.decoded);
        let known = !self.too_long && unescape(&self.text, &mut decoded) && decoded.len() <= REFERENCE_BYTES_MAX;
        visitor.string(node, known.then_some(decoded.as_str()));
        self.decoded = decoded;
    }

    /// Opens a container at a node, or at none: skips it, or pushes a frame for its members.
    #[inline]
    fn open_container<V: Visitor>(&mut self, node: Option<Node>, is_array: bool, trie: &Trie, visitor: &mut V) {
        let followed = node.filter(|node| *node == ROOT || !trie.is_leaf(*node));
        let Some(node) = followed else {
            if self.skip_depth == 0 {
                self.skip_depth = self.stack.depth;
                (self.open, self.curly) = (1, i64::from(!is_array));
            }
            return node.into_iter().for_each(|leaf| visitor.container(leaf));
        };
        self.frames.push(ScannerFrame { depth: self.stack.depth, node, is_array, children_met: 0 });
        if is_array {
            self.pending = Some(node);
            visitor.open_array(node);
        } else {
            visitor.open(node);
        }
    }

    /// Closes the innermost container.
    #[inline]
    fn close_container<V: Visitor>(&mut self, visitor: &mut V) {
        if let Some(frame) = self.frames.last()
            && frame.depth == self.stack.depth
        {
            let frame = *frame;
            self.frames.pop();
            if !frame.is_array {
                visitor.close(frame.node);
            }
        }
        self.pending = None;
        self.stack.pop();
        if self.stack.depth < self.skip_depth {
            self.skip_depth = 0;
        }
        self.expect = if self.stack.depth == 0 { ExpectedToken::Nothing } else { ExpectedToken::CommaOrEnd };
    }

    /// Makes the node of an array on a followed path that of its next element.
    #[inline]
    fn follow_element(&mut self) {
        if let Some(frame) = self.frames.last()
            && frame.is_array
            && frame.depth == self.stack.depth
        {
            self.pending = Some(frame.node);
        }
    }
}
