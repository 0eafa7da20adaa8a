//! The stack of open containers, one bit for each: nesting has no bound and needs no recursion.

/// Kinds of the open containers, 1 for an object and 0 for an array. The innermost is the lowest bit of `top`.
#[derive(Default)]
pub(crate) struct Stack {
    /// The innermost containers, up to 64.
    top: u64,
    /// The outer containers, 64 in each word, the outermost word first.
    full: Vec<u64>,
    /// Number of open containers.
    pub depth: u32,
}

impl Stack {
    /// Empties the stack.
    pub(crate) fn clear(&mut self) {
        self.depth = 0;
        self.top = 0;
        self.full.clear();
    }

    /// Kinds of the innermost containers, up to 64, the innermost lowest.
    #[inline]
    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// Sets `top` and the depth after steps that left the outer words unchanged.
    pub(crate) fn set(&mut self, top: u64, depth: u32) {
        self.top = top;
        self.depth = depth;
    }

    /// Opens an object or an array.
    pub(crate) fn push(&mut self, is_object: bool) {
        if self.depth.is_multiple_of(64) && self.depth > 0 {
            self.full.push(self.top);
        }
        self.top = self.top << 1 | u64::from(is_object);
        self.depth += 1;
    }
    /// Whether the innermost container is an object; `false` outside of any.
    #[inline]
    pub(crate) fn in_object(&self) -> bool {
        self.depth > 0 && self.top & 1 != 0
    }
    /// Whether the innermost container is an array; `false` outside of any.
    #[inline]
    pub(crate) fn in_array(&self) -> bool {
        self.depth > 0 && self.top & 1 == 0
    }
    /// Closes the innermost container, which must exist.
    #[inline]
    pub(crate) fn pop(&mut self) {
        self.depth -= 1;
        self.top >>= 1;
        if self.depth.is_multiple_of(64)
            && let Some(word) = self.full.pop()
        {
            self.top = word;
        }
    }
}
