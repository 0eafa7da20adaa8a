//! Every bound of the crate, with the unit in its name; relations between bounds are asserted at compile time.

/// Longest line that can be a row, in bytes (row lengths are stored as `u32`). Longer lines are faults.
pub(crate) const ROW_BYTES_MAX: u64 = u32::MAX as u64;
/// Longest logical id, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 255;
/// Longest logical id that R4 allows, in bytes (`id`: `[A-Za-z0-9\-\.]{1,64}`), and longest versionId that orders as a
/// number.
pub(crate) const R4_ID_BYTES_MAX: usize = 64;
/// Longest text of a reference that is compared, in bytes of JSON text; a longer one refers to no resource.
pub(crate) const REFERENCE_BYTES_MAX: usize = 4096;
/// Most DELETE entries in one Bundle line; a Bundle with more is a fault.
pub(crate) const TOMBSTONES_PER_LINE_MAX: usize = 1 << 20;
/// First bytes of a Binary's row in which a versionId that is no number is looked for.
pub(crate) const BINARY_HEAD_BYTES: u64 = 4 << 10;
/// Size of a read of a store file that is not mapped, in bytes; longer lines are scanned in pieces of this size.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// Size of a read of a plain store file while it is indexed, in bytes: it stays in the second-level cache during the
/// scan.
pub(crate) const SCAN_BYTES: usize = 256 << 10;
/// Longest index meta file that is read, in bytes: at 64 bytes for each segment, enough for a store of 500 TB.
pub(crate) const GENERATION_BYTES_MAX: u64 = 1 << 30;
/// Longest manifest, plan, status or list of finished files that is read, in bytes: about 400 for each file of an
/// export.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// Longest list of names to pass over in a store, in bytes: some ten thousand patterns.
pub(crate) const IGNORE_FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest configuration of the service that is read, in bytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 64 << 20;
/// Longest Group file or list of patients that a verification holds, in bytes: enough for 60 million patients.
pub(crate) const POPULATION_BYTES_MAX: u64 = 4 << 30;
/// Longest line that is compared with the shapes of earlier lines, in bytes (offsets in a skeleton are `u16`).
pub(crate) const OUTLINE_BYTES_MAX: usize = 48 << 10;
/// Most tokens of a line that is compared with the shapes of earlier lines.
pub(crate) const OUTLINE_TOKENS_MAX: usize = 6 << 10;
/// Most shapes of lines that a worker caches.
pub(crate) const SHAPES_MAX: usize = 512;
/// Largest window of a zstd frame that is read, as a power of two of bytes (128 MiB, zstd's own default bound).
pub(crate) const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Most store files that a process holds open at a time; further ones are opened when they are read. A quarter of the maps
/// that Linux allows a process by default (`vm.max_map_count`), since zero pages split the map of a file in two.
pub(crate) const HELD_FILES_MAX: usize = 1 << 14;
/// Descriptors that are left for index files, outputs and sockets, unless they are more than half of all.
pub(crate) const SPARE_DESCRIPTORS: usize = 1024;
/// Most descriptors that are kept of files that are not held.
pub(crate) const RECENT_FILES_MAX: usize = 64;
/// Most threads that take the sizes and times of a store's files.
pub(crate) const STAT_THREADS_MAX: usize = 8;
/// Least files for each of these threads.
pub(crate) const STATS_PER_THREAD_MIN: usize = 500;
/// Reciprocal of the share of the held files that an index may hold that outlives the jobs of a service.
pub(crate) const LASTING_INDEX_SHARE: usize = 8;
/// Target size of the part of a store file that one segment covers, in uncompressed bytes.
pub(crate) const SEGMENT_BYTES: u64 = 32 << 20;
/// Most rows of a segment, so that the columns of the segments under construction stay small.
pub(crate) const SEGMENT_ROWS_MAX: usize = 1 << 17;
/// Most fault details that a segment stores; further faults are only counted.
pub(crate) const SEGMENT_FAULTS_MAX: usize = 1 << 14;
/// Most rows of a store: a row number must leave one bit of a `u32` free.
pub(crate) const STORE_ROWS_MAX: u64 = (1 << 31) - 2;
/// Reciprocal of the largest share of the store's patients that is selected through their postings; a larger cohort is
/// selected by a scan of the columns. The bench `select` prints where the two cross.
pub(crate) const POSTINGS_SHARE: usize = 20;
/// Deepest nesting of Groups that is followed (GROUP-03).
pub(crate) const GROUP_DEPTH_MAX: usize = 16;
/// Most problems of one Group document that are reported; one more gives the count of the others.
pub(crate) const GROUP_PROBLEMS_MAX: usize = 100;
/// Most elements of one Group document, whatever their names; R4's Group has fewer than 30.
pub(crate) const GROUP_ELEMENTS_MAX: usize = 1024;
/// Most filters of the members of one Group; each reads the rows of its type.
pub(crate) const MEMBER_FILTERS_MAX: usize = 20;
/// Most members of a Group under 1upHealth's rules (ONEUP-G02).
pub(crate) const ONEUP_GROUP_MEMBERS_MAX: u64 = 10_000;
/// Longest Group under 1upHealth's rules, in bytes without white space, 400 KB (ONEUP-G03): where it binds (ONEUP-G04).
pub(crate) const ONEUP_GROUP_BYTES_MAX: u64 = 400 << 10;
/// Most identifiers, and most codings, of a Group that a search compares; further ones are not found.
pub(crate) const GROUP_TOKENS_MAX: usize = 256;
/// Longest filter over the members of one Group, in bytes. For a Group of more members the filter has false positives,
/// whose Groups a search then reads.
pub(crate) const GROUP_FILTER_BYTES_MAX: usize = 1 << 20;
/// Most bytes of facts about the store's Groups that are held in memory; the other Groups are read for each search.
pub(crate) const GROUP_FACTS_BYTES_MAX: usize = 64 << 20;
/// Most Groups of a page of search results (`_count`).
pub(crate) const GROUP_PAGE_MAX: usize = 1000;
/// Groups of a page when `_count` is not given.
pub(crate) const GROUP_PAGE_DEFAULT: usize = 50;
/// Size of a page of search results, in bytes; the page ends with the Group that exceeds it.
pub(crate) const GROUP_PAGE_BYTES: u64 = 8 << 20;
/// Most uncompressed bytes of a file that is sent inside a Binary resource (NETSMART-G10).
pub(crate) const WRAPPED_FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest Group that is held in memory while it is sent, in bytes; a longer one is read in pieces of this size.
pub(crate) const GROUP_PIECE_BYTES: usize = 1 << 20;
/// Size of those pieces when the Group is in a compressed file, in bytes; each piece is decoded from the seek point
/// before it.
pub(crate) const GROUP_DECODED_PIECE_BYTES: usize = 8 << 20;
/// If more than one in so many members of a Group left since the export that an increment builds on, that is a warning.
pub(crate) const MEMBERS_LEFT_SHARE: u64 = 10;

