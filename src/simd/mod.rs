//! Classifies JSON text 64 bytes at a time: where tokens start, which characters are escaped, what is illegal in
//! strings.
//!
//! The kernels differ only in how a block is classified; the code after the classes is shared. `scalar` is the
//! reference implementation, and a test compares every kernel that the processor offers with it. Nothing here knows
//! the grammar. Of its two callers in `extract`, `scanner` walks the token starts that [`Kernel::classify`] finds, and
//! `block` takes the classes block by block and is compiled for each kernel by [`Kernel::run`].

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod block_cursor;
pub(crate) mod scalar;

/// Bytes of a block; masks have one bit for each.
pub(crate) const BLOCK: usize = 64;
/// Most blocks classified at a time: few enough that text and masks stay in the first-level cache.
pub(crate) const BATCH: usize = 64;

/// An implementation of the classifier, chosen by the processor's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Portable code; the reference implementation.
    Scalar,
    /// 256-bit vectors and carry-less multiplication (x86-64). Only [`Kernel::available`] hands it out.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 512-bit vectors, whose comparisons yield masks (x86-64). Only [`Kernel::available`] hands it out.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Proof that the processor has AVX2, PCLMULQDQ, BMI1, BMI2, LZCNT and POPCNT: its field is private, so only detection
/// makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that the processor has AVX-512 (F, BW and VBMI2, which packs bytes) and all that [`Avx2`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

/// Block operations of one kernel, as seen by code that is compiled for each kernel.
pub trait Vector: Copy {
    /// Classes of all bytes of a block.
    fn classes(self, block: &[u8; BLOCK]) -> Classes;
    /// Bit i of the result is the parity of bits 0 to i.
    fn prefix_xor(self, bits: u64) -> u64;
    /// The classes that locate tokens and verify plain numbers.
    fn marks(self, block: &[u8; BLOCK]) -> BlockMarks;
    /// Packs the bytes of a block that `marked` selects to the front of `bytes`, as [`SCALAR`] those that `scalars`
    /// selects too, and their positions plus `base` to the front of `positions`. Returns their number; the elements
    /// behind them are unspecified.
    #[inline(always)]
    fn pack(
        self,
        block: &[u8; BLOCK],
        marked: u64,
        scalars: u64,
        base: u16,
        bytes: &mut [u8; BLOCK],
        positions: &mut [u16; BLOCK],
    ) -> usize {
        let (mut remaining, mut count) = (marked, 0);
        while remaining != 0 {
            let i = remaining.trailing_zeros() as usize;
            remaining &= remaining - 1;
            bytes[count] = if scalars >> i & 1 != 0 { SCALAR } else { block[i] };
            positions[count] = base + i as u16;
            count += 1;
        }
        count
    }
    /// Packs the bytes of a block that `kept` selects to the front of `out`. Returns their number; the bytes behind them are
    /// unspecified.
    #[inline(always)]
    fn compress(self, block: &[u8; BLOCK], kept: u64, out: &mut [u8; BLOCK]) -> usize {
        let (mut remaining, mut count) = (kept, 0);
        while remaining != 0 {
            out[count] = block[remaining.trailing_zeros() as usize];
            remaining &= remaining - 1;
            count += 1;
        }
        count
    }
    /// Bit i of the result is set where byte i of `a` differs from byte i of `b`.
    fn differing(self, a: &[u8; HALF], b: &[u8; HALF]) -> u32;
    /// Bit i of the result is set where byte i + 3 is `f` or `n`, and byte i + 5 is `r`: as behind the opening quotes of
    /// `"reference"` and of `"Binary/`.
    fn mention_letters(self, window: &[u8; WINDOW]) -> u64;
}

/// Bytes that [`Vector::mention_letters`] looks at: a block, and what stands ahead of its last byte.
pub(crate) const WINDOW: usize = BLOCK + 5;
/// Bytes that [`Vector::differing`] compares.
pub(crate) const HALF: usize = BLOCK / 2;
/// Byte that [`Vector::pack`] writes for the start of any number or literal.
pub(crate) const SCALAR: u8 = b'0';

/// Work that is compiled once for each kernel. Only `#[inline(always)]` functions called by its `run` are.
pub trait KernelJob {
    /// Result of the work.
    type Output;
    /// Does the work with the operations of one kernel.
    fn run<V: Vector>(self, vector: V) -> Self::Output;
}

impl Kernel {
    /// Every kernel that this processor can run, slowest first.
    pub fn available() -> Vec<Kernel> {
        let mut all = vec![Kernel::Scalar];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
        {
            all.push(Kernel::Avx2(Avx2(())));
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vbmi2")
            {
                all.push(Kernel::Avx512(Avx512(())));
            }
        }
        all
    }

