//! The search columns of an index: opened on first use, listed, dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use crate::fhir::search::parameter::{ParameterName, SearchParameter};
use crate::hash::xxh3_64;
use crate::index::dir::{IndexDir, PART, is_absence};
use crate::index::meta::IndexMeta;
use crate::index::search::column_file::{ColumnFile, SegmentKey};
use crate::index::search::section::ColumnSection;
use crate::index::snapshot_record::RecordedRules;
use crate::store::SearchColumnOptions;

/// First part of the names of the files; then the parameter, and a number that grows.
pub(crate) const COLUMN_FILES: &str = "search-";
/// Name of the file that lists the columns which are always kept.
const LISTED: &str = "search-listed";
/// Version of what is kept of a value: another one makes columns again.
const VERSION: u32 = 1;
/// Attempts to open files that another process joins meanwhile.
const ATTEMPTS: usize = 4;

/// The search columns of an index.
pub(crate) struct SearchColumns {
    pub(in crate::index::search) dir: Arc<IndexDir>,
    /// The rules by which lines are rows.
    rules: String,
    /// Which columns are made when a filter asks for them.
    options: SearchColumnOptions,
    opened: Mutex<HashMap<ParameterName, Arc<ParameterColumn>>>,
}

/// The column of one parameter: files, the newest last.
pub(crate) struct ParameterColumn {
    pub(in crate::index::search) files: Vec<(String, ColumnFile)>,
}

/// A column on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredColumn {
    /// Its parameter.
    pub name: ParameterName,
    /// Names of its files.
    pub files: Vec<String>,
    /// When it was last used, in nanoseconds since the Unix epoch.
    pub last_use: i64,
}

impl ParameterColumn {
    /// The section of a segment; `None` if there is none, or it is damaged.
    pub(crate) fn section(&self, key: &SegmentKey) -> Option<ColumnSection<'_>> {
        self.files.iter().rev().find_map(|(_, file)| file.section(key))
    }

    /// Bytes of the files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, file)| file.len()).sum()
    }
}

impl SearchColumns {
    /// The columns in the directory of an index.
    pub(crate) fn new(dir: Arc<IndexDir>, meta: &IndexMeta) -> SearchColumns {
        let rules = format!("{:?} {:?}", RecordedRules::of(meta.rules), meta.unproven);
        SearchColumns { dir, rules, options: SearchColumnOptions::default(), opened: Mutex::default() }
    }

    /// The same columns, of which these are made when a filter asks for them.
    pub(crate) fn with_options(self, options: SearchColumnOptions) -> SearchColumns {
        SearchColumns { options, ..self }
    }

    /// Which columns may be made when a filter asks for them: those that are listed, and whether others may, too. `None` if the
    /// index does not outlive the process, or its disk is too full.
    pub(crate) fn made_for_filters(&self) -> Option<(BTreeSet<ParameterName>, bool)> {
        let used = self.dir.used_hundredths()?;
        (used < self.options.disk_high_water).then(|| (self.kept(), self.options.others_max > 0))
    }

    /// The columns that are never dropped for others.
    fn kept(&self) -> BTreeSet<ParameterName> {
        self.listed().into_iter().chain(self.options.listed.iter().copied()).collect()
    }

    /// The columns that are listed: they are completed whenever the index is, and never dropped for others.
    pub(crate) fn listed(&self) -> BTreeSet<ParameterName> {
        let bytes = self.dir.read(LISTED).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().filter_map(ParameterName::parse).collect()
    }