/// Most messages of one cause in the `error` files; one more line gives the count (OUTCOME-06).
pub(crate) const MESSAGES_PER_CAUSE_MAX: usize = 100;
/// Most wrong lines of a list of patients that are named; of others their number is told.
pub(crate) const LINES_NAMED_MAX: usize = 5;
/// Most characters of a member's reference that a message repeats; a longer one is cut.
pub(crate) const REFERENCE_CHARS_TOLD_MAX: usize = 100;
/// Most files that are named when resources are gone from a store; of others their number is told.
pub(crate) const GONE_FILES_NAMED_MAX: usize = 5;
/// Most DELETE entries in a Bundle of the `deleted` files (DELETED-07).
pub(crate) const DELETED_ENTRIES_MAX: usize = 1000;
/// Most problems of one source that an import lists; further ones are only counted.
pub(crate) const IMPORT_PROBLEMS_TOLD_MAX: usize = 100;
/// Bytes of a source whose rows one thread converts at a time, but for a row that is longer.
pub(crate) const IMPORT_BATCH_BYTES: usize = 2 << 20;
/// Most fullUrls whose rows a thread remembers during an import.
pub(crate) const IMPORT_LINKS_CACHED_MAX: usize = 1 << 14;
/// Longest row that an import holds in memory, in bytes; a longer one passes through a file without a name.
pub(crate) const IMPORT_ROW_HELD_MAX: usize = 16 << 20;
/// Longest Bundle without its entries, in bytes.
pub(crate) const BUNDLE_HEAD_BYTES_MAX: usize = 16 << 20;
/// Bytes of appended lines that are gathered before they are synced to the disk.
pub(crate) const APPEND_GROUP_BYTES: usize = 1 << 20;
/// Longest line that is appended, in bytes: it is held in memory until it is checked.
pub(crate) const APPEND_LINE_BYTES_MAX: usize = 256 << 20;
/// Buffer that scattered rows are collected in before a write, in bytes.
pub(crate) const GATHER_BYTES: usize = 256 << 10;
/// Input of one block of a compressed output file, in bytes; the same for every compressor.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;
/// Most differences of one rule that a verification lists; further ones are only counted.
pub(crate) const DIFFERENCES_PER_RULE_MAX: usize = 100;
/// Most threads of a command or of the service: each has a stack and buffers of its own, and more than a processor has are
/// of no use.
pub(crate) const THREADS_MAX: usize = 1024;
/// Longest record of a job, of a plan or of finished files that is read, in bytes: ten times that of 100,000 files.
pub(crate) const RECORD_BYTES_MAX: u64 = 1 << 30;
/// Bytes of the description of an export on which increments may build, at most: its longest part is a list of types.
pub(crate) const BASELINE_RECORD_BYTES_MAX: u64 = 1 << 20;
/// Exports of one client whose patients are kept for increments, at most, over all its Groups.
pub(crate) const BASELINES_PER_CLIENT_MAX: usize = 1000;
/// Seconds for which the patients of an export are kept for increments, at most: 400 days, so that a yearly one is served.
pub(crate) const BASELINE_SECONDS_MAX: i64 = 400 * 24 * 3600;
/// Longest line that a verification holds for the JSON oracle, in bytes; a longer one passes the scanner in pieces.
pub(crate) const LINE_HELD_MAX: usize = 16 << 20;
/// Most events that `synth` holds at a time when rows are in order of arrival; 16 bytes each.
pub(crate) const SYNTH_EVENTS_MAX: u64 = 1 << 21;
/// Target size of a data file of a packed store, in uncompressed bytes.
pub(crate) const PACKED_FILE_BYTES: u64 = 1 << 30;
/// Most rows (and DELETE entries) of a data file of a packed store, so that its seek table stays small.
pub(crate) const PACKED_ROWS_MAX: u64 = 1 << 22;
/// Most frames of a data file of a packed store.
pub(crate) const PACKED_FRAMES_MAX: u64 = 1 << 22;
/// Most damaged ranges that a pack lists; further ones are only counted.
pub(crate) const PACK_DAMAGE_TOLD_MAX: usize = 20;
/// Target size of a frame of a packed store, in uncompressed bytes; only a longer row makes a longer frame.
pub(crate) const FRAME_BYTES: u64 = 64 << 10;
/// Least bytes of the rows of one patient and type that get frames of their own; fewer share a frame with other
/// patients.
pub(crate) const FRAME_PATIENT_BYTES_MIN: u64 = 16 << 10;
/// The same of a store packed in gzip. Deflate loses less by short segments than zstd does by short frames (a window of 32
/// KiB), and a segment of several patients is coded again at a third of the speed.
pub(crate) const DEFLATE_PATIENT_BYTES_MIN: u64 = 6 << 10;
/// Longest frame of a packed file that is held in memory, compressed or not, in bytes.
pub(crate) const FRAME_HELD_MAX: u64 = 16 << 20;
/// Longest query string that is read, in bytes: as long as a URL that the HTTP library accepts.
pub(crate) const QUERY_BYTES_MAX: usize = 64 << 10;
/// Most parameters of a query string.
pub(crate) const QUERY_PARAMETERS_MAX: usize = 1000;
/// Most problems of one kick-off that are reported; one more gives the count of the others.
pub(crate) const KICKOFF_PROBLEMS_MAX: usize = 100;
/// Most characters of a name or value of a request that are repeated in a response.
pub(crate) const SHOWN_CHARS_MAX: usize = 64;
/// Default bound of an output file, in uncompressed bytes (FILE-12).
pub(crate) const FILE_BYTES_DEFAULT: u64 = 256 << 20;
/// Bytes of a stored file that are handed to a connection at a time: enough that the cost of the calls is small, and
/// few enough that one fast reader does not hold a thread of the runtime.
pub(crate) const SENT_BYTES: u64 = 1 << 20;
/// Bytes of a stored file that are read from the disk at a time before they are sent, when they are not in memory.
pub(crate) const FETCHED_BYTES: u64 = 4 << 20;
/// Bytes of a file that are read or decoded at a time, when they cannot be sent from the file itself.
pub(crate) const DECODED_BYTES: usize = 256 << 10;
/// Threads that verify secrets against argon2id hashes; each retains the memory of the largest hash it has verified.
pub(crate) const ARGON2_THREADS: usize = 2;
/// Most verifications that wait for one of these threads; further ones get status 503.
pub(crate) const ARGON2_QUEUE_MAX: usize = 32;
/// Most memory that an argon2id hash may require, in KiB.
pub(crate) const ARGON2_KIB_MAX: u32 = 64 << 10;
/// Most passes over its memory that an argon2id hash may require.
pub(crate) const ARGON2_PASSES_MAX: u32 = 8;
/// Most lanes that an argon2id hash may require.
pub(crate) const ARGON2_LANES_MAX: u32 = 4;
/// Most secrets that are cached as verified, 32 bytes each; when more come, the cache is cleared and all are verified
/// again.
pub(crate) const PROVEN_SECRETS_MAX: usize = 1 << 14;
/// Longest credential that is verified, in bytes of its header.
pub(crate) const CREDENTIAL_BYTES_MAX: usize = 512;
/// Longest access token that is verified, in bytes of its header: one with a scope for each type.
pub(crate) const ACCESS_TOKEN_BYTES_MAX: usize = 16 << 10;
/// Longest body of a token request, in bytes.
pub(crate) const TOKEN_REQUEST_BYTES_MAX: usize = 32 << 10;
/// Most scopes of a token request: each type of R4 in both versions of SMART, and the wildcards.
pub(crate) const SCOPES_MAX: usize = 300;
/// Longest life of an assertion, in seconds (AUTH-06).
pub(crate) const ASSERTION_LIFETIME_SECONDS_MAX: u64 = 300;
/// Longest `jti` of an assertion, in bytes.
pub(crate) const JTI_BYTES_MAX: usize = 512;
/// Most bytes of a JSON Web Key Set.
pub(crate) const JWKS_BYTES_MAX: u64 = 256 << 10;
/// Most keys of a JSON Web Key Set.
pub(crate) const JWKS_KEYS_MAX: usize = 100;
/// Longest time for a JSON Web Key Set to arrive, redirects included, in seconds.
pub(crate) const JWKS_FETCH_SECONDS: u64 = 10;
/// Most redirects on the way to a JSON Web Key Set.
pub(crate) const JWKS_REDIRECTS_MAX: usize = 3;
/// Longest time for which a JSON Web Key Set is kept, whatever its answer says, in seconds.
pub(crate) const JWKS_LIFETIME_SECONDS_MAX: u64 = 3600;
/// Bytes of the modulus of an RSA key: 2048 to 8192 bits, which the cryptography checks.
pub(crate) const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Most used assertions that are remembered at a time; further token requests get status 503.
pub(crate) const REPLAY_RECORDS_MAX: usize = 4 << 20;
/// Most bytes of a file of used assertions that are read at the start.
pub(crate) const REPLAY_FILE_BYTES_MAX: u64 = 1 << 30;
/// Longest lifetime of a token that is made with an expiry, in days.
pub(crate) const CREDENTIAL_LIFETIME_DAYS_MAX: i64 = 36500;
/// Longest name of a client, a tenant or a token, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Longest id in client headers, in bytes.
pub(crate) const CLIENT_ID_BYTES_MAX: usize = 128;
/// Bytes that a TLS connection encrypts at a time: the default buffer of rustls for a response.
pub(crate) const SEALED_BYTES: usize = 64 << 10;
/// Most bytes of a file with a certificate and its chain, or with a key.
pub(crate) const TLS_FILE_BYTES_MAX: u64 = 1 << 20;
/// Most concurrent requests of one HTTP/2 connection: the least that RFC 9113 section 6.5.2 recommends.
pub(crate) const STREAMS_MAX: u32 = 100;
/// A clock that is more seconds behind the last transactionTime given out is reported to the operator: it was set back.
pub(crate) const CLOCK_BACK_SECONDS: i64 = 300;

const _: () = assert!(ROW_BYTES_MAX <= u32::MAX as u64, "row lengths are stored as u32");
const _: () = assert!(OUTLINE_BYTES_MAX + 64 <= 1 << 16, "places in an outline are u16");
const _: () = assert!(SEGMENT_BYTES + ROW_BYTES_MAX <= u64::MAX / 2);
const _: () = assert!(SEGMENT_ROWS_MAX <= u32::MAX as usize / 4, "rows of an extent are numbered in u32");
const _: () = assert!(STORE_ROWS_MAX < 1 << 31, "the top bit of a row number marks a tombstone");
const _: () = assert!(GATHER_BYTES <= BLOCK_BYTES);
const _: () = assert!(2 * FRAME_BYTES < FRAME_HELD_MAX && FRAME_PATIENT_BYTES_MIN <= FRAME_BYTES);
const _: () = assert!(PACKED_FRAMES_MAX * 52 + PACKED_ROWS_MAX * 8 < u32::MAX as u64, "a table is one skippable frame");