    /// The fastest kernel that this processor can run.
    pub fn detect() -> Kernel {
        static BEST: std::sync::OnceLock<Kernel> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| *Kernel::available().last().expect("the scalar one is always there"))
    }

    /// The kernel with this [`name`](Kernel::name); `None` when it is unknown or the processor cannot run it.
    pub fn named(name: &str) -> Option<Kernel> {
        Kernel::available().into_iter().find(|kernel| kernel.name() == name)
    }

    /// Name of the kernel: `scalar`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(_) => "avx512",
        }
    }

    /// Runs a job in the version compiled for this kernel's processor.
    pub fn run<J: KernelJob>(self, job: J) -> J::Output {
        match self {
            Kernel::Scalar => job.run(scalar::ScalarVector),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx2` exists only where `available` has detected the features.
            Kernel::Avx2(proof) => unsafe { avx2::run(proof, job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx512` exists only where `available` has detected the features.
            Kernel::Avx512(proof) => unsafe { avx512::run(proof, job) },
        }
    }

    /// Masks of `text`, at most [`BATCH`] blocks; every batch of a text but the last must be whole blocks. Returns the
    /// number of blocks; the last may be partial.
    pub fn classify(self, text: &[u8], carry: &mut ClassCarry, masks: &mut Masks) -> usize {
        assert!(text.len() <= BLOCK * BATCH);
        self.run(Classify { text, carry, masks })
    }
}

/// [`Kernel::classify`] as a job.
struct Classify<'a> {
    text: &'a [u8],
    carry: &'a mut ClassCarry,
    masks: &'a mut Masks,
}

impl KernelJob for Classify<'_> {
    type Output = usize;
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> usize {
        classify_with(self.text, self.carry, self.masks, vector)
    }
}

/// State that one block hands to the next; the default is the start of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCarry {
    /// Whether the next character is escaped.
    escaped: bool,
    /// All ones inside a string, else 0.
    in_string: u64,
    /// Whether the last character belongs to a number, a literal or nothing legal.
    scalar: bool,
}

impl ClassCarry {
    /// Whether the classified text ends inside a string.
    pub fn in_string(&self) -> bool {
        self.in_string != 0
    }
}

/// Masks of a batch of blocks; bit i of a word is byte i of its block.
pub struct Masks {
    /// Starts of tokens: `{}[]:,`, opening quotes, first characters of numbers and literals.
    pub starts: [u64; BATCH],
    /// Characters behind an unescaped backslash, inside strings.
    pub escaped: [u64; BATCH],
    /// Control characters inside strings, which are never legal.
    pub control: [u64; BATCH],
    /// Whether any byte of the batch has its high bit set.
    pub high: bool,
    /// Whether any word of `escaped` is nonzero.
    pub any_escaped: bool,
    /// Whether any word of `control` is nonzero.
    pub any_control: bool,
}

impl Default for Masks {
    fn default() -> Masks {
        Masks {
            starts: [0; BATCH],
            escaped: [0; BATCH],
            control: [0; BATCH],
            high: false,
            any_escaped: false,
            any_control: false,
        }
    }
}

/// Classes of the bytes of a block; bit i of a word is byte i. Bytes inside strings are classified like all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// `\\`
    pub backslash: u64,
    /// `"`
    pub quote: u64,
    /// `{` and `[`
    pub open: u64,
    /// `}` and `]`
    pub close: u64,
    /// Bit 5 of the byte: distinguishes `{` and `}` from `[` and `]`.
    pub curly: u64,
    /// `:`
    pub colon: u64,
    /// `,`
    pub comma: u64,
    /// White space of RFC 8259: space, tab, line feed, carriage return.
    pub space: u64,
    /// Line feed.
    pub newline: u64,
    /// Below 0x20.
    pub control: u64,
    /// 0x80 and above.
    pub high: u64,
}

/// Classes that locate tokens and verify plain numbers; bit i of a word is byte i, as in [`Classes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockMarks {
    /// `\\`
    pub backslash: u64,
    /// `"`
    pub quote: u64,
    /// `{}[]:,`
    pub punctuation: u64,
    /// White space of RFC 8259.
    pub space: u64,
    /// Below 0x20.
    pub control: u64,
    /// 0x80 and above.
    pub high: u64,
    /// `0` to `9`
    pub digit: u64,
    /// `0`
    pub zero: u64,
    /// `.`
    pub dot: u64,
}

