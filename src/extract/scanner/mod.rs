//! Walks the token starts of a JSON text: checks the grammar, follows the paths of a trie, tells a visitor.
//!
//! A text comes in pieces of any length; everything that crosses a piece is kept in the scanner, so a line of
//! gigabytes needs no buffer. There is no recursion and no bound on depth: open containers are bits of a stack.
//!
//! ```text
//! for each block of 64 bytes: classify (kernel), then for each token start:
//!     punctuation   one step of the grammar's automaton; open and close move the stack
//!     quote         a key if the automaton wants one, else a value; its end is not looked for,
//!                   because the kernel already skips what lies inside strings
//!     anything else a number or literal
//! ```
//! Keys are looked at only in objects that lie on a followed path, which is where a scan that knew nothing of paths
//! would lose its time.

pub(crate) mod strings;

use crate::extract::fault::{Fault, FaultKind};
use crate::extract::skip::{CLASS, ExpectedToken, SCALAR, Skip};
use crate::extract::stack::Stack;
use crate::extract::trie::{Node, ROOT, Trie};
use crate::extract::unescape::unescape;
use crate::extract::{Validate, scalar};
use crate::limits::REFERENCE_BYTES_MAX;
use crate::simd::{BATCH, BLOCK, ClassCarry, Kernel, Masks};

/// Is told what stands on the followed paths.
pub(crate) trait Visitor {
    /// Whether paths through a node are still wanted.
    fn wants(&self, paths: u64) -> bool;
    /// A string at a leaf. `None`: longer than anything that is looked at.
    fn string(&mut self, node: Node, text: Option<&str>);
    /// Any other scalar at a leaf; its first byte tells which.
    fn scalar(&mut self, node: Node, first: u8);
    /// An object or array begins at a leaf, where a scalar was expected.
    fn container(&mut self, node: Node);
    /// A scalar stands where paths go on, in place of an object; its first byte tells which.
    fn scalar_inside(&mut self, _node: Node, _first: u8) {}
    /// An array on a followed path begins.
    fn open_array(&mut self, _node: Node) {}
    /// An object on a followed path begins.
    fn open(&mut self, _node: Node) {}
    /// An object on a followed path ends.
    fn close(&mut self, _node: Node) {}
    /// A key was met again in its object.
    fn duplicate_key(&mut self, node: Node, start_offset: u64);
}

/// A container on a followed path.
#[derive(Clone, Copy)]
struct ScannerFrame {
    depth: u32,
    node: Node,
    is_array: bool,
    /// Children met so far, by ordinal.
    seen: u64,
}

/// A token that goes on in the next piece.
enum Crossing {
    None,
    /// A string whose text is wanted; what was read of it is in `text`.
    Key,
    Value(Node),
    Scalar(scalar::ScalarState),
}

/// A scan of one text.
pub(crate) struct Scanner {
    kernel: Kernel,
    validate: Validate,
    carry: ClassCarry,
    masks: Box<Masks>,
    stack: Stack,
    expect: ExpectedToken,
    frames: Vec<ScannerFrame>,
    /// Least depth inside the container that nothing is wanted from, 0 outside of one.
    skip_depth: u32,
    /// Containers open since then, and objects among them, where only they are counted.
    open: u64,
    curly: i64,
    /// Node whose value comes next; `None` when it is not followed.
    pending: Option<Node>,
    crossing: Crossing,
    /// Raw text of a string that crosses pieces.
    text: Vec<u8>,
    too_long: bool,
    /// Hexadecimal digits that an escape still needs in the next block.
    hex_left: u32,
    /// Bytes of a UTF-8 sequence that the piece's end cut.
    partial: Vec<u8>,
    /// Bytes before the current piece.
    position: u64,
    fault: Option<Fault>,
    decoded: String,
}

