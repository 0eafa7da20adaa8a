//! One export request, answered by the naive oracle and by the binary, and a comparison of the two answers. Any
//! difference fails the test that asked for it. How the oracle finds its answer is in `naive`.

use crate::naive::associated::Associated;
use crate::naive::store::Store;
use crate::naive::{self, Answer, Members, Predicate, Request, Who};
use crate::run::{self, Bounds, Export, Run};
use std::collections::BTreeSet;
use std::path::Path;

/// A request to be answered twice, in terms of the command line.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub who: Who,
    pub as_of: String,
    pub since: Option<String>,
    pub until: Option<String>,
    pub types: Option<String>,
    pub members: Option<Members>,
    pub bases: Vec<String>,
    pub missing_included: bool,
    /// File and line number of rows first seen after `since`.
    pub late: BTreeSet<(String, u64)>,
    pub late_included: bool,
    pub bounds: Bounds,
    /// Ids of patients to whom it is restricted.
    pub only: Option<Vec<&'static str>>,
    /// Provenance of what is exported.
    pub associated: Option<Associated>,
    /// Filters: the text, the type, and what a resource must meet.
    pub filters: Vec<(&'static str, &'static str, Predicate)>,
    /// Whether referenced context is exported.
    pub context: bool,
    /// Further arguments for the binary, which do not change the answer.
    pub more: Vec<String>,
}

impl Comparison {
    /// A request without filters, under default policies and bounds.
    pub(crate) fn new(who: Who, as_of: &str) -> Comparison {
        Comparison {
            who,
            as_of: as_of.to_string(),
            since: None,
            until: None,
            types: None,
            members: None,
            bases: Vec::new(),
            missing_included: true,
            late: BTreeSet::new(),
            late_included: true,
            bounds: Bounds::DEFAULT,
            only: None,
            associated: None,
            filters: Vec::new(),
            context: false,
            more: Vec::new(),
        }
    }

    /// Adds arguments for the binary that do not change the answer.
    pub(crate) fn with(mut self, more: &[&str]) -> Comparison {
        self.more.extend(more.iter().map(|word| word.to_string()));
        self
    }

    /// The request in the form of the oracle.
    pub(crate) fn request(&self) -> Request {
        let mut request = Request::new(self.who.clone(), &self.as_of);
        if let Some(since) = &self.since {
            request = request.since(since);
        }
        if let Some(until) = &self.until {
            request = request.until(until);
        }
        if let Some(types) = &self.types {
            request = request.types(types);
        }
        request.members = self.members.unwrap_or(Members::Listed);
        request.missing_included = self.missing_included;
        request.context = self.context;
        request.associated = self.associated;
        request.filters = self.filters.iter().map(|(_, of, meets)| (*of, *meets)).collect();
        request.only = self.only.as_ref().map(|ids| ids.iter().map(|id| id.to_string()).collect());
        request.late = self.late.clone();
        request.late_included = self.late_included;
        // The stores of these tests only gain files.
        request.replaced = false;
        request
    }