/// By the low half of a byte, the one white space character that has this low half; 0xff, which equals no such byte,
/// where there is none. A vector look-up gives zero for bytes above 0x7f, which are not zero.
#[cfg(target_arch = "x86_64")]
const SPACE_BY_LOW_HALF: [u8; 16] = {
    let mut table = [0xff; 16];
    table[0] = b' ';
    table[9] = b'\t';
    table[10] = b'\n';
    table[13] = b'\r';
    table
};

/// By the low half of a byte, the one character of `{}:,` that has it. `[` and `]` with bit 5 set are `{` and `}`.
#[cfg(target_arch = "x86_64")]
const PUNCTUATION_BY_LOW_HALF: [u8; 16] = {
    let mut table = [0xff; 16];
    table[10] = b':';
    table[11] = b'{';
    table[12] = b',';
    table[13] = b'}';
    table
};

impl Classes {
    /// `{}[]:,`
    #[inline(always)]
    pub fn punctuation(&self) -> u64 {
        self.open | self.close | self.colon | self.comma
    }
}

/// What follows from the backslashes of a block, whatever kernel found them: the characters that they escape, and
/// whether the first of the next block is escaped. Backslashes are rare, so they are taken one by one: each unescaped
/// one escapes the next character. `carried`: the first character is escaped.
#[inline(always)]
pub(crate) fn escaped_characters(backslash: u64, len: usize, carried: bool) -> (u64, bool) {
    let in_text = if len == BLOCK { u64::MAX } else { (1 << len) - 1 };
    let mut escaped = u64::from(carried);
    let mut remaining = backslash & in_text & !escaped;
    while remaining != 0 {
        let offset = remaining.trailing_zeros() as usize;
        if offset == len - 1 {
            return (escaped, true);
        }
        escaped |= 2 << offset;
        remaining &= !(3 << offset);
    }
    (escaped, false)
}

/// [`Kernel::classify`] for one kernel. Inlined into each, so that it is compiled for that kernel's processor.
#[inline(always)]
fn classify_with(text: &[u8], carry: &mut ClassCarry, masks: &mut Masks, vector: impl Vector) -> usize {
    let (mut high, mut any_escaped, mut any_control) = (0, 0, 0);
    let (blocks, tail) = text.as_chunks::<BLOCK>();
    for (i, block) in blocks.iter().enumerate() {
        let classes = vector.classes(block);
        let (starts, escaped, control) = combine(classes, BLOCK, carry, vector);
        masks.starts[i] = starts;
        masks.escaped[i] = escaped;
        masks.control[i] = control;
        high |= classes.high;
        any_escaped |= escaped;
        any_control |= control;
    }
    let mut count = blocks.len();
    if !tail.is_empty() {
        let mut block = [b' '; BLOCK];
        block[..tail.len()].copy_from_slice(tail);
        let classes = vector.classes(&block);
        let (starts, escaped, control) = combine(classes, tail.len(), carry, vector);
        masks.starts[count] = starts;
        masks.escaped[count] = escaped;
        masks.control[count] = control;
        high |= classes.high;
        any_escaped |= escaped;
        any_control |= control;
        count += 1;
    }
    masks.high = high != 0;
    masks.any_escaped = any_escaped != 0;
    masks.any_control = any_control != 0;
    count
}

