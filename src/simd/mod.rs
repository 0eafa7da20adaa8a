//! Classifies JSON text 64 bytes at a time: where tokens start, which characters are escaped, what is wrong.
//!
//! The kernels differ only in how a block is classified; what follows from the classes is the same code. `scalar`
//! defines correct, and a test holds every kernel that the processor offers against it. Nothing here knows the
//! grammar: that is the scanners', one of which walks the token starts that [`Kernel::classify`] finds, while the other
//! takes the classes block by block and is compiled for each kernel by [`Kernel::run`].

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64;
/// Blocks classified at a time: small enough that text and masks stay in the first-level cache.
pub(crate) const BATCH: usize = 64;

/// A way to classify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Portable code; the definition of correct.
    Scalar,
    /// 256-bit vectors and carry-less multiplication (x86-64). Only [`Kernel::available`] hands it out.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 512-bit vectors, whose comparisons give masks at once (x86-64). Only [`Kernel::available`] hands it out.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Proof that the processor has AVX2, PCLMULQDQ and the bit instructions of their age: its field is private, so only detection can make one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that the processor has AVX-512 (F, BW and VBMI2, which packs bytes) and all that [`Avx2`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

/// A way to classify a block, as code that is compiled for one kernel sees it.
pub trait Vector: Copy {
    /// Classes of the bytes of a block.
    fn classes(self, block: &[u8; BLOCK]) -> Classes;
    /// Bit i of the result is the parity of bits 0 to i.
    fn prefix_xor(self, bits: u64) -> u64;
    /// The few classes that tell where tokens begin and which scalars are plain numbers.
    fn marks(self, block: &[u8; BLOCK]) -> BlockMarks;
    /// Packs the bytes of a block that `of` marks, [`SCALAR`] for those that `scalars` marks, and their places, `base`
    /// added. Returns how many there are; what stands behind them is anything.
    #[inline(always)]
    fn pack(
        self,
        block: &[u8; BLOCK],
        of: u64,
        scalars: u64,
        base: u16,
        bytes: &mut [u8; BLOCK],
        places: &mut [u16; BLOCK],
    ) -> usize {
        let (mut left, mut count) = (of, 0);
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            bytes[count] = if scalars >> i & 1 != 0 { SCALAR } else { block[i] };
            places[count] = base + i as u16;
            count += 1;
        }
        count
    }
    /// Bit i of the result is set where byte i of the two differs.
    fn differing(self, a: &[u8; HALF], b: &[u8; HALF]) -> u32;
}

/// Bytes that [`Vector::differing`] compares.
pub(crate) const HALF: usize = BLOCK / 2;
/// What [`Vector::pack`] writes for any number or literal.
pub(crate) const SCALAR: u8 = b'0';

/// Work that is compiled for each kernel. Its `run`, and what it calls, must be `#[inline(always)]` to be.
pub trait KernelJob {
    /// What it comes to.
    type Output;
    /// Does the work.
    fn run<V: Vector>(self, vector: V) -> Self::Output;
}

impl Kernel {
    /// Every kernel that this processor can run, the plainest first.
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

    /// The fastest of them.
    pub fn detect() -> Kernel {
        static BEST: std::sync::OnceLock<Kernel> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| *Kernel::available().last().expect("the scalar one is always there"))
    }

    /// The kernel of this name, if the processor can run it.
    pub fn named(name: &str) -> Option<Kernel> {
        Kernel::available().into_iter().find(|kernel| kernel.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(_) => "avx512",
        }
    }

    /// Runs a job as compiled for this kernel's processor.
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

    /// Classifies `text`, at most [`BATCH`] blocks of it; all but the last batch of a text must be whole blocks.
    /// Returns the number of blocks, the last of which may be partial.
    pub fn classify(self, text: &[u8], carry: &mut ClassCarry, masks: &mut Masks) -> usize {
        assert!(text.len() <= BLOCK * BATCH);
        self.run(Classify { text, carry, masks })
    }
}

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

/// What one block hands to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCarry {
    /// The next character is escaped.
    escaped: bool,
    /// All ones inside a string.
    in_string: u64,
    /// The last character belongs to a number, a literal or nothing legal.
    scalar: bool,
}

impl ClassCarry {
    /// Whether the text so far ends inside a string.
    pub fn in_string(&self) -> bool {
        self.in_string != 0
    }
}