    /// The arguments of `outpour export` after `--store` and `--out`; Groups and patient lists become files in
    /// `scratch`.
    pub(crate) fn args(&self, scratch: &Path) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|word| word.to_string()));
        match &self.who {
            Who::GroupId(id) => add(&["--group", id]),
            Who::GroupFile(group) => {
                let file = scratch.join("Group.json");
                std::fs::write(&file, group.to_string()).unwrap();
                add(&["--group", file.to_str().unwrap()]);
            }
            Who::Patients(list) => {
                let file = scratch.join("patients.txt");
                std::fs::write(&file, list.join("\n") + "\n").unwrap();
                add(&["--patients", file.to_str().unwrap()]);
                if list.iter().all(|line| line.trim().is_empty()) {
                    add(&["--allow-empty"]);
                }
            }
            Who::AllPatients => add(&["--all-patients"]),
            Who::System => add(&["--system"]),
        }
        add(&["--as-of", &self.as_of]);
        for (flag, value) in [("--since", &self.since), ("--until", &self.until), ("--type", &self.types)] {
            if let Some(value) = value {
                add(&[flag, value]);
            }
        }
        match self.members {
            Some(Members::Listed) => add(&["--members", "listed"]),
            Some(Members::Active) => add(&["--members", "active"]),
            None => {}
        }
        for base in &self.bases {
            add(&["--fhir-base", base]);
        }
        if let Some(ids) = &self.only {
            add(&["--patient", &ids.join(",")]);
        }
        for (text, ..) in &self.filters {
            add(&["--type-filter", text]);
        }
        if let Some(associated) = self.associated {
            add(&["--include-associated-data", associated.code()]);
        }
        if self.context {
            add(&["--context", "referenced"]);
        }
        if !self.missing_included {
            add(&["--missing-last-updated", "exclude"]);
        }
        if !self.late_included {
            add(&["--late", "report"]);
        }
        if self.bounds.file_bytes != Bounds::DEFAULT.file_bytes {
            add(&["--max-file-bytes", &self.bounds.file_bytes.to_string()]);
        }
        if self.bounds.file_resources != Bounds::DEFAULT.file_resources {
            add(&["--max-file-resources", &self.bounds.file_resources.to_string()]);
        }
        args.extend(self.more.iter().cloned());
        args
    }

    /// Reads a store for the oracle, with the base URLs of this request.
    pub(crate) fn read(&self, store: &Path) -> Store {
        let bases: Vec<&str> = self.bases.iter().map(String::as_str).collect();
        naive::read(store, &bases)
    }

    /// Runs the binary, with output to `out`.
    pub(crate) fn run(&self, store: &Path, out: &Path, scratch: &Path) -> Run {
        let args = self.args(scratch);
        run::export(store, out, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Gets both answers and compares lines, deletions, ledger, faults and exit code. `None` if both refuse the
    /// request.
    #[track_caller]
    pub(crate) fn check(&self, oracle: &Store, store: &Path, out: &Path, scratch: &Path) -> Option<Export> {
        let answer = naive::export(oracle, &self.request());
        let run = self.run(store, out, scratch);
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                assert_eq!(run.code, 2, "the twin refuses ({why}): {run:#?}");
                assert!(!out.join("manifest.json").exists(), "a refused request writes nothing");
                return None;
            }
        };
        assert_eq!(run.code, if answer.faults.is_empty() { 0 } else { 1 }, "{self:?}\n{run:#?}");
        let export = Export::read(out, self.bounds);
        self.compare(&answer, &export);
        Some(export)
    }

    /// Compares what the binary wrote with the oracle's answer.
    #[track_caller]
    fn compare(&self, answer: &Answer, export: &Export) {
        let lines = export.lines();
        if lines != answer.lines {
            let requested = Comparison { late: BTreeSet::new(), ..self.clone() };
            panic!("{requested:?}, {} late\n{}", self.late.len(), difference(answer, &lines));
        }
        assert_eq!(export.deletions(), answer.deleted, "{self:?}: deletions");
        let warned = export.messages().iter().any(|message| message.severity == "warning");
        assert!(warned || answer.warnings == 0, "{self:?}: {} members resolve to nothing", answer.warnings);
        let messages = export.messages();
        let errors: Vec<_> = messages.iter().filter(|message| message.severity == "error").collect();
        let report = |(file, line, offset): &&(String, u64, u64)| {
            let names = |message: &&run::Message| {
                message.text.contains(file.as_str()) && message.names_number(*line) && message.names_number(*offset)
            };
            errors.iter().any(names)
        };
        // A file that begins as a JSON document does is told as a whole.
        let is_whole =
            |file: &str| errors.iter().any(|error| error.text.contains(&format!("\"{file}: the file is one ")));
        let (whole, faults): (Vec<_>, Vec<_>) = answer.faults.iter().partition(|(file, ..)| is_whole(file));
        let whole: BTreeSet<&String> = whole.iter().map(|(file, ..)| file).collect();
        let untold: Vec<_> = faults.iter().filter(|fault| !report(fault)).collect();
        let few = answer.faults.len() <= 100;
        assert!(!few || untold.is_empty(), "{self:?}: faults that are not reported: {untold:?} in {errors:#?}");
        assert!(
            !few || errors.len() == faults.len() + whole.len(),
            "{self:?}: {:?} are faulty, {errors:#?} reported",
            answer.faults
        );
        let mut found = export.ledger();
        assert_eq!(found.remove("lines"), Some(answer.ledger.values().sum()), "{self:?}: lines of the ledger");
        let found: Vec<(&str, u64)> = found.iter().map(|(class, count)| (class.as_str(), *count)).collect();
        let ledger: Vec<(&str, u64)> = answer.ledger.iter().map(|(class, count)| (*class, *count)).collect();
        assert_eq!(found, ledger, "{self:?}: ledger");
    }
}

/// A text of up to five lines that only one of the answers has, and of the first difference of each type.
fn difference(answer: &Answer, found: &std::collections::BTreeMap<String, Vec<Vec<u8>>>) -> String {
    let set = |lines: &std::collections::BTreeMap<String, Vec<Vec<u8>>>| -> BTreeSet<String> {
        lines.values().flatten().map(|line| String::from_utf8_lossy(line).chars().take(400).collect()).collect()
    };
    let (oracle, binary) = (set(&answer.lines), set(found));
    let few = |lines: Vec<&String>| lines.into_iter().take(5).cloned().collect::<Vec<_>>().join("\n    ");
    let none = Vec::new();
    let names: BTreeSet<&String> = answer.lines.keys().chain(found.keys()).collect();
    let places = names.into_iter().filter_map(|name| {
        let (oracle, binary) = (answer.lines.get(name).unwrap_or(&none), found.get(name).unwrap_or(&none));
        let same = oracle.iter().zip(binary).take_while(|(one, other)| one == other).count();
        let (of, but) = (oracle.len(), binary.len());
        (oracle != binary).then(|| format!("{name}: line {} of {of} differs, the binary has {but}", same + 1))
    });
    format!(
        "only the twin exports\n    {}\nonly the binary exports\n    {}\nfirst differences\n    {}",
        few(oracle.difference(&binary).collect()),
        few(binary.difference(&oracle).collect()),
        places.collect::<Vec<_>>().join("\n    ")
    )
}
