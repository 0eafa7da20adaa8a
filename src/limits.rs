//! Every bound of the project, unit in the name; relations between them are asserted at compile time.

/// Longest line that can be a row, in bytes (row lengths are stored as `u32`). Longer lines are faults.
pub(crate) const ROW_BYTES_MAX: u64 = u32::MAX as u64;
/// Longest FHIR id, in bytes (R4 `id`: `[A-Za-z0-9\-\.]{1,64}`).
pub(crate) const ID_BYTES_MAX: usize = 64;
/// Longest text of one reference that is looked at, in bytes of JSON text; longer ones match nobody.
pub(crate) const REFERENCE_BYTES_MAX: usize = 4096;
/// Most DELETE entries in one Bundle line; a Bundle with more is a fault.
pub(crate) const TOMBSTONES_PER_LINE_MAX: usize = 1 << 20;
/// Size of a read from a store file that is not mapped, in bytes; longer lines are scanned in pieces of this size.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// Size of a read of a plain store file that is indexed, in bytes: it stays in the second-level cache while it is scanned.
pub(crate) const SCAN_BYTES: usize = 256 << 10;
/// Longest file of an index's generation that is read, in bytes: 64 for each segment, so that of 500 TB of store.
pub(crate) const GENERATION_BYTES_MAX: u64 = 1 << 30;
/// Longest manifest, plan, status or list of finished files that is read, in bytes: some 400 for each file of an export.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// Longest configuration of the service that is read, in bytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 64 << 20;
/// Longest Group file or list of patients that a verification holds, in bytes: a list of 60 million.
pub(crate) const POPULATION_BYTES_MAX: u64 = 4 << 30;
/// Longest line that is held against the shapes of lines before, in bytes (places in it are `u16`).
pub(crate) const OUTLINE_BYTES_MAX: usize = 48 << 10;
/// Most tokens of such a line.
pub(crate) const OUTLINE_TOKENS_MAX: usize = 6 << 10;
/// Most shapes of lines that a worker remembers.
pub(crate) const SHAPES_MAX: usize = 512;
/// Largest window of a zstd frame that is read, as a power of two of bytes (128 MiB, zstd's own default bound).
pub(crate) const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Span of a store file that one segment aims at, in (uncompressed) bytes.
pub(crate) const SEGMENT_BYTES: u64 = 32 << 20;
/// Most rows of one segment, so that the columns of the segments being built stay small.
pub(crate) const SEGMENT_ROWS_MAX: usize = 1 << 17;
/// Most fault details that one segment keeps; further faults are counted only.
pub(crate) const SEGMENT_FAULTS_MAX: usize = 1 << 14;
/// Most rows of a store: a row number must leave one bit of a `u32` free.
pub(crate) const STORE_ROWS_MAX: u64 = (1 << 31) - 2;
/// A cohort of at most one in so many patients of the store is selected from its members' side, a larger one by a pass
/// over the columns. The bench `select` prints where the two cross.
pub(crate) const POSTINGS_SHARE: usize = 20;
/// Deepest nesting of Groups that is followed (GROUP-03).
pub(crate) const GROUP_DEPTH_MAX: usize = 16;
/// Most problems of one Group document that are told; one more gives the count of the others.
pub(crate) const GROUP_PROBLEMS_MAX: usize = 100;
/// Most elements of one Group document, whatever their names; R4's Group has fewer than 30.
pub(crate) const GROUP_ELEMENTS_MAX: usize = 1024;
/// Most members of a Group under 1upHealth's rules (ONEUP-G02).
pub(crate) const ONEUP_GROUP_MEMBERS_MAX: u64 = 10_000;
/// Longest Group under 1upHealth's rules, in bytes without white space, 400 KB (ONEUP-G03): where it binds (ONEUP-G04).
pub(crate) const ONEUP_GROUP_BYTES_MAX: u64 = 400 << 10;
/// Most identifiers, and most codings, of a Group that a search looks at; further ones are not found.
pub(crate) const GROUP_TOKENS_MAX: usize = 256;
/// Longest filter over the members of one Group, in bytes: a search reads a Group of more members when it need not have.
pub(crate) const GROUP_FILTER_BYTES_MAX: usize = 1 << 20;
/// Bytes of facts about the store's Groups that are kept in memory; the other Groups are read for each search.
pub(crate) const GROUP_FACTS_BYTES_MAX: usize = 64 << 20;
/// Most Groups of a page of search results (`_count`).
pub(crate) const GROUP_PAGE_MAX: usize = 1000;
/// Groups of a page when `_count` is not given.
pub(crate) const GROUP_PAGE_DEFAULT: usize = 50;
/// A page ends with the Group that takes it past so many bytes.
pub(crate) const GROUP_PAGE_BYTES: u64 = 8 << 20;
/// Most uncompressed bytes of a file that is sent inside a Binary resource (NETSMART-G10).
pub(crate) const WRAPPED_FILE_BYTES_MAX: u64 = 1 << 20;
/// A Group of more bytes is not held when it is sent, but read in pieces of this size.
pub(crate) const GROUP_PIECE_BYTES: usize = 1 << 20;
/// Size of those pieces when the Group lies in a compressed file, each of which is decoded from the last restart.
pub(crate) const GROUP_DECODED_PIECE_BYTES: usize = 8 << 20;
/// Most messages of one cause in the `error` files; one more line gives the count (OUTCOME-06).
pub(crate) const MESSAGES_PER_CAUSE_MAX: usize = 100;
/// Most DELETE entries in a Bundle of the `deleted` files (DELETED-07).
pub(crate) const DELETED_ENTRIES_MAX: usize = 1000;
/// Buffer that scattered rows are gathered in before a write, in bytes.
pub(crate) const GATHER_BYTES: usize = 256 << 10;
/// Input of one block of a compressed output file, in bytes, whoever compresses it.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;
/// Most differences of one rule that a verification lists; further ones are counted only.
pub(crate) const DIFFERENCES_PER_RULE_MAX: usize = 100;
/// Longest record that is read (of a job, of a run's plan or of its finished files), in bytes: ten times that of 100,000 files.
pub(crate) const RECORD_BYTES_MAX: u64 = 1 << 30;
/// Longest line that a verification holds for a second opinion, in bytes; a longer one passes the scanner in pieces.
pub(crate) const LINE_HELD_MAX: usize = 16 << 20;
/// Events that `synth` holds at a time where rows stand in order of arrival: 16 bytes each.
pub(crate) const SYNTH_EVENTS_MAX: u64 = 1 << 21;
/// Uncompressed bytes that a data file of a packed store aims at.
pub(crate) const PACKED_FILE_BYTES: u64 = 1 << 30;
/// Most rows (and DELETE entries) of a data file of a packed store, so that its table stays small.
pub(crate) const PACKED_ROWS_MAX: u64 = 1 << 22;
/// Most frames of a data file of a packed store.
pub(crate) const PACKED_FRAMES_MAX: u64 = 1 << 22;
/// Most places of damage that a pack names; further ones are counted only.
pub(crate) const PACK_DAMAGE_TOLD_MAX: usize = 20;
/// Uncompressed bytes that a frame of a packed store aims at; only a longer row makes a longer frame.
pub(crate) const FRAME_BYTES: u64 = 64 << 10;
/// Rows of one patient and type that come to less share a frame with those of other patients, in bytes.
pub(crate) const FRAME_PATIENT_BYTES_MIN: u64 = 16 << 10;
/// Longest frame of a packed file that is held as a whole, compressed or not, in bytes.
pub(crate) const FRAME_HELD_MAX: u64 = 16 << 20;
/// Longest query string that is read, in bytes: as long as a URL that the HTTP library takes.
pub(crate) const QUERY_BYTES_MAX: usize = 64 << 10;
/// Most parameters of a query string.
pub(crate) const QUERY_PARAMETERS_MAX: usize = 1000;
/// Most problems of one kick-off that are told; one more gives the count of the others.
pub(crate) const KICKOFF_PROBLEMS_MAX: usize = 100;
/// Most characters of a name or value of a request that are repeated in an answer.
pub(crate) const SHOWN_CHARS_MAX: usize = 64;
/// Default bound of an output file, in uncompressed bytes (FILE-12).
pub(crate) const FILE_BYTES_DEFAULT: u64 = 256 << 20;
/// Bytes of a stored file that are handed to a connection at a time: long enough that the calls do not count, short
/// enough that one fast reader does not hold a thread of the runtime.
pub(crate) const SENT_BYTES: u64 = 1 << 20;
/// Bytes of a stored file that are read from the disk before they are sent, when they are not in memory yet.
pub(crate) const FETCHED_BYTES: u64 = 4 << 20;
/// Bytes of a file that are read or decoded at a time, where they cannot be sent from the file itself.
pub(crate) const DECODED_BYTES: usize = 256 << 10;
/// Threads that check secrets against argon2id hashes; each keeps the memory of the largest that it has met.
pub(crate) const ARGON2_THREADS: usize = 2;
/// Most checks that wait for one of these threads; more are answered 503.
pub(crate) const ARGON2_QUEUE_MAX: usize = 32;
/// Most memory that an argon2id hash may ask for, in KiB.
pub(crate) const ARGON2_KIB_MAX: u32 = 64 << 10;
/// Most passes that it may ask for over that memory.
pub(crate) const ARGON2_PASSES_MAX: u32 = 8;
/// Most lanes that it may ask for.
pub(crate) const ARGON2_LANES_MAX: u32 = 4;
/// Most secrets that are remembered as proven; then all of them prove themselves again. 32 bytes each.
pub(crate) const PROVEN_SECRETS_MAX: usize = 1 << 14;
/// Longest credential that is looked at, in bytes of its header.
pub(crate) const CREDENTIAL_BYTES_MAX: usize = 512;
/// Longest lifetime of a token that is made with one, in days.
pub(crate) const CREDENTIAL_LIFETIME_DAYS_MAX: i64 = 36500;
/// Longest name of a client, a tenant or a token, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Longest id in client headers, in bytes.
pub(crate) const CLIENT_ID_BYTES_MAX: usize = 128;
/// Bytes that a TLS connection encrypts at a time: what rustls holds of an answer by default.
pub(crate) const SEALED_BYTES: usize = 64 << 10;
/// Most bytes of a file with a certificate and its chain, or with a key.
pub(crate) const TLS_FILE_BYTES_MAX: u64 = 1 << 20;
/// Most requests that one HTTP/2 connection has under way: the least that RFC 9113 section 6.5.2 recommends.
pub(crate) const STREAMS_MAX: u32 = 100;

const _: () = assert!(ROW_BYTES_MAX <= u32::MAX as u64, "row lengths are stored as u32");
const _: () = assert!(OUTLINE_BYTES_MAX + 64 <= 1 << 16, "places in an outline are u16");
const _: () = assert!(SEGMENT_BYTES + ROW_BYTES_MAX <= u64::MAX / 2);
const _: () = assert!(SEGMENT_ROWS_MAX <= u32::MAX as usize / 4, "rows of an extent are numbered in u32");
const _: () = assert!(STORE_ROWS_MAX < 1 << 31, "the top bit of a row number marks a tombstone");
const _: () = assert!(GATHER_BYTES <= BLOCK_BYTES);
const _: () = assert!(2 * FRAME_BYTES < FRAME_HELD_MAX && FRAME_PATIENT_BYTES_MIN <= FRAME_BYTES);
const _: () = assert!(PACKED_FRAMES_MAX * 48 + PACKED_ROWS_MAX * 8 < u32::MAX as u64, "a table is one skippable frame");