/// The masks of a batch; bit i of a word is byte i of its block.
pub struct Masks {
    /// Starts of tokens: `{}[]:,`, opening quotes, first characters of numbers and literals.
    pub starts: [u64; BATCH],
    /// Characters behind a backslash, inside strings.
    pub escaped: [u64; BATCH],
    /// Control characters inside strings: never legal.
    pub control: [u64; BATCH],
    /// Whether any byte has its high bit set.
    pub high: bool,
    /// Whether any character is escaped.
    pub any_escaped: bool,
    /// Whether any control character stands in a string.
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

/// Classes of the bytes of a block; bit i of a word is byte i. What stands inside strings is not told apart.
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
    /// Bit 5 of the byte: tells `{` and `}` from `[` and `]`.
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

/// Some classes of the bytes of a block, as [`Classes`].
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

/// The one kind of white space that a byte may be, by its low half; elsewhere what no byte of that half is. A look-up in
/// vectors gives zero for bytes above 0x7f, which are not zero.
#[cfg(target_arch = "x86_64")]
const SPACE_BY_LOW_HALF: [u8; 16] = {
    let mut table = [0xff; 16];
    table[0] = b' ';
    table[9] = b'\t';
    table[10] = b'\n';
    table[13] = b'\r';
    table
};

/// The same of `{}[]:,`, bit 5 set.
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

/// The characters of a block that a backslash escapes, and whether the first of the next block is escaped. Backslashes
/// are rare, so they are taken one by one: each unescaped one escapes the character behind it.
#[inline(always)]
pub(crate) fn escaped_characters(backslash: u64, len: usize, carried: bool) -> (u64, bool) {
    let own = if len == BLOCK { u64::MAX } else { (1 << len) - 1 };
    let mut escaped = u64::from(carried);
    let mut left = backslash & own & !escaped;
    while left != 0 {
        let offset = left.trailing_zeros() as usize;
        if offset == len - 1 {
            return (escaped, true);
        }
        escaped |= 2 << offset;
        left &= !(3 << offset);
    }
    (escaped, false)
}

/// The part that all kernels share. Inlined into each, so that it is compiled for that kernel's processor.
#[inline(always)]
fn classify_with(text: &[u8], carry: &mut ClassCarry, masks: &mut Masks, vector: impl Vector) -> usize {
    let (mut high, mut any_escaped, mut any_control) = (0, 0, 0);
    let (blocks, tail) = text.as_chunks::<BLOCK>();
    for (i, block) in blocks.iter().enumerate() {
        let found = vector.classes(block);
        let (starts, escaped, control) = combine(found, BLOCK, carry, vector);
        masks.starts[i] = starts;
        masks.escaped[i] = escaped;
        masks.control[i] = control;
        high |= found.high;
        any_escaped |= escaped;
        any_control |= control;
    }
    let mut count = blocks.len();
    if !tail.is_empty() {
        let mut block = [b' '; BLOCK];
        block[..tail.len()].copy_from_slice(tail);
        let found = vector.classes(&block);
        let (starts, escaped, control) = combine(found, tail.len(), carry, vector);
        masks.starts[count] = starts;
        masks.escaped[count] = escaped;
        masks.control[count] = control;
        high |= found.high;
        any_escaped |= escaped;
        any_control |= control;
        count += 1;
    }
    masks.high = high != 0;
    masks.any_escaped = any_escaped != 0;
    masks.any_control = any_control != 0;
    count
}

/// What follows from the classes of a block of `len` bytes: token starts, escaped characters in strings, control
/// characters in strings.
#[inline(always)]
fn combine(found: Classes, len: usize, carry: &mut ClassCarry, vector: impl Vector) -> (u64, u64, u64) {
    let own = if len == BLOCK { u64::MAX } else { (1 << len) - 1 };
    let last = len - 1;
    let mut escaped = 0;
    if found.backslash != 0 || carry.escaped {
        (escaped, carry.escaped) = escaped_characters(found.backslash, len, carry.escaped);
    }
    let quote = found.quote & !escaped & own;
    // Set from an opening quote up to the character before the closing one.
    let in_string = vector.prefix_xor(quote) ^ carry.in_string;
    carry.in_string = 0u64.wrapping_sub(in_string >> last & 1);
    let scalar = !(found.punctuation() | found.space);
    let scalar_not_quote = scalar & !quote;
    let follows_scalar = scalar_not_quote << 1 | u64::from(carry.scalar);
    carry.scalar = scalar_not_quote >> last & 1 != 0;
    let tail_of_string = in_string ^ quote;
    let starts = (found.punctuation() | scalar & !follows_scalar) & !tail_of_string & own;
    (starts, escaped & in_string & own, found.control & in_string & own)
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
            let Pack(block, of, scalars, base, other) = self;
            let (mut bytes, mut places) = ([0; BLOCK], [0; BLOCK]);
            let count = vector.pack(block, of, scalars, base, &mut bytes, &mut places);
            let differing = vector.differing(block.first_chunk().unwrap(), other);
            (vector.marks(block), bytes[..count].to_vec(), places[..count].to_vec(), differing)
        }
    }

    fn packed(
        kernel: Kernel,
        block: &[u8; BLOCK],
        of: u64,
        scalars: u64,
        base: u16,
        other: &[u8; HALF],
    ) -> <Pack<'static> as KernelJob>::Output {
        kernel.run(Pack(block, of, scalars, base, other))
    }

    proptest! {
        /// The same of the marks, of packing, and of comparing.
        #[test]
        fn kernels_pack_alike(text in proptest::collection::vec(
            prop_oneof![prop::sample::select(br#"{}[]:,"\ .019"#.to_vec()), any::<u8>()], BLOCK),
            of in any::<u64>(), scalars in any::<u64>(), base in 0..60_000u16, again in any::<prop::sample::Index>()) {
            let block: &[u8; BLOCK] = text.first_chunk().unwrap();
            let mut other = *block.first_chunk::<HALF>().unwrap();
            other[again.index(HALF)] ^= 1;
            let expected = packed(Kernel::Scalar, block, of, scalars, base, &other);
            prop_assert_eq!(expected.3, 1 << again.index(HALF));
            for kernel in Kernel::available() {
                prop_assert_eq!(&packed(kernel, block, of, scalars, base, &other), &expected, "{}", kernel.name());
            }
        }

        /// Every kernel of this processor says what the scalar one says, on bytes dense in what matters.
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
