//! The harness of growth tables: a store of each size, measured step by step, and the exponents that fit.
//!
//! Every step runs in a process of its own, which is this bench started again, so that memory and CPU time are the
//! step's. Memory is the most anonymous memory that a thread beside it has seen (every two milliseconds).

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant as Clock;

/// What is done with the store in a scratch directory, given its size; it asserts its answer.
pub(crate) type GrowthStep = fn(&Path, usize);

/// One table: a kind of store of any size, and what is done with it.
pub(crate) struct GrowthTable {
    /// Name on the command line.
    pub name: &'static str,
    /// What grows, for the head of the table.
    pub about: &'static str,
    /// Largest size that is measured.
    pub size_max: usize,
    /// Writes the store of a size to the directory `store` of a scratch directory.
    pub write: fn(&Path, usize),
    /// The steps in their order, with their names.
    pub steps: &'static [(&'static str, GrowthStep)],
}

/// What a step took.
#[derive(Clone, Copy, Default)]
struct StepCost {
    wall: f64,
    cpu: f64,
    memory: f64,
}

/// Greatest exponent that the bytes of an index may have, fitted over all sizes.
const EXPONENT_MAX: f64 = 1.1;
/// CPU seconds below which a sum says more of the clock than of growth.
const CPU_SECONDS_MIN: f64 = 0.1;

/// Runs a step if this process was started for one, else measures and prints the tables that the arguments name, or all.
/// With `--test`, sizes are small, and only answers and bytes of the index are asserted.
pub(crate) fn run(tables: &[GrowthTable]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, table, step, size, scratch] = &arguments[..]
        && flag == "--step"
    {
        let table = tables.iter().find(|known| known.name == table).expect("a table");
        let (_, step) = table.steps.iter().find(|(name, _)| name == step).expect("a step");
        return measure_step(*step, Path::new(scratch), size.parse().expect("a size"));
    }
    let is_test = arguments.iter().any(|argument| argument == "--test");
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let most = std::env::var("OUTPOUR_GROWTH_MAX").ok().and_then(|most| most.parse().ok()).unwrap_or(usize::MAX);
    for table in tables.iter().filter(|table| names.is_empty() || names.iter().any(|name| *name == table.name)) {
        let sizes = if is_test { vec![100, 1000] } else { vec![1_000, 10_000, 100_000, 1_000_000] };
        let sizes: Vec<usize> = sizes.into_iter().filter(|size| *size <= table.size_max.min(most)).collect();
        println!("{}", tabulate(table, &sizes));
    }
}

/// Runs one step in this process and prints what it took.
fn measure_step(step: GrowthStep, scratch: &Path, size: usize) {
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                most.fetch_max(status("RssAnon:"), Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        let (begun, before) = (Clock::now(), cpu_seconds());
        step(scratch, size);
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - before);
        most.fetch_max(status("RssAnon:"), Relaxed);
        over.store(true, Relaxed);
        println!("cost {wall} {cpu} {}", most.load(Relaxed) as f64 / 1024.0);
    });
}

/// A number of kB of this process's status.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU seconds of this process, in steps of a hundredth.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // User and system time, behind the name in parentheses.
    (ticks(11) + ticks(12)) / 100.0
}

/// Measures a table at each size and writes it as Markdown.
fn tabulate(table: &GrowthTable, sizes: &[usize]) -> String {
    let mut text = format!("### {}: {}\n\n| n | store MB | index bytes |", table.name, table.about);
    for (step, _) in table.steps {
        write!(text, " {step}: wall s | CPU s | MB |").unwrap();
    }
    write!(text, "\n|{}\n", "---:|".repeat(3 + 3 * table.steps.len())).unwrap();
    let (mut cpu, mut bytes) = (Vec::new(), Vec::new());
    for size in sizes {
        let scratch = tempfile::tempdir().unwrap();
        (table.write)(scratch.path(), *size);
        let costs: Vec<StepCost> =
            table.steps.iter().map(|(step, _)| started_step(table.name, step, *size, scratch.path())).collect();
        let (store, index) =
            (directory_bytes(&scratch.path().join("store")), directory_bytes(&scratch.path().join("index")));
        write!(text, "| {size} | {:.1} | {index} |", store as f64 / 1e6).unwrap();
        for cost in &costs {
            write!(text, " {:.2} | {:.2} | {:.0} |", cost.wall, cost.cpu, cost.memory).unwrap();
        }
        text.push('\n');
        cpu.push((*size as f64, costs.iter().map(|cost| cost.cpu).sum()));
        bytes.push((*size as f64, index as f64));
    }
    cpu.retain(|(_, seconds)| *seconds >= CPU_SECONDS_MIN);
    let (of_cpu, of_bytes) = (fitted_exponent(&cpu), fitted_exponent(&bytes));
    let shown = |exponent: Option<f64>| exponent.map_or("too little to tell".to_string(), |e| format!("{e:.2}"));
    write!(text, "\nFitted exponent: CPU time of all steps {}, index bytes {}.\n", shown(of_cpu), shown(of_bytes))
        .unwrap();
    assert!(of_bytes.is_none_or(|exponent| exponent <= EXPONENT_MAX), "{text}");
    text
}

/// Starts this bench again for one step, and reads what the step took.
fn started_step(table: &str, step: &str, size: usize, scratch: &Path) -> StepCost {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--step", table, step, &size.to_string()]).arg(scratch).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{table} {step} {size}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix("cost ")).expect("a step says what it took");
    let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    StepCost { wall: numbers[0], cpu: numbers[1], memory: numbers[2] }
}

/// Bytes of the files of a directory, at any depth.
fn directory_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap());
    let bytes = entries.map(|entry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => directory_bytes(&entry.path()),
        metadata => metadata.len(),
    });
    bytes.sum()
}

/// Slope of the straight line that fits the logarithms best (least squares); `None` for fewer than two points.
fn fitted_exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points.iter().map(|(n, cost)| (n.ln(), cost.max(f64::MIN_POSITIVE).ln())).collect();
    let count = logs.len() as f64;
    let (x, y) = logs.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let above: f64 = logs.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = logs.iter().map(|point| (point.0 - x).powi(2)).sum();
    (logs.len() >= 2).then_some(above / below)
}
