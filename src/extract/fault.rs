//! The faults of a line: kinds with their stored numbers, names and messages.

/// A fault of a line. It is data to report; it does not end indexing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Kind of the fault.
    pub kind: FaultKind,
    /// Offset in the line at which it was noticed, in bytes.
    pub at: u64,
}

macro_rules! kinds {
    ($($kind:ident $name:literal $text:literal;)*) => {
        /// Kinds of faults. Their numbers, in this order from 0, are stored in indexes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum FaultKind { $($kind),* }

        impl FaultKind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$kind),*];

            /// Short name of the kind for machines.
            pub fn name(self) -> &'static str {
                match self { $(FaultKind::$kind => $name),* }
            }
        }

        /// The fault and its remedy, without any of the line's content (OUTCOME-05).
        impl std::fmt::Display for FaultKind {
            /// Writes what is wrong with a faulty line of this kind, and what to do.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(FaultKind::$kind => $text),* })
            }
        }
    };
}

kinds! {
    Utf8 "utf8" "the line is not UTF-8; convert it";
    Bom "bom" "a byte order mark stands where only the start of a file may have one; remove it";
    Truncated "truncated" "the line ends inside its resource; write it again as a whole";
    NotObject "not-object" "the line is no JSON object; write one resource a line";
    Trailing "trailing" "something follows the resource on its line; write one resource a line";
    Grammar "grammar" "the line is no JSON here (RFC 8259)";
    Scalar "scalar" "no JSON number or literal stands here (RFC 8259)";
    Escape "escape" "an escape that JSON does not have stands here (RFC 8259)";
    Control "control" "an unescaped control character stands in a string (RFC 8259)";
    DuplicateKey "duplicate-key" "a key that decides what the resource is or whose it is stands twice in one object; parsers disagree on which one holds";
    NoType "no-type" "the object has no resourceType that is a string";
    UnknownType "unknown-type" "the resourceType is none of FHIR R4";
    NoId "no-id" "the resource has no id that is a string";
    IllegalId "illegal-id" "the id is not legal: 1 to 255 letters, digits, '-', '.', '_' and '~' (by R4's rule, where that is chosen, 1 to 64 letters, digits, '-' and '.')";
    Bundle "bundle" "a Bundle that is no list of deletions cannot be exported; take it apart, one resource a line";
    BundleUrl "bundle-url" "a deletion does not name one resource as Type/id";
    BundleTooLong "bundle-too-long" "a Bundle has more DELETE entries than one line may have; split it";
    TooLong "too-long" "the line is longer than 4 GiB; split the resource";
    Damaged "damaged" "the compressed file is damaged or cut off here; what stands behind is not exported; write the file again";
    DamagedFrame "damaged-frame" "a frame of the packed file is damaged, and its rows are lost; put the file back from a copy, or pack again";
    DamagedTable "damaged-table" "the table at the end of the packed file is damaged or missing: its rows are read all the same, but not whose its deletions were, nor what came late; put the file back from a copy, or pack again";
    Unproven "unproven" "a gzip member or zstd frame fails its checksum or is cut off, so none of its lines is exported, nor what stands behind it; restore the file, and append whole members only";
    LoneSurrogate "lone-surrogate" "an escape is half of a surrogate pair, which many JSON readers refuse together with its file (RFC 8259, 8.2); write the character whole";
}