/// From the classes of a block of `len` bytes: token starts, escaped characters in strings, control characters in
/// strings.
#[inline(always)]
fn combine(classes: Classes, len: usize, carry: &mut ClassCarry, vector: impl Vector) -> (u64, u64, u64) {
    let in_text = if len == BLOCK { u64::MAX } else { (1 << len) - 1 };
    let last = len - 1;
    let mut escaped = 0;
    if classes.backslash != 0 || carry.escaped {
        (escaped, carry.escaped) = escaped_characters(classes.backslash, len, carry.escaped);
    }
    let quote = classes.quote & !escaped & in_text;
    // Set from an opening quote up to the character before the closing one.
    let in_string = vector.prefix_xor(quote) ^ carry.in_string;
    carry.in_string = 0u64.wrapping_sub(in_string >> last & 1);
    let scalar = !(classes.punctuation() | classes.space);
    let scalar_not_quote = scalar & !quote;
    let follows_scalar = scalar_not_quote << 1 | u64::from(carry.scalar);
    carry.scalar = scalar_not_quote >> last & 1 != 0;
    let string_rest = in_string ^ quote;
    let starts = (classes.punctuation() | scalar & !follows_scalar) & !string_rest & in_text;
    (starts, escaped & in_string & in_text, classes.control & in_string & in_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masks_of(kernel: Kernel, text: &[u8]) -> Vec<(u64, u64, u64, bool, ClassCarry)> {
        let mut carry = ClassCarry::default();
        let mut masks = Masks::default();
        let mut all = Vec::new();
        for batch in text.chunks(BLOCK * BATCH) {
            let count = kernel.classify(batch, &mut carry, &mut masks);
            all.extend((0..count).map(|i| (masks.starts[i], masks.escaped[i], masks.control[i], masks.high, carry)));
        }
        all
    }

    struct Pack<'a>(&'a [u8; BLOCK], u64, u64, u16, &'a [u8; HALF]);

    impl KernelJob for Pack<'_> {
        type Output = (BlockMarks, Vec<u8>, Vec<u16>, u32);
        #[inline(always)]
        fn run<V: Vector>(self, vector: V) -> Self::Output {
            let Pack(block, marked, scalars, base, other) = self;
            let (mut bytes, mut positions) = ([0; BLOCK], [0; BLOCK]);
            let count = vector.pack(block, marked, scalars, base, &mut bytes, &mut positions);
            let differing = vector.differing(block.first_chunk().unwrap(), other);
            (vector.marks(block), bytes[..count].to_vec(), positions[..count].to_vec(), differing)
        }
    }

    fn packed(
        kernel: Kernel,
        block: &[u8; BLOCK],
        marked: u64,
        scalars: u64,
        base: u16,
        other: &[u8; HALF],
    ) -> <Pack<'static> as KernelJob>::Output {
        kernel.run(Pack(block, marked, scalars, base, other))
    }

    struct Compress<'a>(&'a [u8; BLOCK], u64);

    impl KernelJob for Compress<'_> {
        type Output = Vec<u8>;
        #[inline(always)]
        fn run<V: Vector>(self, vector: V) -> Vec<u8> {
            let mut out = [0; BLOCK];
            let count = vector.compress(self.0, self.1, &mut out);
            out[..count].to_vec()
        }
    }

    struct MentionLetters<'a>(&'a [u8; WINDOW]);

    impl KernelJob for MentionLetters<'_> {
        type Output = u64;
        #[inline(always)]
        fn run<V: Vector>(self, vector: V) -> u64 {
            vector.mention_letters(self.0)
        }
    }

    proptest! {
        /// The same of the letters of mentions.
        #[test]
        fn kernels_find_letters_alike(text in proptest::collection::vec(
            prop_oneof![4 => prop::sample::select(b"fnrFNR".to_vec()), 1 => any::<u8>()], WINDOW)) {
            let window: &[u8; WINDOW] = text.first_chunk().unwrap();
            let expected = Kernel::Scalar.run(MentionLetters(window));
            for kernel in Kernel::available() {
                prop_assert_eq!(kernel.run(MentionLetters(window)), expected, "{}", kernel.name());
            }
        }

        /// The same of the marks, of packing, and of comparing.
        #[test]
        fn kernels_pack_alike(text in proptest::collection::vec(
            prop_oneof![prop::sample::select(br#"{}[]:,"\ .019"#.to_vec()), any::<u8>()], BLOCK),
            marked in any::<u64>(), scalars in any::<u64>(), base in 0..60_000u16,
            again in any::<prop::sample::Index>()) {
            let block: &[u8; BLOCK] = text.first_chunk().unwrap();
            let mut other = *block.first_chunk::<HALF>().unwrap();
            other[again.index(HALF)] ^= 1;
            let expected = packed(Kernel::Scalar, block, marked, scalars, base, &other);
            let kept = Kernel::Scalar.run(Compress(block, marked));
            prop_assert_eq!(kept.len() as u32, marked.count_ones());
            prop_assert_eq!(expected.3, 1 << again.index(HALF));
            for kernel in Kernel::available() {
                prop_assert_eq!(&packed(kernel, block, marked, scalars, base, &other), &expected, "{}", kernel.name());
                prop_assert_eq!(&kernel.run(Compress(block, marked)), &kept, "{}", kernel.name());
            }
        }

        /// Every kernel of this processor equals the scalar one, on bytes that are mostly special characters.
        #[test]
        fn kernels_agree(text in proptest::collection::vec(
            prop_oneof![
                prop::sample::select(br#"{}[]:,"\ 	"#.to_vec()), prop::sample::select(br#"\\""aZ09-.eE+"#.to_vec()), any::<u8>()
            ], 0..9000)) {
            let expected = masks_of(Kernel::Scalar, &text);
            for kernel in Kernel::available() {
                prop_assert_eq!(&masks_of(kernel, &text), &expected, "{}", kernel.name());
            }
        }
    }
}
