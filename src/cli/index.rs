//! `outpour index`

use std::time::Instant as Clock;

use serde_json::json;

use super::args::{IndexArgs, ValidateArg};
use super::config::{open_store, pool};
use super::export::{exit_of, index_line};
use super::progress::watched;
use super::table::{bytes, count, table};
use super::{Exit, fail, put_json, say};
use crate::error::RequestError;
use crate::extract::{FaultKind, Validate};
use crate::fhir::ResourceType;
use crate::store::layout::Column;

/// Runs the command.
pub fn run(args: IndexArgs) -> Exit {
    let begun = Clock::now();
    if args.references {
        let error = RequestError::one("--references is not part of this version; leave it out");
        return fail(Exit::BadRequest, &error, args.json);
    }
    let validate = args.validate.map(|how| match how {
        ValidateArg::Full => Validate::Full,
        ValidateArg::Structure => Validate::Structure,
    });
    let ready = open_store(&args.store, validate, true).and_then(|store| Ok((store, pool(args.store.threads)?)));
    let (store, pool) = match ready {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, args.json),
    };
    let outcome = pool.install(|| watched(args.progress, |watch| store.index(watch)));
    let (index, work) = match outcome {
        Ok(done) => done,
        Err(error) => {
            let error = error.into();
            return fail(exit_of(&error), &error, args.json);
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let mut types = vec![0; ResourceType::COUNT];
    let mut faults = vec![0; FaultKind::ALL.len()];
    let mut index_bytes = 0;
    let (mut lines, mut faulty, mut tombstones) = (0, 0, 0);
    for extent in index.extents() {
        let Ok(columns) = extent.prove_columns(&[Column::TypeCount, Column::FaultCount]) else { continue };
        columns.type_count.iter().zip(&mut types).for_each(|(n, sum): (&u64, &mut u64)| *sum += n);
        columns.fault_count.iter().zip(&mut faults).for_each(|(n, sum): (&u64, &mut u64)| *sum += n);
        index_bytes += extent.head().size;
        lines += extent.head().lines;
        faulty += extent.head().faulty;
        tombstones += extent.tombstones() as u64;
    }
    let named_types: serde_json::Map<String, serde_json::Value> = ResourceType::all()
        .filter(|t| types[t.index()] > 0)
        .map(|t| (t.name().to_string(), types[t.index()].into()))
        .collect();
    let named_faults: serde_json::Map<String, serde_json::Value> = FaultKind::ALL
        .iter()
        .filter(|kind| faults[**kind as usize] > 0)
        .map(|kind| (kind.name().to_string(), faults[*kind as usize].into()))
        .collect();
    if args.json {
        put_json(&json!({
            "status": "complete",
            "exitCode": 0,
            "index": store.index_dir(),
            "durable": index.is_durable(),
            "files": index.generation().files.len(),
            "extents": index.extent_count(),
            "lines": lines,
            "rows": index.rows(),
            "patients": index.patients(),
            "tombstones": tombstones,
            "types": named_types,
            "faults": named_faults,
            "extentBytes": index_bytes,
            "work": work,
            "ignoredFiles": index.ignored(),
            "seconds": seconds,
        }));
    }
    let mut rows = vec![vec!["type".to_string(), "rows".into()]];
    rows.extend(named_types.iter().map(|(name, n)| vec![name.clone(), count(n.as_u64().unwrap_or(0))]));
    rows.push(vec!["all".into(), count(index.rows() as u64)]);
    say(&table(&rows));
    say(&format!("  lines      {}, {} of them faulty", count(lines), count(faulty)));
    for (name, n) in &named_faults {
        say(&format!("             {n} {name}"));
    }
    say(&format!("  patients   {}", count(index.patients() as u64)));
    say(&format!("  deletions  {}", count(tombstones)));
    say(&format!("  extents    {} of {}", index.extent_count(), bytes(index_bytes)));
    say(index_line(&work).trim_end());
    let rate = bytes((work.scanned_bytes as f64 / seconds.max(1e-6)) as u64);
    say(&format!("  time       {seconds:.2} s, {rate}/s scanned"));
    Exit::Done
}
