//! The containers that are open, a bit each: depth has no bound and needs no recursion.

/// Containers that are open: the innermost is the lowest bit of `top`.
#[derive(Default)]
pub(crate) struct Stack {
    top: u64,
    full: Vec<u64>,
    /// How many are open.
    pub depth: u32,
}

impl Stack {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.depth = 0;
        self.top = 0;
        self.full.clear();
    }

    #[inline]
    /// The innermost 64, the innermost lowest.
    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// Sets what [`Stack::top`] gives and the depth, after steps that touched nothing below.
    pub(crate) fn set(&mut self, top: u64, depth: u32) {
        self.top = top;
        self.depth = depth;
    }

    /// One more is open, an object or an array.
    pub(crate) fn push(&mut self, is_object: bool) {
        if self.depth.is_multiple_of(64) && self.depth > 0 {
            self.full.push(self.top);
        }
        self.top = self.top << 1 | u64::from(is_object);
        self.depth += 1;
    }
    #[inline]
    /// Whether the innermost is an object.
    pub(crate) fn in_object(&self) -> bool {
        self.depth > 0 && self.top & 1 != 0
    }
    #[inline]
    /// Whether the innermost is an array.
    pub(crate) fn in_array(&self) -> bool {
        self.depth > 0 && self.top & 1 == 0
    }
    #[inline]
    /// The innermost is closed.
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