impl Scanner {
    /// A scanner, ready to begin.
    pub(crate) fn new(kernel: Kernel, validate: Validate) -> Scanner {
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
            partial: Vec::new(),
            position: 0,
            fault: None,
            decoded: String::new(),
        }
    }

    /// How the text is classified.
    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// How much of it is checked.
    pub(crate) fn validate(&self) -> Validate {
        self.validate
    }

    /// Forgets the last text.
    pub(crate) fn begin(&mut self) {
        self.carry = ClassCarry::default();
        self.stack.clear();
        self.expect = ExpectedToken::Value;
        self.frames.clear();
        self.skip_depth = 0;
        self.pending = Some(ROOT);
        self.crossing = Crossing::None;
        self.hex_left = 0;
        self.partial.clear();
        self.position = 0;
        self.fault = None;
    }

    /// The next piece of the text.
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
        let outcome = self.walk(piece, &mut masks, trie, visitor);
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

    /// What was found to be wrong so far.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The text is over.
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
            ExpectedToken::Nothing if !self.carry.in_string() => Ok(()),
            _ => fault(FaultKind::Truncated),
        }
    }

    fn walk<V: Visitor>(
        &mut self,
        piece: &[u8],
        masks: &mut Masks,
        trie: &Trie,
        visitor: &mut V,
    ) -> Result<bool, (FaultKind, usize)> {
        let full = self.validate == Validate::Full;
        let mut high = false;
        self.resume(piece, trie, visitor, full)?;
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
                            true => self.skip(piece, offset, starts)?,
                            false => self.count(piece, offset, starts)?,
                        };
                        if starts == 0 {
                            break;
                        }
                    }
                    let position = offset + starts.trailing_zeros() as usize;
                    starts &= starts - 1;
                    self.token(piece, position, trie, visitor, full)?;
                }
            }
            base += batch.len();
        }
        Ok(high)
    }

    /// Takes the tokens of a block as long as they lie in a container that nothing is wanted from; those left.
    #[inline(always)]
    fn skip(&mut self, piece: &[u8], offset: usize, starts: u64) -> Result<u64, (FaultKind, usize)> {
        let mut walk = Skip { expect: self.expect as u8, top: self.stack.top(), depth: self.stack.depth };
        let mut left = starts;
        let least = self.skip_depth;
        while left != 0 && walk.has_room() {
            let position = offset + left.trailing_zeros() as usize;
            let class = CLASS[piece[position] as usize];
            if class == SCALAR {
                let (state, read) = scalar::run(scalar::START, &piece[position..]);
                if position + read == piece.len() || !scalar::accepts(state) {
                    break;
                }
            }
            left &= left - 1;
            walk.step(class);
            if walk.depth < least {
                self.skip_depth = 0;
                break;
            }
        }
        if walk.expect() == ExpectedToken::Wrong {
            // Token by token from the start of the block, to say where and what.
            self.skip_depth = 0;
            return Ok(starts);
        }
        self.expect = walk.expect();
        self.stack.set(walk.top, walk.depth);
        // What is left in skipping is for the careful walk: its next token is taken there, and skipping goes on.
        Ok(left)
    }

    /// The same where the grammar is not checked: brackets are counted, those of objects and all, and both counts must
    /// come out even where the container ends.
    #[inline(always)]
    fn count(&mut self, piece: &[u8], offset: usize, starts: u64) -> Result<u64, (FaultKind, usize)> {
        let mut left = starts;
        while left != 0 {
            let position = offset + left.trailing_zeros() as usize;
            left &= left - 1;
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
        Ok(left)
    }

    #[inline(always)]
    fn token<V: Visitor>(
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
                        self.key(piece, offset, trie, visitor)?;
                    }
                }
                _ if wants_value => {
                    if self.stack.depth == 0 {
                        return Err((FaultKind::NotObject, offset));
                    }
                    self.expect = ExpectedToken::CommaOrEnd;
                    if let Some(node) = self.pending.take() {
                        self.string(piece, offset, node, trie, visitor);
                    }
                }
                _ => return Err((self.wrong(), offset)),
            },
            b':' if self.expect == ExpectedToken::Colon => self.expect = ExpectedToken::Value,
            b',' if self.expect == ExpectedToken::CommaOrEnd => {
                if self.stack.in_object() {
                    self.expect = ExpectedToken::Key;
                } else {
                    self.expect = ExpectedToken::Value;
                    self.next_element();
                }
            }
            b'{' if wants_value => {
                let node = self.pending.take();
                self.stack.push(true);
                self.expect = ExpectedToken::KeyOrEnd;
                self.enter(node, false, trie, visitor);
            }
            b'[' if wants_value && self.stack.depth > 0 => {
                let node = self.pending.take();
                self.stack.push(false);
                self.expect = ExpectedToken::ValueOrEnd;
                self.enter(node, true, trie, visitor);
            }
            b'}' if self.stack.in_object()
                && matches!(self.expect, ExpectedToken::KeyOrEnd | ExpectedToken::CommaOrEnd) =>
            {
                self.leave(visitor);
            }
            b']' if self.stack.in_array()
                && matches!(self.expect, ExpectedToken::ValueOrEnd | ExpectedToken::CommaOrEnd) =>
            {
                self.leave(visitor);
            }
            b'[' if wants_value => return Err((FaultKind::NotObject, offset)),
            b'{' | b'}' | b'[' | b']' | b':' | b',' => return Err((self.wrong(), offset)),
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
            _ => return Err((self.wrong(), offset)),
        }
        Ok(())
    }

    fn wrong(&self) -> FaultKind {
        match self.expect {
            ExpectedToken::Nothing => FaultKind::Trailing,
            ExpectedToken::Value if self.stack.depth == 0 => FaultKind::NotObject,
            _ => FaultKind::Grammar,
        }
    }

    #[inline]
    fn end_scalar(&mut self, state: scalar::ScalarState, end: usize, len: usize) -> Result<(), (FaultKind, usize)> {
        if end == len && state != scalar::REJECT {
            self.crossing = Crossing::Scalar(state);
            return Ok(());
        }
        if scalar::accepts(state) { Ok(()) } else { Err((FaultKind::Scalar, end)) }
    }

    /// Goes on with a token that the last piece cut.
    fn resume<V: Visitor>(
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
                if self.gather(piece, 0) {
                    self.end_key(trie, visitor, 0)?;
                } else {
                    self.crossing = Crossing::Key;
                }
            }
            Crossing::Value(node) => {
                if self.gather(piece, 0) {
                    self.end_string(node, visitor);
                } else {
                    self.crossing = Crossing::Value(node);
                }
            }
        }
        Ok(())
    }

    /// The end of a string that begins at `from`, if the piece has it and nothing in it is escaped.
    #[inline]
    fn plain_end(piece: &[u8], from: usize) -> Option<usize> {
        let found = memchr::memchr2(b'"', b'\\', &piece[from..])? + from;
        (piece[found] == b'"').then_some(found)
    }

    #[inline]
    fn key<V: Visitor>(
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
            return self.follow(&piece[quote + 1..end], quote, trie, visitor);
        }
        self.text.clear();
        self.too_long = false;
        match self.gather(piece, quote + 1) {
            true => self.end_key(trie, visitor, quote),
            false => {
                self.crossing = Crossing::Key;
                Ok(())
            }
        }
    }

    fn end_key<V: Visitor>(&mut self, trie: &Trie, visitor: &mut V, offset: usize) -> Result<(), (FaultKind, usize)> {
        let text = std::mem::take(&mut self.text);
        let mut decoded = std::mem::take(&mut self.decoded);
        let outcome = match !self.too_long && unescape(&text, &mut decoded) {
            true => self.follow(decoded.as_bytes(), offset, trie, visitor),
            false => Ok(()),
        };
        self.text = text;
        self.decoded = decoded;
        outcome
    }

    #[inline]
    fn follow<V: Visitor>(
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
        if frame.seen & bit != 0 {
            visitor.duplicate_key(child, self.position + offset as u64);
        }
        frame.seen |= bit;
        self.pending = Some(child);
        Ok(())
    }

    fn string<V: Visitor>(&mut self, piece: &[u8], quote: usize, node: Node, trie: &Trie, visitor: &mut V) {
        // A string counts only where a scalar is expected, and not inside an array (reading 8 is about objects).
        if !trie.is_leaf(node) {
            return visitor.scalar_inside(node, b'"');
        }
        if let Some(end) = Self::plain_end(piece, quote + 1) {
            let text = &piece[quote + 1..end];
            let known = text.len() <= REFERENCE_BYTES_MAX;
            return visitor.string(node, str::from_utf8(text).ok().filter(|_| known));
        }
        self.text.clear();
        self.too_long = false;
        if self.gather(piece, quote + 1) {
            self.end_string(node, visitor);
        } else {
            self.crossing = Crossing::Value(node);
        }
    }

    fn end_string<V: Visitor>(&mut self, node: Node, visitor: &mut V) {
        let mut decoded = std::mem::take(&mut self.decoded);
        let known = !self.too_long && unescape(&self.text, &mut decoded) && decoded.len() <= REFERENCE_BYTES_MAX;
        visitor.string(node, known.then_some(decoded.as_str()));
        self.decoded = decoded;
    }

    /// A container begins, at a followed node or at none.
    #[inline]
    fn enter<V: Visitor>(&mut self, node: Option<Node>, is_array: bool, trie: &Trie, visitor: &mut V) {
        let followed = node.filter(|node| *node == ROOT || !trie.is_leaf(*node));
        let Some(node) = followed else {
            if self.skip_depth == 0 {
                self.skip_depth = self.stack.depth;
                (self.open, self.curly) = (1, i64::from(!is_array));
            }
            return node.into_iter().for_each(|leaf| visitor.container(leaf));
        };
        self.frames.push(ScannerFrame { depth: self.stack.depth, node, is_array, seen: 0 });
        if is_array {
            self.pending = Some(node);
            visitor.open_array(node);
        } else {
            visitor.open(node);
        }
    }

    /// A container ends.
    #[inline]
    fn leave<V: Visitor>(&mut self, visitor: &mut V) {
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

    /// The next element of an array on a followed path is followed, too.
    #[inline]
    fn next_element(&mut self) {
        if let Some(frame) = self.frames.last()
            && frame.is_array
            && frame.depth == self.stack.depth
        {
            self.pending = Some(frame.node);
        }
    }
}