    /// Changes which columns are listed, and returns those that are then; waits for other writers.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub(crate) fn change_list(
        &self,
        change: impl Fn(&mut BTreeSet<ParameterName>),
    ) -> io::Result<BTreeSet<ParameterName>> {
        let _lock = self.dir.lock_columns(true)?;
        let before = self.listed();
        let mut listed = before.clone();
        change(&mut listed);
        if listed != before {
            let text: String = listed.iter().map(|name| format!("{name}\n")).collect();
            self.dir.create(&format!("{LISTED}{PART}"))?.write_all(text.as_bytes())?;
            self.dir.rename(&format!("{LISTED}{PART}"), LISTED)?;
        }
        Ok(listed)
    }

    /// Drops columns that are not listed, those first that were not used for longest, until no more are left than may be.
    pub(crate) fn drop_least_used(&self) {
        let kept = self.kept();
        let mut others: Vec<StoredColumn> = self.stored();
        others.retain(|stored| !kept.contains(&stored.name));
        others.sort_by_key(|stored| std::cmp::Reverse(stored.last_use));
        others.iter().skip(self.options.others_max).for_each(|stored| self.drop_column(stored));
    }

    /// Hash of all that the column of a parameter depends on beside the bytes of the store.
    pub(in crate::index::search) fn definition(&self, name: ParameterName, parameter: &SearchParameter) -> u64 {
        xxh3_64(format!("{VERSION} {name} {parameter:?} {}", self.rules).as_bytes())
    }

    /// The column of a parameter, opened on first use; one without files if there is none.
    pub(crate) fn column(&self, name: ParameterName, parameter: &SearchParameter) -> Arc<ParameterColumn> {
        let mut opened = self.opened.lock().expect("no thread panics with the lock");
        opened.entry(name).or_insert_with(|| Arc::new(self.open(name, parameter))).clone()
    }

    /// Opens the files of a parameter that are of use.
    fn open(&self, name: ParameterName, parameter: &SearchParameter) -> ParameterColumn {
        let definition = self.definition(name, parameter);
        let mut files = Vec::new();
        for _ in 0..ATTEMPTS {
            files.clear();
            let mut is_joined = false;
            for file in self.stored().into_iter().filter(|stored| stored.name == name).flat_map(|stored| stored.files) {
                match self.dir.open(&file) {
                    Ok(bytes) => files.extend(ColumnFile::open(bytes, definition).ok().map(|opened| (file, opened))),
                    Err(error) => is_joined |= is_absence(&error),
                }
            }
            if !is_joined {
                break;
            }
        }
        if let Some((newest, _)) = files.last() {
            self.dir.mark_used(newest);
        }
        ParameterColumn { files }
    }

    /// Forgets what is opened of a parameter: there is a newer file.
    pub(in crate::index::search) fn reopen(&self, name: ParameterName) {
        self.opened.lock().expect("no thread panics with the lock").remove(&name);
    }

    /// The columns on disk, by parameter.
    pub(crate) fn stored(&self) -> Vec<StoredColumn> {
        let mut stored: BTreeMap<ParameterName, StoredColumn> = BTreeMap::new();
        for file in self.dir.names_with(COLUMN_FILES) {
            let Some(name) = parameter_of(&file) else { continue };
            let last_use = self.dir.last_use(&file);
            let entry = stored.entry(name).or_insert(StoredColumn { name, files: Vec::new(), last_use });
            entry.last_use = entry.last_use.max(last_use);
            entry.files.push(file);
        }
        stored.into_values().collect()
    }

    /// Removes the files of a column. Who has it open keeps it.
    pub(crate) fn drop_column(&self, stored: &StoredColumn) {
        stored.files.iter().for_each(|file| self.dir.remove(file));
        self.reopen(stored.name);
    }
}

/// Name of file number `number` of a parameter.
pub(in crate::index::search) fn file_name(name: ParameterName, number: u64) -> String {
    format!("{COLUMN_FILES}{name}-{number:012}")
}

/// The number of a file.
pub(in crate::index::search) fn number_of(file: &str) -> Option<u64> {
    file.rsplit_once('-')?.1.parse().ok()
}

/// Whether a file of the index directory has this name because it is of a search column.
pub(crate) fn is_column_file(file: &str) -> bool {
    parameter_of(file).is_some()
}

/// The parameter that a file is of; `None` for any other file.
fn parameter_of(file: &str) -> Option<ParameterName> {
    let (name, number) = file.strip_prefix(COLUMN_FILES)?.rsplit_once('-')?;
    let is_number = number.len() >= 12 && number.bytes().all(|byte| byte.is_ascii_digit());
    ParameterName::parse(name).filter(|parsed| is_number && parsed.to_string() == name)
}
